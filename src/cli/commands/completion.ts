/** `elf2dmp completion SHELL`: the shell's completion of elf2dmp's command line. */

import { EXIT } from '../exit-codes.ts';
import type { CommandHelp } from '../help-text.ts';
import type { AddCommand } from '../job.ts';
import { renderCompletion, SHELLS } from '../shell/completion.ts';

/** @param help gives what is completed, which only the whole command line knows */
export const addCompletion =
  (help: () => Promise<CommandHelp[]>): AddCommand =>
  (yargs, chosen) =>
    yargs.command(
      'completion <shell>',
      'Prints a script that makes a shell complete the command line.',
      (y) => y.positional('shell', { choices: SHELLS, demandOption: true, describe: 'the shell that sources it' }),
      ({ shell }) => {
        chosen({
          json: false,
          verbose: false,
          run: async () => {
            process.stdout.write(renderCompletion(shell, await help()));
            return EXIT.good;
          },
        });
      },
    );
