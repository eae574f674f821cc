/** `elf2dmp verify FILE`: checks a crash dump by itself or against its input. */

import { EXIT } from '../../core/exit-codes.ts';
import { toJson } from '../../core/json.ts';
import type { VerifyOptions } from '../../operations/verify.ts';
import { STANDARD_STREAM } from '../../options/choices.ts';
import { type Job, withDefaults } from '../job.ts';
import { optionsFor } from '../library-options.ts';
import type { Given } from '../parse.ts';
import { ProgressLine } from '../text/progress.ts';
import { describeVerification, writeFindings } from '../text/render-verify.ts';
import { watchReading } from '../text/watch-reading.ts';
import { usage } from '../usage.ts';

/** The job that a command line for `verify` asks for. Throws `Elf2dmpError` (kind `usage`). */
export function verifyJob({ names: [dump], values }: Given): Job {
  const { json, quiet, verbose, progress } = withDefaults('verify', values);
  if (dump === STANDARD_STREAM) throw usage('verify needs a file: it reads the dump more than once', 'verify');
  const verification: VerifyOptions = { dump: dump!, ...optionsFor('verify', values) };
  return {
    json,
    verbose,
    run: async (signal) => {
      const line = new ProgressLine(process.stderr, { quiet, json: progress === 'json' });
      try {
        const report = await (await import('../../operations/verify.ts')).verify({
          ...verification,
          signal,
          ...watchReading(line, quiet),
          onProgress: (done, total) => line.update({ phase: 'verify', done, total }),
        });
        line.clear();
        writeFindings(report, { quiet, verbose });
        if (json) process.stdout.write(`${toJson(report, 2)}\n`);
        else if (!quiet) {
          const { sha256 } = report;
          const hashes = sha256
            ? `SHA-256:       dump   ${sha256.dump}\n${sha256.input ? `               input  ${sha256.input}\n` : ''}`
            : '';
          process.stdout.write(describeVerification(report, verbose) + hashes);
        }
        return report.outcome === 'sound' ? EXIT.good : EXIT.differs;
      } finally {
        line.end();
      }
    },
  };
}
