import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, expectTypeOf, it } from 'vitest';
import { parseArguments } from '../../src/cli/arguments.ts';
import type { Job } from '../../src/cli/job.ts';
import * as library from '../../src/index.ts';
import { CALLS, type CallKeys } from '../../src/options/check.ts';
import { isInputBytes } from '../../src/options/opened.ts';
import type { Call, OptionRow } from '../../src/options/row.ts';
import { ROWS } from '../../src/options/table.ts';
import { type CallOptions, libraryName } from '../../src/options/values.ts';
import { writeElf } from '../guest/elf.ts';
import { buildGuest } from '../guest/guest.ts';
import fc from '../support/properties.ts';

let dir: string;
let image: library.MemoryImage;
const input = () => join(dir, 'vm.elf');
const output = () => join(dir, 'vm.dmp');

beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), 'elf2dmp-options-'));
  writeFileSync(input(), writeElf(buildGuest()));
  image = await library.open(input());
});
afterAll(() => {
  image.close();
  rmSync(dir, { recursive: true, force: true });
});

/** As they are for callers without types, who may pass anything. */
const CALLED = library as unknown as Record<Call, (options: unknown) => Promise<unknown>>;

/** Calls the function with all that it needs, and these. */
const call = (name: Call, options: object): Promise<unknown> => {
  const paths = { input: input(), output: output(), file: input(), dump: input(), out: join(dir, 'out') };
  const needed = Object.fromEntries(CALLS[name].paths.map((path) => [path, paths[path as keyof typeof paths]]));
  if (name === 'open') return library.open(input(), options);
  if (name === 'openGuest') return library.openGuest(input(), options);
  if (name === 'locate') return library.locate(image, options);
  return CALLED[name]({ ...needed, ...options });
};

const error = (running: Promise<unknown>) =>
  running.then(
    () => expect.unreachable('nothing was refused'),
    (thrown: unknown) => {
      expect(thrown).toBeInstanceOf(library.Elf2dmpError);
      return thrown as library.Elf2dmpError;
    },
  );

/** Values of every type; those of the row's own kind are filtered out. */
const ANYTHING = fc.oneof(
  fc.anything({ withBigInt: true, withNullPrototype: true, withTypedArray: true, withDate: true }),
  fc.constantFrom(
    'nonsense',
    '',
    true,
    0,
    -1,
    1.5,
    Number.NaN,
    2 ** 60,
    -1n,
    2n ** 64n,
    null,
    [],
    [{}],
    {},
    'a\0b',
    () => 1,
  ),
);
function fits(row: OptionRow, value: unknown): boolean {
  switch (row.kind) {
    case 'flag':
      return typeof value === 'boolean';
    case 'choice':
      return row.choices.some((choice) => choice === value);
    case 'physical':
    case 'count':
      return typeof value === 'number' && Number.isInteger(value) && value >= 0;
    case 'virtual':
      return typeof value === 'bigint' && value >= 0n && value < 2n ** 64n;
    case 'ranges':
      return Array.isArray(value) && value.some((range) => typeof range?.start === 'number');
    default:
      return typeof value === 'string' && value !== '';
  }
}

/** Of a conversion, in three spellings. */
const CONFLICTS: readonly [object, string[], string][] = [
  [{ compress: 'gzip', verify: true }, ['--compress', '--verify'], 'compress = "gzip"\nverify = true'],
  [{ compress: 'zstd', reflink: 'auto' }, ['--compress=zstd', '--reflink=auto'], 'compress = "zstd"\nreflink = "auto"'],
  [
    { compress: 'gzip', sparse: 'always' },
    ['--sparse', 'always', '--compress'],
    'sparse = "always"\ncompress = "gzip"',
  ],
  [
    { dropZeroPages: true, type: 'full' },
    ['--drop-zero-pages', '--type=full'],
    'drop-zero-pages = true\ntype = "full"',
  ],
];

const NAMES = Object.keys(CALLS) as Call[];

describe.each(NAMES)('%s()', (name) => {
  const rows = ROWS.filter(([, row]) => row.calls.includes(name)).map(
    ([option, row]) => [libraryName(option, row), row] as const,
  );

  it('refuses every wrong value of every option, and writes nothing', async () => {
    const before = readdirSync(dir);
    for (const [option, row] of rows) {
      await fc.assert(
        fc.asyncProperty(
          // The bytes of an input are one too.
          ANYTHING.filter((value) => value !== undefined && !fits(row, value) && !isInputBytes(value)),
          async (value) => {
            expect(await error(call(name, { [option]: value }))).toMatchObject({ code: 'option-value', kind: 'usage' });
          },
        ),
        { numRuns: 60 },
      );
    }
    expect(readdirSync(dir)).toEqual(before);
  });

  it('refuses names that it does not know, with the one that was meant', async () => {
    expect(await error(call(name, { nonsense: undefined }))).toMatchObject({ code: 'option-unknown', kind: 'usage' });
    for (const [option] of rows) {
      const wrong = `${option.slice(0, 1)}x${option.slice(1)}`;
      const { code, details } = await error(call(name, { [wrong]: 1 }));
      expect([code, details.hint]).toEqual(['option-unknown', `did you mean ${option}?`]);
    }
  });

  it('refuses callbacks that are none, missing paths, and options that are no object', async () => {
    for (const other of [...CALLS[name].callbacks, 'signal']) {
      expect(await error(call(name, { [other]: 'x' }))).toMatchObject({ code: 'option-value', kind: 'usage' });
    }
    for (const path of CALLS[name].paths) {
      expect(await error(call(name, { [path]: undefined }))).toMatchObject({ code: 'option-missing', kind: 'usage' });
      for (const wrong of [1, '', null, {}]) {
        expect(await error(call(name, { [path]: wrong }))).toMatchObject({ code: 'option-value', kind: 'usage' });
      }
    }
    if (name === 'open' || name === 'openGuest' || name === 'locate') return;
    for (const nothing of [undefined, null, 'vm.elf', 1]) {
      expect(await error(CALLED[name](nothing))).toMatchObject({ code: 'option-value', kind: 'usage' });
    }
  });
});

