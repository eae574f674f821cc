/** `elf2dmp info FILE`: what it is and what runs in it. */
import type { Argv } from 'yargs';
import type { InspectOptions } from '../../operations/inspect.ts';
import { EXIT, EXIT_OF_KIND } from '../exit-codes.ts';
import { pageWriter } from '../html/write-page.ts';
import { locateDescriptions, locateOptions, sourceDescriptions, sourceOptions } from '../input-options.ts';
import type { AddCommand } from '../job.ts';
import { ProgressLine } from '../text/progress.ts';
import { renderSpooling, writeDiagnostics } from '../text/render.ts';
import { renderInfo } from '../text/render-info.ts';
import { inputName } from '../values.ts';

const options = (y: Argv) =>
  y
    .positional('file', {
      type: 'string',
      demandOption: true,
      describe: 'a dump of any kind that elf2dmp reads, or a crash dump (.dmp), also compressed; it is only read',
    })
    .options(sourceDescriptions("the system's for temporary files"))
    .options(locateDescriptions)
    .option('report', {
      type: 'string',
      requiresArg: true,
      describe: 'write a report for people, with stacks and a picture of memory, to this file (HTML)',
    })
    .option('force', { alias: 'f', type: 'boolean', default: false, describe: 'replace that file if it exists' })
    .option('json', { type: 'boolean', default: false, describe: 'print it as JSON (schema/info.schema.json)' })
    .option('verbose', { alias: 'v', type: 'boolean', default: false, describe: 'print notes too' });

export const addInfo: AddCommand = (yargs, chosen) =>
  yargs.command('info <file>', 'Says what a dump is and what runs in it.', options, (args) => {
    const { json, verbose } = args;
    const inspection: InspectOptions = { input: inputName(args.file), ...sourceOptions(args), ...locateOptions(args) };
    chosen({
      json,
      verbose,
      run: async (signal) => {
        const line = process.stderr.isTTY ? new ProgressLine(process.stderr) : undefined;
        try {
          const page =
            args.report === undefined ? undefined : await pageWriter(args.report, inspection.input, args.force);
          const report = await (await import('../../operations/inspect.ts')).inspect({
            ...inspection,
            onPage: page?.take,
            signal,
            onSpool: (spooling) => {
              line?.clear();
              process.stderr.write(renderSpooling(spooling));
            },
            onSpooled: line && ((done, total) => line.update({ phase: 'spool', done, total })),
            onSearch: line && ((done, total) => line.update({ phase: 'search', done, total })),
          });
          await page?.write();
          line?.clear();
          writeDiagnostics(report.diagnostics, { quiet: false, verbose });
          process.stdout.write(json ? `${JSON.stringify(report, null, 2)}\n` : renderInfo(report));
          return report.problem ? EXIT_OF_KIND[report.problem.kind] : EXIT.good;
        } finally {
          line?.clear();
        }
      },
    });
  });
