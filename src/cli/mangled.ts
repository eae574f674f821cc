/** Names that Node can't pass on. */
import { isUtf8 } from 'node:buffer';
import { readFileSync } from 'node:fs';
import { Elf2dmpError } from '../core/errors.ts';

/**
 * Node replaces bytes of an argument that are not UTF-8, so that a name would be another one's: better none than that.
 * Throws `Elf2dmpError` (kind `usage`).
 *
 * @param commandLine reads the bytes as they were given (proc(5), cmdline)
 */
export function refuseMangled(argv: readonly string[], commandLine = () => readFileSync('/proc/self/cmdline')): void {
  const suspect = argv.find((word) => word.includes('\uFFFD'));
  if (suspect === undefined) return;
  let given: Buffer;
  try {
    given = commandLine();
  } catch {
    return;
  }
  if (isUtf8(given)) return;
  throw new Elf2dmpError({
    code: 'argument-not-utf8',
    kind: 'usage',
    message: `"${suspect}" has bytes that are not UTF-8: such names can't be used`,
    hint: 'rename the file, or give an input as standard input: `elf2dmp - OUTPUT < FILE`',
  });
}