describe('the library', () => {
  it.each([
    { type: 'nonsense' },
    { sparse: 'nonsense' },
    { ram: 'nonsense' },
    { reflink: true },
    { context: 'nonsense' },
    { kernelBase: 4096 },
    { crashDumps: true },
    { output: undefined },
    { compress: 'gzip', verify: true },
  ])('refuses %j and writes nothing', async (options) => {
    expect(await error(call('convert', options))).toMatchObject({ kind: 'usage' });
    expect(existsSync(output())).toBe(false);
  });

  it("refuses conflicts in the same words as the command line and a batch's configuration", async () => {
    const config = join(dir, 'batch.toml');
    for (const [options, words, toml] of CONFLICTS) {
      const { code, message } = await error(call('convert', options));
      expect(code).toBe('option-conflict');
      const parsed = parseArguments([...words, 'a', 'b']);
      await expect(parsed).rejects.toMatchObject({ code, message });
      writeFileSync(config, `inputs = ["vm.elf"]\nout = "out"\n[options]\n${toml}`);
      const { job } = (await parseArguments(['batch', config])) as { job: Job };
      await expect(job.run(new AbortController().signal)).rejects.toMatchObject({ code, message });
    }
    rmSync(config);
  });

  it('takes undefined and defaults for absent', async () => {
    const absent = { type: undefined, reflink: 'never', sparse: 'auto', compress: undefined, onProgress: undefined };
    await call('convert', { ...absent, force: true });
    expect(existsSync(output())).toBe(true);
    rmSync(output());
  });

  it('takes an opened guest for a path, and nothing else that is an object', async () => {
    const guest = await library.openGuest(input());
    expect(await library.inspect({ input: guest })).toMatchObject({ problem: null });
    expect(await error(call('inspect', { input: { input: 'vm.elf' } }))).toMatchObject({ code: 'option-value' });
    expect(await error(call('convert', { output: guest }))).toMatchObject({ code: 'option-value' });
    expect(await error(call('convertInPlace', { file: guest }))).toMatchObject({ code: 'option-value' });
    guest.close();
  });

  it('throws Elf2dmpError for subjects that are none, and for any reason of a signal', async () => {
    expect(await error(library.open(undefined as never))).toMatchObject({ code: 'option-value' });
    expect(await error(library.openGuest(undefined as never))).toMatchObject({ code: 'option-value' });
    expect(await error(library.locate({} as never))).toMatchObject({ code: 'option-value' });
    for (const reason of [
      undefined,
      'stop',
      new Error('stop'),
      new library.Elf2dmpError({ code: 'aborted', kind: 'aborted', message: 'x' }),
    ]) {
      const { kind } = await error(call('convert', { signal: AbortSignal.abort(reason) }));
      expect(kind).toBe('aborted');
    }
    const onProgress = () => {
      throw new TypeError('theirs');
    };
    expect(await error(call('convert', { onProgress }))).toMatchObject({
      code: 'internal',
      details: { cause: new TypeError('theirs') },
    });
    expect(existsSync(output())).toBe(false);
  });

  it('has no option that the table lacks', () => {
    type Unknown<Name extends Call, Options> = Exclude<keyof Options, CallKeys<Name> | keyof CallOptions<Name>>;
    expectTypeOf<Unknown<'convert', library.ConvertOptions>>().toBeNever();
    expectTypeOf<Unknown<'convertInPlace', library.InPlaceOptions>>().toBeNever();
    expectTypeOf<Unknown<'inspect', library.InspectOptions>>().toBeNever();
    expectTypeOf<Unknown<'stacks', library.StackOptions>>().toBeNever();
    expectTypeOf<Unknown<'verify', library.VerifyOptions>>().toBeNever();
    expectTypeOf<Unknown<'openGuest', library.GuestOptions>>().toBeNever();
    expectTypeOf<Unknown<'open', library.OpenOptions>>().toBeNever();
    expectTypeOf<Unknown<'locate', library.LocateOptions>>().toBeNever();
  });
});
