import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type BatchEvent, type BatchOptions, batch, Elf2dmpError, inspect } from '../../src/index.ts';
import { kinds } from '../support/batches.ts';

const { sound, broken } = kinds();
const elf = sound.find(({ name }) => name === 'live.elf')!.contents;
const crashed = sound.find(({ name }) => name === 'crashed.elf')!.contents;
const text = broken.find(({ name }) => name === 'text.elf')!.contents;

let dir: string;
let archive: string;
let out: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'elf2dmp-library-batch-'));
  archive = join(dir, 'archive');
  out = join(dir, 'out');
  mkdirSync(join(archive, 'b'), { recursive: true });
  writeFileSync(join(archive, 'a.elf'), elf);
  writeFileSync(join(archive, 'b', 'crashed.elf'), crashed);
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

const run = (more: Partial<BatchOptions> = {}) => batch({ inputs: [archive], out, jobs: 1, ...more });

describe('batch()', () => {
  it('converts what is left to do, with a result for each job', async () => {
    writeFileSync(join(archive, 'text.elf'), text);
    writeFileSync(join(archive, 'README'), 'About these dumps\n');
    const events: BatchEvent[] = [];
    const inputs = [archive, join(archive, 'text.elf')];
    const first = await run({ inputs, hash: true, onEvent: (event) => events.push(event) });
    expect(first.results.map(({ job, status, record }) => [job.relative, status, record?.outcome])).toEqual([
      ['a.elf', 'ran', 'good'],
      ['b/crashed.elf', 'ran', 'good'],
      ['text.elf', 'ran', 'failed'],
    ]);
    expect(first.results[2]?.record?.error).toMatchObject({ kind: 'unsupported' });
    expect(first.results[0]?.record?.sha256?.dump).toMatch(/^[0-9a-f]{64}$/);
    expect(first.crashes.map(({ results }) => results.map(({ job }) => job.relative))).toEqual([['b/crashed.elf']]);
    expect(first.leftOut).toEqual([join(archive, 'README')]);
    expect(new Set(events.map(({ type }) => type))).toEqual(new Set(['started', 'progress', 'ended']));
    expect(readdirSync(out).sort()).toEqual(['a.dmp', 'a.dmp.json', 'b', 'text.dmp.json']);

    const second = await run({ inputs, hash: true });
    expect(second.results.map(({ status }) => status)).toEqual(['skipped', 'skipped', 'skipped']);
    expect(second.results.map(({ record }) => record)).toEqual(first.results.map(({ record }) => record));
  });

  it("takes conversions' options as the library has them, for some inputs others", async () => {
    const { results, unusedOverrides } = await run({
      exclude: ['b/**'],
      name: '{name}.dmp',
      options: { type: 'bitmap', dtb: 1, patch: true },
      overrides: [{ match: 'a.*', options: { type: 'full', dtb: undefined, ram: 'all' } }, { match: 'z' }],
    });
    expect(unusedOverrides).toEqual(['z']);
    // The wrong root of a page table is as hexadecimal as it has to be.
    expect(results.map(({ job, record }) => [job.options, record?.outcome])).toEqual([
      [{ type: 'full', dtb: '0x1', patch: true, ram: 'all' }, 'failed'],
    ]);
    const typed = await run({ name: '{name}.dmp', exclude: ['b/**'], options: { type: 'bitmap' } });
    expect(typed.results[0]?.record?.outcome).toBe('good');
    expect((await inspect({ input: join(out, 'a.elf.dmp') })).input.format).toBe('windows-bitmap-dump');
  });

  it('does its part of a batch', async () => {
    const parts = await Promise.all([0, 1].map((index) => run({ shard: { index, count: 2 } })));
    const names = parts.flatMap(({ results }) => results.map(({ job }) => job.relative));
    expect(names.sort()).toEqual(['a.elf', 'b/crashed.elf']);
  });

  it.each(['started', 'progress'] as const)(
    'stops at its signal, which comes with "%s", and leaves nothing',
    async (when) => {
      const stop = new AbortController();
      const onEvent = ({ type }: BatchEvent) => type === when && stop.abort('enough');
      const error: unknown = await run({ signal: stop.signal, onEvent }).catch((thrown: unknown) => thrown);
      expect(error).toBeInstanceOf(Elf2dmpError);
      expect(error).toMatchObject({ code: 'aborted', kind: 'aborted' });
      expect(readdirSync(out)).toEqual([]);
      expect((await run()).results.map(({ record }) => record?.outcome)).toEqual(['good', 'good']);
    },
  );

  it('ends with what its callback throws, when all processes have ended', async () => {
    const onEvent = ({ type }: BatchEvent) => {
      if (type === 'progress') throw new Error('mine');
    };
    await expect(run({ onEvent })).rejects.toMatchObject({
      code: 'internal',
      message: expect.stringContaining('mine'),
    });
    expect(readdirSync(out)).toEqual([]);
  });

  it.each([
    [{ inputs: undefined }, 'option-missing'],
    [{ inputs: [] }, 'option-value'],
    [{ inputs: 'archive' }, 'option-value'],
    [{ inputs: [1] }, 'option-value'],
    [{ exclude: [''] }, 'option-value'],
    [{ command: [] }, 'option-value'],
    [{ shard: { index: 2, count: 2 } }, 'option-value'],
    [{ shard: 'first' }, 'option-value'],
    [{ overrides: [{}] }, 'option-value'],
    [{ overrides: [{ match: 'a', nonsense: 1 }] }, 'option-value'],
    [{ overrides: [{ match: 'a', options: { nonsense: 1 } }] }, 'option-unknown'],
    [{ options: 1 }, 'option-value'],
    [{ options: { type: 'nonsense' } }, 'option-value'],
    [{ options: { output: 'x' } }, 'option-unknown'],
    [{ options: { compress: 'gzip', verify: true } }, 'option-conflict'],
    [{ name: '{nonsense}' }, 'batch-template'],
    [{ inputs: ['nothing/*.elf'] }, 'batch-no-input'],
  ])('refuses %j before anything is written', async (wrong, code) => {
    await expect(run(wrong as never)).rejects.toMatchObject({ code, kind: 'usage' });
    expect(existsSync(out)).toBe(false);
  });
});
