// Guests that hang, run and dumped by a real QEMU: what is said of their processors, against the guest and against what
// the debugger shows with the same PDB.
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { convert } from '../../src/operations/convert.ts';
import { inspect } from '../../src/operations/inspect.ts';
import { askDebugger, attempt, debuggerAvailable, text } from '../debugger/debugger.ts';
import { compilerAvailable } from '../guest/compiled.ts';
import { buildGuest, type GuestOptions, watchdogOf } from '../guest/guest.ts';
import { KERNEL_GUID, KERNEL_TYPES } from '../support/kernel-pdb.ts';
import { dumpWithQemu, qemuAvailable } from '../support/qemu.ts';

const GUESTS: Readonly<Record<string, GuestOptions>> = {
  'one stuck in a DPC, one in a user loop': { doing: { 1: 'dpc' }, user: [3], order: [3, 1, 0, 2], masked: [2] },
  'one waits for a spin lock that another owns': {
    doing: { 0: 'spin lock', 3: 'driver' },
    lock: { number: 9, owner: 3, waiter: 0 },
    order: [2, 0, 3, 1],
    masked: [3],
    kernelPages: '2m',
  },
  'all idle': { doing: {}, kernelRootAt: 0x9000 },
};

/** A PDB by a real compiler and linker with the kernel's types, for the guest's kernel. */
function compileTypes(dir: string, path: string): void {
  const types: Record<number, string> = { 32: 'unsigned char', 117: 'unsigned', 35: 'unsigned long long' };
  const structures = KERNEL_TYPES.map(({ name, size, members }) => {
    let at = 0;
    const lines = members.map(([member, offset, type]) => {
      const pad = offset > at ? `char pad${at}[${offset - at}]; ` : '';
      // Those that hold others.
      const other = { DpcData: 'struct _KDPC_DATA', Cid: 'struct _CLIENT_ID' }[member];
      const bytes = { DpcData: 0x50, Cid: 0x10 }[member] ?? { 32: 1, 117: 4 }[type] ?? 8;
      at = offset + bytes;
      if (other) return `${pad}${other} ${member}${member === 'DpcData' ? '[2]' : ''};`;
      return `${pad}${types[type] ?? 'void *'} ${member};`;
    });
    return `struct ${name} {\n${lines.join('\n')}\n${size > at ? `char end[${size - at}];` : ''}\n};`;
  });
  // What is a part of another comes first.
  const rank = (text: string) => (/struct _(KDPC_DATA|CLIENT_ID) \{/.test(text) ? 0 : 1);
  const variables = KERNEL_TYPES.map(({ name }) => `struct ${name} variable${name};`);
  const source = ['#pragma pack(1)', ...structures.sort((a, b) => rank(a) - rank(b)), ...variables].join('\n');
  const [c, object] = [join(dir, 'types.c'), join(dir, 'types.obj')];
  writeFileSync(c, source);
  const target = ['-target', 'x86_64-pc-windows-msvc', '-ffreestanding', '-g', '-gcodeview'];
  execFileSync('clang', [...target, '-c', c, '-o', object]);
  execFileSync('lld-link', [
    ...['/nologo', '/dll', '/noentry', '/nodefaultlib', '/debug', '/pdbaltpath:types.pdb'],
    ...[`/out:${join(dir, 'types.dll')}`, `/pdb:${path}`, object],
  ]);
  // The guest's kernel names another GUID than the linker chose: in the image's debug directory is what it chose.
  const image = readFileSync(join(dir, 'types.dll'));
  const chosen = image.subarray(image.indexOf('RSDS') + 4, image.indexOf('RSDS') + 20);
  const guid = Buffer.from(KERNEL_GUID, 'hex');
  for (const [from, to] of [
    [0, 4],
    [4, 6],
    [6, 8],
  ] as const)
    guid.subarray(from, to).reverse();
  const pdb = readFileSync(path);
  const at = pdb.indexOf(chosen);
  expect(at).toBeGreaterThan(0);
  guid.copy(pdb, at);
  writeFileSync(path, pdb);
}

describe.skipIf(!compilerAvailable() || !qemuAvailable() || !debuggerAvailable())('hangs and the real debugger', () => {
  let dir: string;
  let symbols: string;
  beforeAll(() => {
    dir = mkdtempSync(join(tmpdir(), 'elf2dmp-hangs-'));
    symbols = join(dir, 'symbols');
    mkdirSync(symbols);
    compileTypes(dir, join(symbols, 'ntkrnlmp.pdb'));
  });
  afterAll(() => rmSync(dir, { recursive: true, force: true }));

  it.each(Object.entries(GUESTS))('say the same of a guest that QEMU dumped: %s', async (_, options) => {
    const [input, output, stream] = ['vm.elf', 'vm.dmp', 'vm.save'].map((name) => join(dir, name)) as [
      string,
      string,
      string,
    ];
    const guest = buildGuest({ processors: 4, ...options });
    await dumpWithQemu(guest, input, { also: [{ path: stream, raw: 'migrate' }] });
    await convert({ input, output, force: true });
    const { activity } = (await inspect({ input: output, symbols })).windows!;
    expect(activity).toEqual((await inspect({ input, symbols })).windows!.activity);
    expect(activity!.types.value).toBe(true);
    const processors = activity!.processors;

    // What the guest was built to do.
    for (const p of processors) {
      const task = options.doing?.[p.processor];
      const user = options.user?.includes(p.processor) ?? false;
      const state =
        task === undefined
          ? 'idle'
          : { dpc: 'dpc', 'dpc in idle': 'dpc', 'spin lock': 'thread', driver: 'thread' }[task];
      expect([p.processor, p.state.value]).toEqual([p.processor, user ? 'user' : state]);
      expect(p.interrupts.value).toBe(!options.masked?.includes(p.processor));
      const { lock } = options;
      const uses = (p.spinLocks.value ?? []).map(({ number, use }) => `${use} ${number}`);
      const expected = {
        [lock?.owner ?? -1]: [`owns ${lock?.number}`],
        [lock?.waiter ?? -1]: [`waits ${lock?.number}`],
      };
      expect(uses).toEqual(expected[p.processor] ?? []);
    }

    // A migration stream has CR8, which the guest's firmware set.
    const streamed = (await inspect({ input: stream, symbols })).windows!.activity!;
    expect(streamed.processors.map((p) => p.irql.value?.level)).toEqual(
      guest.truth.processors.map(({ cpu }) => 3 + cpu),
    );
    const withoutIrql = (all: typeof processors) => all.map(({ irql: _irql, reading: _reading, ...rest }) => rest);
    expect(withoutIrql(streamed.processors)).toEqual(withoutIrql(processors));

    const prcbs = guest.truth.processors.map(({ prcb }) => `0x${prcb.toString(16)}`);
    const members =
      'CurrentThread IdleThread DpcRoutineActive DpcStack DpcWatchdogCount DpcWatchdogPeriod DpcTimeCount';
    const seen = (await askDebugger(output, {
      path: text(`.sympath Z:${symbols.replaceAll('/', '\\')}`),
      nt: attempt('.reload /f nt'),
      ...Object.fromEntries(
        processors.flatMap(({ processor: n, threadId, thread }) => [
          [`k${n}`, text('k', n)],
          [`efl${n}`, text('r efl', n)],
          [`dt${n}`, text(`dt nt!_KPRCB ${prcbs[n]} ${members}`, n)],
          [`cid${n}`, text(`dt nt!_ETHREAD ${thread.value!.address} Cid.UniqueThread`, n)],
          [`tid${n}`, text(`.printf "%d", ${threadId.value ?? -1}`)],
        ]),
      ),
    })) as unknown as Record<string, string>;

    for (const p of processors) {
      const n = p.processor;
      const member = (name: string) =>
        new RegExp(`\\b${name} +: (?:0x)?([0-9a-f\`]+)`).exec(seen[`dt${n}`]!)?.[1]?.replace('`', '');
      expect(`0x${member('CurrentThread')}`, seen[`dt${n}`]).toBe(p.thread.value!.address);
      expect(member('CurrentThread') === member('IdleThread')).toBe(p.thread.value!.idle);
      expect(member('DpcRoutineActive')).toBe(p.dpcActive.value ? '1' : '0');
      const { total, totalLimit, single } = p.dpcWatchdog.value!;
      const counters = ['DpcWatchdogCount', 'DpcWatchdogPeriod', 'DpcTimeCount'].map((name) =>
        Number(`0x${member(name)}`),
      );
      expect(counters).toEqual([total, totalLimit, single]);
      if (p.state.value === 'dpc') expect([total, single]).toEqual(Object.values(watchdogOf(n)));
      const efl = Number(`0x${/efl=([0-9a-f]+)/.exec(seen[`efl${n}`]!)![1]}`);
      expect((efl & 0x200) !== 0).toBe(p.interrupts.value);
      const theirs = /UniqueThread +: (?:0x)?([0-9a-f`]+|\(null\))/.exec(seen[`cid${n}`]!)?.[1]?.replace('`', '');
      expect(theirs === '(null)' ? 0 : Number(`0x${theirs}`), seen[`cid${n}`]).toBe(p.threadId.value);
      // The innermost frame that is not the kernel's.
      const line = seen[`k${n}`]!.split('\n')
        .slice(1)
        .find((l) => / demo(?:!|\+)/.test(l));
      const site = / demo!(\w+)\+0x([0-9a-f]+)/.exec(line ?? '');
      expect(site ? `${site[1]}+0x${site[2]}` : null, seen[`k${n}`]).toBe(
        p.driver.value ? `${p.driver.value.nearestExport!.name}+${p.driver.value.nearestExport!.offset}` : null,
      );
    }
  });
});
