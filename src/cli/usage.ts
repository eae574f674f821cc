/** Errors in a command line. */
import { Elf2dmpError } from '../core/errors.ts';
import type { CommandName } from './command-table.ts';

/** A wrong command line. */
export const usage = (message: string, command: CommandName = 'convert', hint?: string): Elf2dmpError =>
  new Elf2dmpError({
    code: 'usage',
    kind: 'usage',
    message,
    hint: hint ?? `see elf2dmp ${command === 'convert' ? '' : `${command} `}--help`,
  });
