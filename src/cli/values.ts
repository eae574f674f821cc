/** Values of options, as people write them. */

import { STANDARD_INPUT } from '../choices.ts';
import { Elf2dmpError } from '../core/errors.ts';
import { PHYSICAL_ADDRESS_LIMIT } from '../core/units.ts';
import type { RawRange } from '../readers/raw.ts';

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

/** What the parser makes of `-`: no file's name, since a name can't hold a NUL. */
export const STANDARD_INPUT_WORD = '\0-';

/** An input as it was written. */
export const inputName = (word: string): string => (word === STANDARD_INPUT_WORD ? STANDARD_INPUT : word);

/** As `inputName`; a dump can't be a stream. Throws `Elf2dmpError` (kind `usage`). */
export function outputName(word: string): string {
  if (word !== STANDARD_INPUT_WORD) return word;
  throw usage('the dump can not go to standard output: what its header says comes last', 'name a file');
}

/** 4096, 0x1000, 512K, 3G. */
const AMOUNT = /^(0x[0-9a-f]{1,13}|\d{1,15})([KMGT]?)$/i;
const UNITS: Record<string, number> = { '': 1, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30, T: 2 ** 40 };

function amount(text: string): number | undefined {
  const [, digits, unit] = AMOUNT.exec(text) ?? [];
  const value = digits === undefined ? undefined : Number(digits) * UNITS[unit!.toUpperCase()]!;
  return value !== undefined && value < PHYSICAL_ADDRESS_LIMIT ? value : undefined;
}

/** `0+3G,4G`: physical address and bytes of each range in the file's order; the last may leave out its bytes. */
export function rawRanges(text: string): RawRange[] {
  const parts = text.split(',');
  return parts.map((part, i) => {
    const [first = '', second, ...more] = part.split('+');
    const start = amount(first);
    const size = second === undefined ? undefined : amount(second);
    const sized = size !== undefined || (second === undefined && i === parts.length - 1);
    if (start === undefined || !sized || more.length > 0) {
      throw usage(`--runs: "${text}" is no list of START+SIZE`, 'for example --runs 0+3G,4G');
    }
    return { start, size };
  });
}
