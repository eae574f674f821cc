/**
 * Checks options against the table: names and values from callers of the library, and conflicts on the command line,
 * in a batch's configuration and in the library. Written by hand, because every start would pay for loading zod.
 */
import { Elf2dmpError } from '../core/errors.ts';
import { PHYSICAL_ADDRESS_LIMIT } from '../core/units.ts';
import { isInputBytes, isWritable, OpenedInput } from './opened.ts';
import type { Call, OptionRow } from './row.ts';
import { closest } from './similar.ts';
import { OPTIONS, type OptionName, ROWS } from './table.ts';
import { expectation, libraryName, VIRTUAL_ADDRESS_LIMIT, wrongValue } from './values.ts';

/** What a function takes besides the table's options. */
interface CallForm {
  /** Paths that it can't do without. */
  paths: readonly string[];
  callbacks: readonly string[];
  /** Those that may be an opened input, or its bytes, instead of a path. */
  inputs: readonly string[];
  /** Those that may be a stream to write to. */
  outputs?: readonly string[];
  /** Those that the function checks itself. */
  others?: readonly string[];
}

const READING = ['onSpool', 'onSpooled', 'onSearch'] as const;

/** Every function of the library that takes options. */
export const CALLS = {
  convert: { paths: ['input', 'output'], callbacks: ['onSpool', 'onProgress'], inputs: ['input'], outputs: ['output'] },
  convertInPlace: { paths: ['file'], callbacks: ['onProgress'], inputs: [] },
  undoInPlace: { paths: ['file'], callbacks: [], inputs: [] },
  inspect: { paths: ['input'], callbacks: READING, inputs: ['input'] },
  stacks: { paths: ['input'], callbacks: READING, inputs: ['input'] },
  verify: { paths: ['dump'], callbacks: [...READING, 'onProgress'], inputs: ['against'] },
  openGuest: { paths: [], callbacks: READING, inputs: [] },
  open: { paths: [], callbacks: READING, inputs: [] },
  locate: { paths: [], callbacks: ['onSearch'], inputs: [] },
  batch: {
    paths: ['out'],
    callbacks: ['onEvent'],
    inputs: [],
    others: ['inputs', 'exclude', 'options', 'overrides', 'shard', 'command'],
  },
} as const satisfies Record<Call, CallForm>;

/** Names that a function takes besides the table's options. */
export type CallKeys<Function extends Call> = 'signal' | (typeof CALLS)[Function]['paths' | 'callbacks'][number];

/** Whether an option has another value than it has by itself. */
export function isSet(row: OptionRow, value: unknown): boolean {
  if ('default' in row) return value !== undefined && value !== row.default;
  return value !== undefined && !(row.kind === 'flag' && value === false);
}

/** As it is typed: `--no-patch`, `--type full`. */
export function asTyped(name: string, row: OptionRow, value: unknown): string {
  if (row.kind === 'flag' && value === false) return `--no-${name}`;
  return row.kind === 'choice' && row.bare === undefined ? `--${name} ${String(value)}` : `--${name}`;
}

/** Throws `Elf2dmpError` (kind `usage`) for options, by their names in the table, that exclude each other. */
export function checkTogether(values: Readonly<Record<string, unknown>>, hint?: string): void {
  for (const [name, row] of ROWS) {
    if (!isSet(row, values[name])) continue;
    for (const conflict of row.conflicts ?? []) {
      const other = OPTIONS[conflict.with as OptionName];
      const value = values[conflict.with];
      if (!isSet(other, value) || (conflict.values && !conflict.values.includes(String(value)))) continue;
      throw notTogether(asTyped(name, row, values[name]), asTyped(conflict.with, other, value), hint);
    }
  }
}

/** The error for two things that exclude each other, as they are typed. */
export const notTogether = (one: string, other: string, hint?: string): Elf2dmpError =>
  new Elf2dmpError({ code: 'option-conflict', kind: 'usage', message: `${one} and ${other} do not go together`, hint });

