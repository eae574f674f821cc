/** Reads a batch's configuration file (TOML), and says what is wrong with it. */
import { readFileSync } from 'node:fs';
import TOML from '@iarna/toml';
import * as z from 'zod';
import { Elf2dmpError, ioError } from '../core/errors.ts';
import type { OptionRow } from '../options/row.ts';
import { closest } from '../options/similar.ts';
import { ROWS } from '../options/table.ts';
import { type ConfiguredOptions, expectation, parseText } from '../options/values.ts';
import { lineOfKey } from './toml-lines.ts';

/** zod's own messages are replaced by what was expected. */
const text = z
  .string({ error: 'a string' })
  .min(1, { error: 'a string that is not empty' })
  .refine((value) => !value.includes('\0'), { error: 'a string without NUL' });
const list = z.array(text, { error: 'an array of strings' });

/** An option's value in a configuration. */
function schemaOf(row: OptionRow): z.ZodType {
  const error = expectation(row);
  switch (row.kind) {
    case 'flag':
      return z.boolean({ error });
    case 'choice':
      return z.enum(row.choices, { error });
    case 'count':
      return z.int({ error }).min(row.least, { error }).max(row.most, { error });
    case 'physical':
    case 'virtual':
    case 'ranges': {
      // TOML integers are signed: the upper half of all addresses would not fit.
      const written = `a string with ${error}`;
      return z.string({ error: written }).refine((value) => parseText(row, value) !== undefined, { error: written });
    }
    default:
      return text;
  }
}

const optionsAt = (place: 'batch' | 'options'): Record<string, z.ZodType> =>
  Object.fromEntries(
    ROWS.filter(([, row]) => row.toml === place).map(([name, row]) => [name, schemaOf(row).optional()]),
  );

const options = z.strictObject(optionsAt('options'), { error: 'a table' });

const override = z.strictObject(
  { match: text, name: text.optional(), options: options.optional() },
  { error: 'a table' },
);

/** Keys that are not options of the command line. */
const STRUCTURE = {
  inputs: list.optional(),
  exclude: list.optional(),
  options: options.optional(),
  override: z.array(override, { error: 'an array of tables: [[override]]' }).optional(),
};

const config = z.strictObject({ ...optionsAt('batch'), ...STRUCTURE }, { error: 'a table' });

/** A configuration's contents. */
export interface BatchConfig extends ConfiguredOptions<'batch'> {
  inputs?: string[];
  exclude?: string[];
  options?: ConfiguredOptions<'options'>;
  override?: { match: string; name?: string; options?: ConfiguredOptions<'options'> }[];
}

/** Every key: those at the top, of an override, and of `options`. */
export const CONFIG_KEYS: Readonly<Record<'top' | 'override' | 'options', readonly string[]>> = {
  top: Object.keys(config.shape),
  override: Object.keys(override.shape),
  options: Object.keys(options.shape),
};

/** Throws `Elf2dmpError` that names file, key, and what was expected. */
export function readConfig(file: string): BatchConfig {
  let source: string;
  try {
    // A byte order mark, which Windows' editors write, is no part of the text.
    source = readFileSync(file, 'utf8').replace(/^\uFEFF/, '');
  } catch (cause) {
    throw ioError('read', file, cause);
  }
  let data: unknown;
  try {
    data = TOML.parse(source);
  } catch (cause) {
    const { line, message } = cause as Error & { line?: number };
    const place = line === undefined ? '' : ` in line ${line + 1}`;
    throw configError(file, `is not TOML${place}: ${message.split(/ at row| \n|\n/)[0]}`);
  }
  refuseLargeIntegers(file, source);
  const result = config.safeParse(withPresentNames(data as Record<string, unknown>));
  // The table determines both the schema and the type.
  if (result.success) return result.data as BatchConfig;
  const [first = '', ...more] = result.error.issues.map((issue) => describe(issue, data, source));
  throw configError(file, first, ...more);
}

/** Keys by the names that earlier versions gave them are understood. */
function withPresentNames(data: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const present = new Map(ROWS.filter(([, row]) => row.toml === 'batch').map(([name, { former }]) => [former, name]));
  return Object.fromEntries(Object.entries(data).map(([key, value]) => [present.get(key) ?? key, value]));
}

/** Strings and comments, whose digits are no numbers. */
const NO_NUMBERS = /"""[\s\S]*?"""|'''[\s\S]*?'''|"(?:\\.|[^"\\\n])*"|'[^'\n]*'|#.*/g;
const INTEGER = /(?<![\w.-])(?:0x[\da-f_]+|0o[0-7_]+|0b[01_]+|\d[\d_]*)(?![\w.])/gi;

/** The parser wraps integers of more than 64 bits, and those beyond 2^53 are none that JavaScript counts with. */
function refuseLargeIntegers(file: string, source: string): void {
  // Lines stay where they are.
  const numbers = source.replace(NO_NUMBERS, (text) => `""${'\n'.repeat(text.split('\n').length - 1)}`);
  for (const [i, line] of numbers.split('\n').entries()) {
    const large = line.match(INTEGER)?.find((text) => BigInt(text.replaceAll('_', '')) > Number.MAX_SAFE_INTEGER);
    if (large !== undefined) throw configError(file, `the number ${large.slice(0, 60)} in line ${i + 1} is too large`);
  }
}

function describe(issue: z.core.$ZodIssue, data: unknown, source: string): string {
  if (issue.code === 'unrecognized_keys') {
    return `unknown key ${issue.keys.map((key) => unknownKey([...issue.path, key], source)).join(', ')}`;
  }
  const found = issue.path.reduce<unknown>((value, key) => (value as Record<PropertyKey, unknown>)?.[key], data);
  const actual =
    found === undefined ? 'nothing' : JSON.stringify(found, (_, v) => (typeof v === 'bigint' ? `${v}` : v));
  return `key "${keyOf(issue.path)}"${inLine(source, issue.path)}: expected ${issue.message}, found ${actual.slice(0, 60)}`;
}

/** ` in line 7`; empty where the key is not written. */
function inLine(source: string, path: readonly PropertyKey[]): string {
  const line = lineOfKey(source, path);
  return line === undefined ? '' : ` in line ${line}`;
}

function unknownKey(path: readonly PropertyKey[], source: string): string {
  const table = path.slice(0, -1);
  const inTable = table.length === 0 ? CONFIG_KEYS.top : CONFIG_KEYS.override;
  const meant = closest(String(path.at(-1)), table.at(-1) === 'options' ? CONFIG_KEYS.options : inTable);
  return `"${keyOf(path)}"${inLine(source, path)}${meant === undefined ? '' : ` (did you mean "${meant}"?)`}`;
}

/** `override[1].options.dtb` */
const keyOf = (path: readonly PropertyKey[]): string =>
  path.map((part, i) => (typeof part === 'number' ? `[${part}]` : `${i > 0 ? '.' : ''}${String(part)}`)).join('');

const configError = (file: string, message: string, ...more: string[]) =>
  new Elf2dmpError({
    code: 'batch-config',
    kind: 'usage',
    message,
    file,
    attempts: more,
    hint: 'docs/batch.md lists all keys and their types',
  });
