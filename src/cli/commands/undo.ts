/** `elf2dmp --undo FILE`: restores a file converted in place. */

import { EXIT } from '../../core/exit-codes.ts';
import { toJson } from '../../core/json.ts';
import type { Job } from '../job.ts';
import { renderUndo } from '../text/render.ts';

/** The job that restores a file. */
export function undoJob(
  file: string,
  { json, quiet, verbose }: { json: boolean; quiet: boolean; verbose: boolean },
): Job {
  return {
    json,
    verbose,
    output: file,
    run: async () => {
      const report = await (await import('../../operations/in-place.ts')).undoInPlace({ file });
      if (json) process.stdout.write(`${toJson(report, 2)}\n`);
      else if (!quiet) process.stdout.write(renderUndo(report));
      return EXIT.good;
    },
  };
}
