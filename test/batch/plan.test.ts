import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { DEFAULT_NAME, type PlanRequest, planBatch, shardOf } from '../../src/batch/plan.ts';

let base: string;
const FILES = [
  'a/vm.elf',
  'a/b/vm.elf.zst',
  'a/b/c.core',
  'a/old.dmp',
  'a/old.dmp.json',
  'a/.hidden',
  'a/report.jsonl',
  'other.elf',
  'noext',
];

beforeAll(() => {
  base = mkdtempSync(join(tmpdir(), 'elf2dmp-plan-'));
  for (const name of FILES) {
    mkdirSync(dirname(join(base, name)), { recursive: true });
    writeFileSync(join(base, name), `\x7fELF ${name}`);
  }
  symlinkSync('..', join(base, 'a', 'loop'));
});
afterAll(() => rmSync(base, { recursive: true }));

const plan = (request: Partial<PlanRequest>) =>
  planBatch({ paths: [], base, out: 'out', name: DEFAULT_NAME, options: {}, ...request });
const pairs = (request: Partial<PlanRequest>) =>
  plan(request).jobs.map(({ input, output }) => `${input.slice(base.length + 1)} ${output.slice(base.length + 1)}`);

describe('planBatch', () => {
  it('takes all files of a directory but its own and hidden ones, and follows no links', () => {
    expect(pairs({ paths: ['a'] })).toEqual([
      'a/b/c.core out/b/c.dmp',
      'a/b/vm.elf.zst out/b/vm.dmp',
      'a/vm.elf out/vm.dmp',
    ]);
  });

  it('does not take what lies in the output directory', () => {
    expect(pairs({ paths: ['a'], out: 'a/b', name: '{name}' })).toEqual(['a/vm.elf a/b/vm.elf']);
  });

  it('takes a manifest of more inputs than a call has room for arguments', () => {
    const count = 150_000;
    writeFileSync(join(base, 'long.txt'), Array.from({ length: count }, (_, i) => `x/${i}.elf`).join('\n'));
    expect(plan({ manifest: 'long.txt' }).jobs).toHaveLength(count);
    rmSync(join(base, 'long.txt'));
  });

  it('takes globs, files and a manifest, each input once', () => {
    writeFileSync(join(base, 'list.txt'), '# archived\n\na/b/c.core\r\nnoext\n');
    expect(pairs({ paths: ['a/**/*.elf', 'other.elf', 'other.elf'], manifest: 'list.txt' })).toEqual([
      'a/b/c.core out/a/b/c.dmp',
      'noext out/noext.dmp',
      'other.elf out/other.dmp',
      'a/vm.elf out/vm.dmp',
    ]);
  });

  it('names outputs by a template, with overrides', () => {
    const overrides = [
      { match: '**/*.core', name: 'cores/{stem}.dmp', options: { strict: true } },
      { match: 'b/**', options: { dtb: '0x1000' } },
    ];
    const { jobs, unused } = plan({
      paths: ['a'],
      name: '{relative}.dmp',
      options: { type: 'full' },
      exclude: ['*.elf'],
      overrides,
    });
    expect(jobs.map(({ output, options }) => [output.slice(base.length + 5), options])).toEqual([
      ['cores/c.dmp', { type: 'full', strict: true, dtb: '0x1000' }],
      ['b/vm.elf.zst.dmp', { type: 'full', dtb: '0x1000' }],
    ]);
    expect(unused).toEqual([]);
    const none = { match: 'nothing/**', name: '{stem}' };
    expect(plan({ paths: ['a'], overrides: [...overrides, none] }).unused).toEqual([none]);
  });

  it('leaves out files in directories that are no dumps, but none that was named or may have been one', () => {
    const folder = join(base, 'mixed');
    mkdirSync(folder);
    const files = {
      README: Buffer.from('About these dumps\n'),
      'big.log': Buffer.alloc(2 << 20, 'a line\n'),
      empty: Buffer.alloc(0),
      'memory.raw': Buffer.alloc(1 << 20),
      'vm.elf': Buffer.from('\x7fELF'),
    };
    for (const [name, content] of Object.entries(files)) writeFileSync(join(folder, name), content);
    const { jobs, foreign } = plan({ paths: ['mixed'] });
    expect(jobs.map(({ relative }) => relative)).toEqual(['empty', 'memory.raw', 'vm.elf']);
    expect(foreign.map((file) => file.slice(folder.length + 1)).sort()).toEqual(['README', 'big.log']);
    expect(plan({ paths: ['mixed/README'] }).jobs).toHaveLength(1);
    expect(plan({ paths: ['mixed'], options: { format: 'raw' } }).jobs).toHaveLength(5);
    rmSync(folder, { recursive: true });
  });

  it('takes a file that is named, where its directory is named too', () => {
    mkdirSync(join(base, 'named'));
    writeFileSync(join(base, 'named', 'README'), 'About these dumps\n');
    expect(plan({ paths: ['named', 'other.elf'] }).foreign).toEqual([join(base, 'named', 'README')]);
    for (const paths of [
      ['named', 'named/README'],
      ['named/README', 'named'],
    ]) {
      expect(plan({ paths })).toMatchObject({ foreign: [], jobs: [{ relative: 'README' }] });
    }
    rmSync(join(base, 'named'), { recursive: true });
  });

  it('refuses paths that no system has', () => {
    expect(() => plan({ paths: ['a\0b'] })).toThrow('contains a NUL');
    writeFileSync(join(base, 'zeros.txt'), 'a/vm.elf\0other.elf\0');
    expect(() => plan({ manifest: 'zeros.txt' })).toThrow('contains a NUL');
    rmSync(join(base, 'zeros.txt'));
  });

  it('refuses to do nothing', () => {
    mkdirSync(join(base, 'none'));
    writeFileSync(join(base, 'none', 'README'), 'text');
    expect(() => plan({ paths: ['none'] })).toThrow('there is no input in none: 1 file is no dump');
    expect(() => plan({ paths: ['a'], exclude: ['**'] })).toThrow('there is no input in a');
  });

  it.each([
    ['../{stem}.dmp', ['a'], 'not a file below'],
    ['{dir}/../../{stem}.dmp', ['a'], 'not a file below'],
    ['/etc/{stem}', ['a'], 'not a file below'],
    ['{dir}/', ['a'], 'not a file below'],
    ['{dir}', ['other.elf'], 'not a file below'],
    ['{what}.dmp', ['a'], 'contains {what}'],
    ['{constructor}.dmp', ['a'], 'contains {constructor}'],
    ['{__proto__}.dmp', ['a'], 'contains {__proto__}'],
    ['one.dmp', ['a'], 'would both be written to'],
    ['{stem}.dmp', ['a'], 'would both be written to'],
    ['{name}', ['none*.elf'], 'nothing matches'],
  ])('%s for %j: %s', (name, paths, message) => {
    expect(() => plan({ name, paths })).toThrow(message);
  });

  it('refuses an output that is an input, or whose sidecar is another output', () => {
    expect(() => plan({ paths: ['a/*'], out: 'a', name: '{name}' })).toThrow('over the input');
    writeFileSync(join(base, 'x'), '');
    writeFileSync(join(base, 'x.json'), '');
    expect(() => plan({ paths: ['x', 'x.json'], name: '{name}' })).toThrow('would both be written to');
  });
});

describe('shardOf', () => {
  it('gives each job to one shard, and the same one when others are added', () => {
    const job = (relative: string) => ({ input: relative, output: `${relative}.dmp`, relative, options: {} });
    const few = Array.from({ length: 100 }, (_, i) => job(`vm${i}.elf`));
    const many = [...few, ...Array.from({ length: 100 }, (_, i) => job(`new${i}.elf`))];
    const shards = [0, 1, 2].map((index) => shardOf(few, { index, count: 3 }));
    expect(shards.flat().sort((a, b) => few.indexOf(a) - few.indexOf(b))).toEqual(few);
    for (const shard of shards) expect(shard.length).toBeGreaterThan(15);
    expect(shardOf(many, { index: 1, count: 3 }).filter((j) => few.includes(j))).toEqual(shards[1]);
  });
});
