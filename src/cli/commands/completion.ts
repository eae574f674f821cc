/** `elf2dmp completion SHELL`: prints a shell's completion script. */

import { EXIT } from '../../core/exit-codes.ts';
import { SHELLS } from '../command-table.ts';
import type { Job } from '../job.ts';
import type { Given } from '../parse.ts';
import { usage } from '../usage.ts';

/** The job that a command line for `completion` asks for. */
export function completionJob({ names }: Given): Job {
  const shell = SHELLS.find((known) => known === names[0]);
  if (shell === undefined) throw usage(`no completion for ${names[0]}`, 'completion');
  return {
    json: false,
    verbose: false,
    run: async () => {
      const [{ renderCompletion }, { describeCommands }] = await Promise.all([
        import('../shell/completion.ts'),
        import('../describe.ts'),
      ]);
      process.stdout.write(renderCompletion(shell, describeCommands()));
      return EXIT.good;
    },
  };
}
