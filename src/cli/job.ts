/** A job is what a command line asks for. `commands/` has one file for each command. */
import { type OptionName, rowsOf } from '../options/table.ts';
import type { CommandValues } from '../options/values.ts';
import type { CommandName } from './command-table.ts';

/** Something to run. */
export interface Job {
  /** `--json`: a failure is also reported on stdout, as data. */
  json: boolean;
  verbose: boolean;
  /** The output's name, for the message when a signal ends it. */
  output?: string | undefined;
  /** What stays when a signal ends it, for the same message. Default: nothing. */
  stays?: string | undefined;
  /** Runs it, prints, and returns the exit code. Throws `Elf2dmpError`. */
  run(signal: AbortSignal): Promise<number>;
}

/** A command's options with the table's defaults. */
export function withDefaults<Name extends CommandName>(
  command: Name,
  values: Readonly<Record<string, unknown>>,
): CommandValues<Name> {
  const all: Partial<Record<OptionName, unknown>> = {};
  for (const [name, row] of rowsOf(command)) all[name] = values[name] ?? ('default' in row ? row.default : undefined);
  // The parser gives each row a value of its type: a test parses every option of every command.
  return all as CommandValues<Name>;
}
