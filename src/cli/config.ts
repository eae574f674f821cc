/** A batch's configuration file (TOML): what it may say, and what is wrong with what it says. */
import { readFileSync } from 'node:fs';
import TOML from '@iarna/toml';
import * as z from 'zod';
import {
  COMPRESSIONS,
  CONTEXT_CHOICES,
  DUMP_TYPE_CHOICES,
  FORMAT_CHOICES,
  RAM_CHOICES,
  REFLINK_CHOICES,
  SPARSE_CHOICES,
} from '../choices.ts';
import { Elf2dmpError, ioError } from '../core/errors.ts';

/** What zod says of a value is replaced by what was expected. */
const text = z.string({ error: 'a string' }).min(1, { error: 'a string that is not empty' });
const flag = z.boolean({ error: 'true or false' });
const count = (least: number) => {
  const error = `a whole number from ${least}`;
  return z.int({ error }).min(least, { error }).max(100_000, { error: 'a number up to 100000' });
};
const list = z.array(text, { error: 'an array of strings' });
const choice = <const T extends readonly string[]>(choices: T) =>
  z.enum(choices, { error: `one of ${choices.map((c) => `"${c}"`).join(', ')}` });
/** TOML's integers have 64 bits with a sign: half of all addresses would not fit. */
const ADDRESS = 'a string with a hexadecimal address, as "0x1ad000"';
const address = z.string({ error: ADDRESS }).regex(/^(0x)?[0-9a-f`]{1,20}$/i, { error: ADDRESS });

const options = z.strictObject(
  {
    strict: flag,
    patch: flag,
    type: choice(DUMP_TYPE_CHOICES),
    'drop-zero-pages': flag,
    compress: choice(COMPRESSIONS),
    sparse: choice(SPARSE_CHOICES),
    reflink: choice(REFLINK_CHOICES),
    ram: choice(RAM_CHOICES),
    context: choice(CONTEXT_CHOICES),
    verify: flag,
    format: choice(FORMAT_CHOICES),
    runs: text,
    spool: text,
    dtb: address,
    'kernel-base': address,
  },
  { error: 'a table' },
);

const override = z.strictObject(
  { match: text, name: text.optional(), options: options.partial().optional() },
  { error: 'a table' },
);

const config = z
  .strictObject(
    {
      inputs: list,
      manifest: text,
      exclude: list,
      out: text,
      name: text,
      jobs: count(1),
      'keep-going': flag,
      retries: count(0),
      force: flag,
      hash: flag,
      html: flag,
      report: text,
      junit: text,
      options: options.partial(),
      override: z.array(override, { error: 'an array of tables: [[override]]' }),
    },
    { error: 'a table' },
  )
  .partial();

export type BatchConfig = z.infer<typeof config>;

/** Throws `Elf2dmpError` that names file, key, and what was expected. */
export function readConfig(file: string): BatchConfig {
  let source: string;
  try {
    source = readFileSync(file, 'utf8');
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
  const result = config.safeParse(data);
  if (result.success) return result.data;
  const [first = '', ...more] = result.error.issues.map((issue) => describe(issue, data));
  throw configError(file, first, ...more);
}

function describe(issue: z.core.$ZodIssue, data: unknown): string {
  if (issue.code === 'unrecognized_keys') {
    return `unknown key ${issue.keys.map((key) => `"${keyOf([...issue.path, key])}"`).join(', ')}`;
  }
  const found = issue.path.reduce<unknown>((value, key) => (value as Record<PropertyKey, unknown>)?.[key], data);
  const actual =
    found === undefined ? 'nothing' : JSON.stringify(found, (_, v) => (typeof v === 'bigint' ? `${v}` : v));
  return `key "${keyOf(issue.path)}": expected ${issue.message}, found ${actual.slice(0, 60)}`;
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
    hint: 'docs/batch.md lists the keys and their types',
  });
