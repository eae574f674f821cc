/** What the command line asked for. One file per command in `commands/` makes these. */
import type { Argv } from 'yargs';

/** Words are taken as they are; of an option that is given twice the last counts. */
export const PARSER_CONFIGURATION = {
  'parse-numbers': false,
  'parse-positional-numbers': false,
  'dot-notation': false,
  'duplicate-arguments-array': false,
  'camel-case-expansion': false,
} as const;

export interface Job {
  /** `--json`: a failure is also told on stdout, as data. */
  json: boolean;
  verbose: boolean;
  /** Its end is told by a signal; the output's name is for the message. */
  output?: string | undefined;
  /** Does it, prints, and gives the exit code. Throws `Elf2dmpError`. */
  run(signal: AbortSignal): Promise<number>;
}

/** Declares a command; `chosen` is called with the job when the command line is one for it. */
export type AddCommand = (yargs: Argv, chosen: (job: Job) => void) => Argv;
