/** Values of options, as people write them. */
import { Elf2dmpError } from '../core/errors.ts';

export function usage(message: string, hint = 'see elf2dmp --help'): Elf2dmpError {
  return new Elf2dmpError({ code: 'usage', kind: 'usage', message, hint });
}

/** Hexadecimal as people copy it: 0x1ad000, 1ad000, fffff800`12345000. Throws `Elf2dmpError` (kind `usage`). */
export function address(option: string, text: string, limit: bigint): bigint {
  const digits = text.replaceAll('`', '').replace(/^0x/i, '');
  const value = /^[0-9a-f]{1,16}$/i.test(digits) ? BigInt(`0x${digits}`) : undefined;
  if (value === undefined || value >= limit) {
    throw usage(`${option}: "${text}" is not a hexadecimal address below 0x${limit.toString(16)}`);
  }
  return value;
}
