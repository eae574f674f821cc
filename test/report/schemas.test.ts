import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { convert } from '../../src/operations/convert.ts';
import { inspect } from '../../src/operations/inspect.ts';
import { stacks } from '../../src/operations/stacks.ts';
import { verify } from '../../src/operations/verify.ts';
import { SCHEMA } from '../../src/report/schemas.ts';
import { writeElf } from '../guest/elf.ts';
import { buildGuest } from '../guest/guest.ts';
import { CASES } from '../matrix/cases.ts';
import { DOCUMENTS, held } from '../support/schemas.ts';

const BIN = fileURLToPath(new URL('../../bin/elf2dmp.js', import.meta.url));
let dir: string;
let input: string;
let output: string;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'elf2dmp-schemas-'));
  input = join(dir, 'vm.elf');
  output = join(dir, 'vm.dmp');
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const STATES = CASES.filter(({ name }) =>
  [
    'live, encoded KDBG, 2 processors',
    'crashed, stop 0xD1, captured frame',
    'crashed, flag in a version 2 note',
    'CPUs that were never started',
    'a CPU outside Windows (hypervisor)',
    'a CPU note that is too short',
    '5-level paging',
    '60 runs: bitmap dump',
    'a processor in 32-bit code (WoW64)',
    'NT_PRSTATUS notes only: no control registers',
    'no CPU notes: self-map',
    'damage: all IDTs overwritten',
    "damage: the kernel's header page overwritten",
    'damage: a module entry overwritten',
    'a run that ends within a page',
  ].includes(name),
);

describe('one description', () => {
  it.each(STATES.map((c) => [c.name, c] as const))('serves every report: %s', async (_, c) => {
    const guest = buildGuest(c.guest);
    c.change?.(guest);
    writeFileSync(input, writeElf(guest, c.elf));
    const patches = join(dir, 'patches.json');
    const converted = held('convert', await convert({ input, output, force: true, verify: true, hash: true, patches }));
    held('patches', JSON.parse(readFileSync(patches, 'utf8')));
    const stack = held('stack', await stacks({ input }));
    const info = held('info', await inspect({ input }));
    expect(stack.windows).toEqual(converted.windows);
    expect(info.windows).toEqual({ ...info.windows, ...converted.windows });
    expect([stack.input, info.input]).toEqual([converted.input, converted.input]);

    const verified = held('verify', await verify({ dump: output, against: input, hash: true }));
    const back = held('info', await inspect({ input: output }));
    expect(verified.input).toEqual(back.input);
    expect(back.windows).toEqual({ ...back.windows, ...verified.windows });
    expect(verified.against?.input).toEqual(converted.input);
    expect(verified.sha256).toEqual(converted.sha256);
    const { findings, ...shown } = converted.verification!;
    expect(verified).toMatchObject(shown);
    // What the dump says of Windows is what the input says, but for what a conversion is there to change.
    const { pagingMode, directoryTableBase: root, headerDirectoryTableBase: inHeader } = converted.windows;
    // Debuggers walk four levels. What the CPUs walk is in the dump too.
    expect([back.windows?.directoryTableBase, back.windows?.headerDirectoryTableBase]).toEqual(
      pagingMode === '5-level' ? [root, inHeader] : [inHeader ?? root, null],
    );
    expect(back.windows?.kernel).toEqual(converted.windows.kernel);
  });
});

describe('the schemas', () => {
  it('are one for each document, with its version', () => {
    expect(Object.keys(SCHEMA).sort()).toEqual([...DOCUMENTS].sort());
    for (const [name, version] of Object.entries(SCHEMA)) expect(version).toBe(`elf2dmp-${name}-1`);
  });

  it('hold failures of every command', () => {
    for (const args of [
      [join(dir, 'none'), output],
      ['info', join(dir, 'none')],
      ['stack', join(dir, 'none')],
      ['verify', join(dir, 'none')],
      ['--undo', join(dir, 'none')],
      ['--type', 'nonsense', 'a', 'b'],
    ]) {
      const { stdout, status } = spawnSync(process.execPath, [BIN, ...args, '--json'], { encoding: 'utf8' });
      const failure = held('error', JSON.parse(stdout));
      expect([failure.outcome, failure.exitCode]).toEqual(['failed', status]);
    }
  });

  it('allow no unknown key, and need every key', async () => {
    const crash = { code: 0xd1, parameters: [0x10n, 2n, 0n, 1n] as const, processor: 1 };
    writeFileSync(input, writeElf(buildGuest({ crash }), { withoutNote: [0] }));
    await convert({ input, output, force: true });
    const documents = {
      convert: await convert({ input, output, force: true, verify: true, hash: true, type: 'kernel' }),
      info: await inspect({ input: output }),
      stack: await stacks({ input }),
      verify: await verify({ dump: output, against: input, hash: true }),
    };
    for (const [name, report] of Object.entries(documents)) {
      const data = JSON.parse(JSON.stringify(held(name, report)));
      for (const [path, object] of objectsIn(data)) {
        object['unheardOf'] = 1;
        expect(() => held(name, data), `${name}: unknown key in ${path}`).toThrow();
        delete object['unheardOf'];
        // Kinds of pages that there are none of are left out, and so are places that do not apply.
        if (/(kept|leftOut|where)$/.test(path)) continue;
        for (const [key, value] of Object.entries(object)) {
          if (path.startsWith('diagnostics') && key === 'where') continue;
          delete object[key];
          expect(() => held(name, data), `${name}: ${path} without ${key}`).toThrow();
          object[key] = value;
        }
      }
    }
  });
});

/** Objects in a report, each with its path; the first of a list stands for all. */
function* objectsIn(value: unknown, path = ''): Generator<[path: string, object: Record<string, unknown>]> {
  if (Array.isArray(value)) {
    if (value.length > 0) yield* objectsIn(value[0], path);
  } else if (typeof value === 'object' && value !== null) {
    // Places in diagnostics have names of their own.
    if (!/^diagnostics.*where$/.test(path)) yield [path, value as Record<string, unknown>];
    for (const [key, inner] of Object.entries(value)) yield* objectsIn(inner, path === '' ? key : `${path}.${key}`);
  }
}
