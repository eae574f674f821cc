/** `elf2dmp verify OUT.dmp`: whether a dump holds together, and holds what its input does. */
import type { Argv } from 'yargs';
import type { VerifyOptions } from '../../verify/verify.ts';
import { EXIT } from '../exit-codes.ts';
import { locateDescriptions, locateOptions, sourceDescriptions, sourceOptions } from '../input-options.ts';
import type { AddCommand } from '../job.ts';
import { ProgressLine } from '../text/progress.ts';
import { renderSpooling } from '../text/render.ts';
import { describeVerification, writeFindings } from '../text/render-verify.ts';
import { inputName, STANDARD_INPUT_WORD, usage } from '../values.ts';

const options = (y: Argv) =>
  y
    .positional('dump', { type: 'string', demandOption: true, describe: 'the crash dump (.dmp); it is only read' })
    .option('against', {
      type: 'string',
      requiresArg: true,
      describe: 'the input that it was made from: every page is compared',
    })
    .option('patches', {
      type: 'string',
      requiresArg: true,
      describe: 'what the conversion changed, as `--patches` saved it; without, it is worked out again',
    })
    .option('hash', { type: 'boolean', default: false, describe: 'put the SHA-256 of the files in the report' })
    .options(sourceDescriptions("the system's for temporary files"))
    .options(locateDescriptions)
    .option('json', { type: 'boolean', default: false, describe: 'print the report as JSON' })
    .option('quiet', { alias: 'q', type: 'boolean', default: false, describe: 'print errors only' });

export const addVerify: AddCommand = (yargs, chosen) =>
  yargs.command('verify <dump>', 'Checks a crash dump, by itself or against its input.', options, (args) => {
    const { json, quiet } = args;
    if (args.patches !== undefined && args.against === undefined) throw usage('--patches needs --against');
    if (args.dump === STANDARD_INPUT_WORD) throw usage('verify needs a file: it reads the dump more than once');
    const verification: VerifyOptions = {
      dump: args.dump,
      against: args.against === undefined ? undefined : inputName(args.against),
      patches: args.patches,
      hash: args.hash,
      ...sourceOptions(args),
      ...locateOptions(args),
    };
    chosen({
      json,
      verbose: false,
      run: async (signal) => {
        const line = process.stderr.isTTY && !quiet ? new ProgressLine(process.stderr) : undefined;
        try {
          const report = await (await import('../../verify/verify.ts')).verify({
            ...verification,
            signal,
            onSpool: quiet
              ? undefined
              : (spooling) => {
                  line?.clear();
                  process.stderr.write(renderSpooling(spooling));
                },
            onSpooled: line && ((done, total) => line.update({ phase: 'spool', done, total })),
            onProgress: line && ((done, total) => line.update({ phase: 'verify', done, total })),
            onSearch: line && ((done, total) => line.update({ phase: 'search', done, total })),
          });
          line?.clear();
          writeFindings(report, quiet);
          if (json) process.stdout.write(`${JSON.stringify(report, null, 2)}\n`);
          else if (!quiet) {
            const { sha256 } = report;
            const hashes = sha256
              ? `SHA-256:       dump   ${sha256.dump}\n${sha256.input ? `               input  ${sha256.input}\n` : ''}`
              : '';
            process.stdout.write(describeVerification(report) + hashes);
          }
          return report.outcome === 'sound' ? EXIT.good : EXIT.differs;
        } finally {
          line?.clear();
        }
      },
    });
  });