/** Checks what a caller of the library gave. Throws `Elf2dmpError` (kind `usage`). */
export function checkCall(call: Call, options: unknown): void {
  if (typeof options !== 'object' || options === null) {
    throw wrongValue(call, 'an object of options', found(options));
  }
  const given = options as Readonly<Record<string, unknown>>;
  const { paths, callbacks, inputs, outputs = [], others = [] }: CallForm = CALLS[call];
  const isOpened = (key: string) =>
    (inputs.includes(key) && (given[key] instanceof OpenedInput || isInputBytes(given[key]))) ||
    (outputs.includes(key) && isWritable(given[key]));
  const rows = new Map(
    ROWS.filter(([, row]) => row.calls.includes(call)).map(([name, row]) => [libraryName(name, row), { name, row }]),
  );
  const known = [...paths, ...others, ...rows.keys(), ...callbacks, 'signal'];
  for (const key of Object.keys(given)) {
    if (!known.includes(key)) throw unknownOption(call, key, known);
  }
  for (const path of paths) {
    const value = given[path];
    if (value === undefined) {
      throw new Elf2dmpError({ code: 'option-missing', kind: 'usage', message: `${call}: ${path} is missing` });
    }
    if (!isOpened(path)) checkPath(`${call}: ${path}`, value);
  }
  for (const name of callbacks) {
    const value = given[name];
    if (value !== undefined && typeof value !== 'function') {
      throw wrongValue(`${call}: ${name}`, 'a function', found(value));
    }
  }
  const { signal }: { signal?: unknown } = given;
  if (signal !== undefined && !(signal instanceof AbortSignal)) {
    throw wrongValue(`${call}: signal`, 'an AbortSignal', found(signal));
  }
  const values: Record<string, unknown> = {};
  for (const [key, { name, row }] of rows) {
    const value = given[key];
    values[name] = value;
    if (value !== undefined && !isOpened(key) && !isValue(row, value)) {
      throw wrongValue(`${call}: ${key}`, libraryExpectation(row), found(value));
    }
    if (value !== undefined && row.needs !== undefined && rows.has(row.needs) && given[row.needs] === undefined) {
      throw new Elf2dmpError({
        code: 'option-missing',
        kind: 'usage',
        message: `${call}: ${key} needs ${row.needs}`,
      });
    }
  }
  checkTogether(values);
}

/**
 * Checks options of a batch's conversions. Throws `Elf2dmpError` (kind `usage`).
 *
 * @returns them by their names in the table
 */
export function checkJobOptions(name: string, options: unknown): Readonly<Record<string, unknown>> {
  if (typeof options !== 'object' || options === null) throw wrongValue(name, 'an object of options', found(options));
  const rows = new Map(
    ROWS.filter(([, row]) => row.toml === 'options').map(([option, row]) => [
      libraryName(option, row),
      { option, row },
    ]),
  );
  const values: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(options)) {
    const known = rows.get(key);
    if (!known) throw unknownOption(name, key, [...rows.keys()]);
    if (value === undefined) continue;
    if (!isValue(known.row, value)) throw wrongValue(`${name}.${key}`, libraryExpectation(known.row), found(value));
    values[known.option] = value;
  }
  return values;
}

/** An input that a caller of the library gave: a path, or its bytes. Throws `Elf2dmpError` (kind `usage`). */
export function checkInputValue(name: string, value: unknown): void {
  if (!isInputBytes(value)) checkPath(name, value);
}

/** A path that a caller of the library gave; `-` is standard input. Throws `Elf2dmpError` (kind `usage`). */
export function checkPath(name: string, value: unknown): void {
  if (!isPath(value)) throw wrongValue(name, 'a path', found(value));
}

const unknownOption = (call: string, key: string, known: readonly string[]) => {
  const meant = closest(key, known);
  return new Elf2dmpError({
    code: 'option-unknown',
    kind: 'usage',
    message: `${call} has no option "${key}"`,
    hint: meant === undefined ? `its options are ${known.join(', ')}` : `did you mean ${meant}?`,
  });
};

const isPath = (value: unknown): boolean => typeof value === 'string' && value !== '' && !value.includes('\0');

const isAmount = (value: unknown): boolean =>
  typeof value === 'number' && Number.isInteger(value) && value >= 0 && value < PHYSICAL_ADDRESS_LIMIT;

function isValue(row: OptionRow, value: unknown): boolean {
  switch (row.kind) {
    case 'flag':
      return typeof value === 'boolean';
    case 'choice':
      return typeof value === 'string' && row.choices.includes(value);
    case 'physical':
      return isAmount(value);
    case 'virtual':
      return typeof value === 'bigint' && value >= 0n && value < VIRTUAL_ADDRESS_LIMIT;
    case 'count':
      return isAmount(value) && (value as number) >= row.least && (value as number) <= row.most;
    case 'ranges':
      return Array.isArray(value) && value.length > 0 && value.every(isRange);
    default:
      return isPath(value);
  }
}

/** Only the last may leave out its size. */
function isRange(range: unknown, i: number, all: readonly unknown[]): boolean {
  if (typeof range !== 'object' || range === null) return false;
  const { start, size } = range as Record<string, unknown>;
  return isAmount(start) && (size === undefined ? i === all.length - 1 : isAmount(size));
}

function libraryExpectation(row: OptionRow): string {
  switch (row.kind) {
    case 'physical':
      return `an address as a number below 0x${PHYSICAL_ADDRESS_LIMIT.toString(16)}`;
    case 'virtual':
      return 'an address as a bigint of at most 64 bits';
    case 'ranges':
      return 'an array of { start, size }, of which only the last may leave out its size';
    case 'file':
    case 'directory':
      return 'a path';
    default:
      return expectation(row);
  }
}

/** Any value, short enough for a message. */
export function found(value: unknown): string {
  if (value === undefined) return 'nothing';
  if (typeof value === 'string') return JSON.stringify(value.slice(0, 60));
  if (typeof value === 'bigint') return `${value}n`;
  if (typeof value === 'function') return 'a function';
  if (Array.isArray(value)) return 'an array';
  return typeof value === 'object' && value !== null ? 'an object' : String(value);
}
