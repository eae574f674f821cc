/** Errors in a command line. */
import { Elf2dmpError } from '../core/errors.ts';
import { type CommandName, commandLine } from './command-table.ts';

/** A wrong command line; without another hint, the command's help. */
export const usage = (message: string, command: CommandName = 'convert', hint = seeHelp(command)): Elf2dmpError =>
  new Elf2dmpError({ code: 'usage', kind: 'usage', message, hint });

/** A wrong option; the codes are those of the library. */
export const wrongOption = (
  code: 'option-unknown' | 'option-value' | 'option-missing',
  message: string,
  command: CommandName,
  hint = seeHelp(command),
): Elf2dmpError => new Elf2dmpError({ code, kind: 'usage', message, hint });

/** Points to a command's help. */
export const seeHelp = (command: CommandName): string => `see ${commandLine(command)} --help`;
