/** Values of options: their types, and how people write them. */
import { Elf2dmpError } from '../core/errors.ts';
import { PHYSICAL_ADDRESS_LIMIT } from '../core/units.ts';
import type { Call, Command, OptionRow } from './row.ts';
import type { OPTIONS, OptionName } from './table.ts';

/** A physical range of raw memory; ranges lie in the file one after another. */
export interface RawRange {
  /** Physical address. */
  start: number;
  /** Bytes; undefined for all that is left, in the last range only. */
  size: number | undefined;
}

type Rows = typeof OPTIONS;

type ValueOf<Row extends OptionRow> = Row extends { kind: 'flag' }
  ? boolean
  : Row extends { kind: 'choice'; choices: readonly (infer Choice)[] }
    ? Choice
    : Row extends { kind: 'physical' | 'count' }
      ? number
      : Row extends { kind: 'virtual' }
        ? bigint
        : Row extends { kind: 'ranges' }
          ? readonly RawRange[]
          : string;

/** The type of an option's value in the library. */
export type OptionValue<Name extends OptionName> = ValueOf<Rows[Name]>;

type CamelCase<Name extends string> = Name extends `${infer First}-${infer Rest}`
  ? `${First}${Capitalize<CamelCase<Rest>>}`
  : Name;

type LibraryName<Name extends OptionName> = Rows[Name] extends { library: infer Other extends string }
  ? Other
  : CamelCase<Name>;

/** The options that a function of the library takes, each with its doc comment from the table. */
export type CallOptions<Function extends Call> = {
  -readonly [Name in OptionName as Function extends Rows[Name]['calls'][number] ? LibraryName<Name> : never]?:
    | ValueOf<Rows[Name]>
    | undefined;
};

/** Options of a batch's conversions, as the library has them. */
export type JobCallOptions = {
  -readonly [Name in OptionName as Rows[Name] extends { toml: 'options' } ? LibraryName<Name> : never]?:
    | ValueOf<Rows[Name]>
    | undefined;
};

type NamesOf<Where extends Command> = {
  [Name in OptionName]: Where extends Rows[Name]['commands'][number] ? Name : never;
}[OptionName];

/** A command's options as its command line gives them, defaults filled in. */
export type CommandValues<Where extends Command> = {
  [Name in NamesOf<Where>]: Rows[Name] extends { default: string | boolean }
    ? ValueOf<Rows[Name]>
    : ValueOf<Rows[Name]> | undefined;
};

/** A command's options as they were given, without defaults. */
export type GivenValues<Where extends Command> = { [Name in NamesOf<Where>]?: ValueOf<Rows[Name]> | undefined };

/** Options of a conversion in a batch's configuration: paths and addresses are still text. */
export type ConfiguredOptions<Place extends 'batch' | 'options'> = {
  [Name in OptionName as Rows[Name] extends { toml: Place } ? Name : never]?:
    | (Rows[Name] extends { kind: 'physical' | 'virtual' | 'ranges' } ? string : ValueOf<Rows[Name]>)
    | undefined;
};

/** `kernel-base` is `kernelBase` in the library. */
export const libraryName = (name: string, { library }: OptionRow): string =>
  library ?? name.replace(/-(.)/g, (_, letter: string) => letter.toUpperCase());

/** Virtual addresses stop here. */
export const VIRTUAL_ADDRESS_LIMIT = 2n ** 64n;

/** A wrong value: `name` is the option as its reader wrote it. */
export const wrongValue = (name: string, expected: string, found: string, hint?: string): Elf2dmpError =>
  new Elf2dmpError({
    code: 'option-value',
    kind: 'usage',
    message: `${name}: expected ${expected}, found ${found}`,
    hint,
  });

/** Describes an option's values. */
export function expectation(row: OptionRow): string {
  switch (row.kind) {
    case 'flag':
      return 'true or false';
    case 'choice':
      return `one of ${row.choices.map((choice) => `"${choice}"`).join(', ')}`;
    case 'physical':
      return `a hexadecimal address below 0x${PHYSICAL_ADDRESS_LIMIT.toString(16)}`;
    case 'virtual':
      return 'a hexadecimal address of at most 64 bits';
    case 'ranges':
      return 'a list of START+SIZE such as 0+3G,4G';
    case 'count':
      return `a whole number from ${row.least} to ${row.most}`;
    default:
      return 'text that is not empty';
  }
}

/**
 * The value that `text` stands for; undefined if it is none of the option's. A flag's text is `true` or `false`.
 */
export function parseText(row: OptionRow, text: string): unknown {
  switch (row.kind) {
    case 'flag':
      return text === 'true' || text === 'false' ? text === 'true' : undefined;
    case 'choice':
      return row.choices.find((choice) => choice === text);
    case 'physical': {
      const address = hexAddress(text);
      return address === undefined || address >= PHYSICAL_ADDRESS_LIMIT ? undefined : Number(address);
    }
    case 'virtual':
      return hexAddress(text);
    case 'ranges':
      return rawRanges(text);
    case 'count': {
      const count = /^\d{1,9}$/.test(text) ? Number(text) : Number.NaN;
      return count >= row.least && count <= row.most ? count : undefined;
    }
    default:
      return text === '' ? undefined : text;
  }
}

/** The text, or the flag, that `parseText` takes for a value. */
export function asText(row: OptionRow, value: unknown): string | boolean {
  if (typeof value === 'boolean') return value;
  if (row.kind === 'physical' || row.kind === 'virtual') return `0x${(value as number | bigint).toString(16)}`;
  if (row.kind !== 'ranges') return String(value);
  const ranges = value as readonly RawRange[];
  return ranges.map(({ start, size }) => (size === undefined ? `${start}` : `${start}+${size}`)).join(',');
}

/** Hexadecimal as people copy it: 0x1ad000, 1ad000, fffff800`12345000. */
function hexAddress(text: string): bigint | undefined {
  const digits = text.replaceAll('`', '').replace(/^0x/i, '');
  return /^[0-9a-f]{1,16}$/i.test(digits) ? BigInt(`0x${digits}`) : undefined;
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
function rawRanges(text: string): RawRange[] | undefined {
  const ranges: RawRange[] = [];
  const parts = text.split(',');
  for (const [i, part] of parts.entries()) {
    const [first = '', second, ...more] = part.split('+');
    const start = amount(first);
    const size = second === undefined ? undefined : amount(second);
    const sized = size !== undefined || (second === undefined && i === parts.length - 1);
    if (start === undefined || !sized || more.length > 0) return undefined;
    ranges.push({ start, size });
  }
  return ranges;
}
