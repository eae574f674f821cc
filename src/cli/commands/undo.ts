/** `elf2dmp --undo FILE`: takes back what `--in-place` did. */
import { EXIT } from '../exit-codes.ts';
import type { Job } from '../job.ts';
import { renderUndo } from '../text/render.ts';

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
      if (json) process.stdout.write(`${JSON.stringify(report, null, 2)}\n`);
      else if (!quiet) process.stdout.write(renderUndo(report));
      return EXIT.good;
    },
  };
}
