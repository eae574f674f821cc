import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { convert } from '../../src/operations/convert.ts';
import { inspect } from '../../src/operations/inspect.ts';
import type { InfoReport } from '../../src/report/input.ts';
import { writeElf } from '../guest/elf.ts';
import { buildGuest, type Guest } from '../guest/guest.ts';
import { CASES, type MatrixCase } from '../matrix/cases.ts';
import { held } from '../support/schemas.ts';

let dir: string;
let input: string;
let output: string;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'elf2dmp-info-'));
  input = join(dir, 'vm.elf');
  output = join(dir, 'out.dmp');
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

/** What `info` says, held against the schema. */
async function infoOf(path: string): Promise<InfoReport> {
  return held('info', await inspect({ input: path }));
}

const addresses = (value: bigint) => `0x${value.toString(16).padStart(16, '0')}`;
const iso = (filetime: bigint) => new Date(Number((filetime - 116_444_736_000_000_000n) / 10_000n)).toISOString();

/** What went into the guest. */
function expected(guest: Guest, { modules, headless }: Pick<MatrixCase, 'modules' | 'headless'> = {}) {
  const { truth, build } = guest;
  return {
    build: build.build,
    buildLab: build.lab,
    productType: 'workstation',
    suites: ['TerminalServer', 'SingleUserTS'],
    systemTime: iso(truth.systemTime),
    uptimeSeconds: Number(truth.upTime / 10_000n) / 1000,
    kernel: { base: addresses(truth.kernelBase), size: truth.kernelSize },
    kdbg: { address: addresses(truth.kdbg), size: truth.kdbgBlock.length },
    modules: truth.modules
      .filter((m) => !modules || modules.includes(m.name))
      .map((m) => ({
        name: m.name,
        base: addresses(m.base),
        size: m.size,
        pdb: headless && m.base === truth.kernelBase ? null : { name: m.pdb, guid: m.guid },
      })),
    unloadedModules: truth.unloaded.map((u) => ({
      name: u.name,
      from: addresses(u.from),
      to: addresses(u.to),
      time: iso(u.time),
    })),
    processes: truth.processes.map((p) => ({
      address: addresses(p.address),
      pid: p.pid,
      parentPid: p.parent,
      name: p.name,
      directoryTableBase: `0x${p.root.toString(16)}`,
      peb: p.peb === 0n ? null : addresses(p.peb),
    })),
    ram: truth.physicalMemory.map((r) => ({
      start: `0x${(r.basePage * 4096).toString(16)}`,
      size: r.pageCount * 4096,
    })),
    bugCheck: truth.bugCheck
      ? {
          code: `0x${truth.bugCheck.code.toString(16)}`,
          parameters: truth.bugCheck.parameters.map((p) => ({ value: addresses(p) })),
        }
      : null,
  };
}

/** Those that can be converted; what QEMU's paging mode and the compressed formats add is the readers'. */
const cases = CASES.filter((c) => !c.trueGuest && !c.paging && !c.format && c.exitCode !== 5).map(
  (c): [string, MatrixCase] => [c.name, c],
);

describe('info', () => {
  it.each(cases)('of the input and of its dump agree with each other and the guest: %s', async (_, c) => {
    const guest = buildGuest(c.guest);
    c.change?.(guest);
    writeFileSync(input, writeElf(guest, c.elf));
    const report = await convert({ input, output, force: true });
    const before = await infoOf(input);
    const after = await infoOf(output);
    expect(before.windows).toMatchObject(expected(guest, c));
    expect(before.windows?.doubts).toEqual([]);
    for (const p of guest.truth.processors) {
      if (c.unknown?.includes(p.number)) {
        expect(before.windows?.processors[p.number]).toMatchObject({
          registers: 'unknown',
          instructionPointer: null,
          mode: null,
        });
        continue;
      }
      const cpu = guest.cpus[p.cpu]!;
      const captured = guest.truth.captured?.processor === p.number ? guest.truth.captured : undefined;
      expect(before.windows?.processors[p.number]).toMatchObject({
        number: p.number,
        kpcr: addresses(p.kpcr),
        mode: { 16: 'kernel', 51: 'user', 35: 'user, 32-bit code' }[cpu.cs],
        instructionPointer: addresses(captured?.rip ?? cpu.regs.rip),
        stackPointer: addresses(captured?.rsp ?? cpu.regs.rsp),
        pageTableRoot: c.elf?.prstatusOnly === null ? null : `0x${(cpu.cr3 & ~0xfffn).toString(16)}`,
      });
    }

    // The dump says the same, but for what conversion is there to change.
    const unify = ({ windows }: InfoReport) => ({
      ...windows!,
      kdbg: { ...windows!.kdbg, encoded: false },
      // The dump has no note that says which CPU crashed.
      bugCheck: windows!.bugCheck && { ...windows!.bugCheck, processorFrom: '' },
      // The header names what debuggers walk: four levels.
      directoryTableBase: windows!.headerDirectoryTableBase ?? windows!.directoryTableBase,
      headerDirectoryTableBase: null,
      // Where a dump lacks registers, it lacks what they show.
      activity: c.unshown ? null : windows!.activity,
      // A dump has what the KPCR says of tables that the input's notes do not have.
      interrupts:
        c.elf?.prstatusOnly === undefined
          ? windows!.interrupts.filter(({ processor }) => !c.unshown?.includes(processor))
          : null,
      pagingMode: c.fiveLevel ? '' : windows!.pagingMode,
      processors: windows!.processors
        .filter((p) => !c.unshown?.includes(p.number))
        .map((p) => ({ ...p, registers: p.registers !== 'unknown', cpu: null, captured: null })),
    });
    expect(unify(after)).toEqual(unify(before));
    expect(after.windows?.kdbg.encoded).toBe(false);
    if (!c.losses?.some((loss) => ['partial-pages', 'extents-too-far'].includes(loss)) && !c.args?.includes('--ram')) {
      expect(after.input.runs).toEqual(before.input.runs);
    }
    expect(after.input.dumpHeader).toMatchObject({
      dumpType: report.dump.type === 'full' ? 1 : 5,
      bugCheck: { code: before.windows?.bugCheck?.code ?? '0x161' },
      comment: expect.stringContaining('Converted by elf2dmp'),
    });
  });

  it('tells the place of RIP by module and nearest export', async () => {
    writeFileSync(input, writeElf(buildGuest({ processors: 1 })));
    const { windows } = await infoOf(input);
    expect(windows?.processors[0]?.at).toEqual({
      module: 'ntoskrnl.exe',
      base: '0xfffff8041a2b7000',
      offset: '0x10485',
      nearestExport: { name: 'PoIdle', offset: '0x5' },
      symbol: null,
    });
  });

  it('tells which gates of the interrupt tables do not lead into the kernel', async () => {
    const guest = buildGuest({ processors: 2 });
    const gates = (windows: InfoReport['windows']) =>
      windows!.interrupts.map(({ processor, base, gates: count, elsewhere }) => [
        processor,
        BigInt(base),
        count,
        elsewhere,
      ]);
    const { processors, kernelBase, kernelSize, modules } = guest.truth;
    writeFileSync(input, writeElf(guest));
    expect(gates((await infoOf(input)).windows)).toEqual(processors.map(({ number, idt }) => [number, idt, 256, []]));

    const lead = (vector: number, handler: bigint) => {
      const at = processors[1]!.idt + BigInt(16 * vector);
      guest.kernel.write(at, Buffer.from([Number(handler & 0xffn), Number((handler >> 8n) & 0xffn)]));
      guest.kernel.write(at + 6n, Buffer.from([Number((handler >> 16n) & 0xffn), Number((handler >> 24n) & 0xffn)]));
      guest.kernel.u32(at + 8n, Number(handler >> 32n));
    };
    const demo = modules.find(({ name }) => name === 'demo.sys')!.base;
    lead(0x2e, demo + 0x10000n);
    lead(0xd1, 0xffffa58f_00001000n);
    lead(0xd2, kernelBase + BigInt(kernelSize) - 1n);
    lead(0xd3, kernelBase + BigInt(kernelSize));
    // Not present.
    guest.kernel.write(processors[1]!.idt + 0xd45n, Buffer.from([0x0e]));
    writeFileSync(input, writeElf(guest));
    const [usual, hooked] = (await infoOf(input)).windows!.interrupts;
    expect(usual!.elsewhere).toEqual([]);
    expect(hooked).toMatchObject({
      gates: 255,
      elsewhere: [
        { vector: 0x2e, place: { in: 'module', module: 'demo.sys', offset: '0x10000' } },
        { vector: 0xd1, handler: '0xffffa58f00001000', place: null },
        { vector: 0xd3, place: null },
      ],
    });
  });

  it('gives versions and symbol paths of modules', async () => {
    writeFileSync(input, writeElf(buildGuest()));
    const { windows } = await infoOf(input);
    expect(windows?.modules.map((m) => [m.fileVersion, m.productVersion, m.timeDateStamp, m.pdb?.symbolPath])).toEqual([
      ['10.0.19041.1', '10.0.19041.7', '0x5e0f1a2b', 'ntkrnlmp.pdb/D4C3B2A1F6E51807293A4B5C6D7E8F901/ntkrnlmp.pdb'],
      [null, null, '0x5e0f1a2c', 'hal.pdb/D4C30707F6E51807293A4B5C6D7E8F902/hal.pdb'],
      ['1.2.65535.4', '1.2.0.0', '0x5e0f1a2c', 'demo.pdb/D4C30808F6E51807293A4B5C6D7E8F902/demo.pdb'],
    ]);
    expect(windows?.name).toBe('Windows 10 2004');
  });

  it('names a bug check and what its parameters mean', async () => {
    const crash = { code: 0xd1, parameters: [0x10n, 2n, 0n, 1n] as const, processor: 0 };
    writeFileSync(input, writeElf(buildGuest({ crash })));
    const { windows } = await infoOf(input);
    expect(windows?.bugCheck).toMatchObject({ name: 'DRIVER_IRQL_NOT_LESS_OR_EQUAL', processor: 0 });
    expect(windows?.bugCheck?.parameters[1]).toEqual({
      value: '0x0000000000000002',
      meaning: 'IRQL at that time',
      decoded: 'DISPATCH_LEVEL',
      place: null,
    });
  });

  it('tries a hostile process list on a few places only', async () => {
    const guest = buildGuest();
    const { kernel, truth } = guest;
    // Every word could be a root and a process's header, and names are everywhere.
    const system = truth.processes[0]!.address;
    for (let at = -0x400n; at < 0x1000n; at += 8n) {
      if (at === BigInt(guest.build.eprocess.links) || at === BigInt(guest.build.eprocess.links) + 8n) continue;
      if (at >= 0n) kernel.u64(system + at, BigInt(truth.root) | 3n);
    }
    for (let at = 0x600n; at < 0x900n; at += 8n) kernel.write(system + at, Buffer.from('System\0\0', 'latin1'));
    for (const p of truth.processors) kernel.u64(p.prcb + 8n, 0n);
    writeFileSync(input, writeElf(guest));
    const { windows } = await infoOf(input);
    expect(windows?.doubts).toEqual([
      expect.stringContaining('too many offsets'),
      expect.stringContaining('no process IDs'),
      expect.stringContaining('too many places hold "System"'),
    ]);
    for (const p of windows?.processes ?? []) expect(p).toMatchObject({ address: null, pid: null, name: null });
  });

  it('says what it could not determine rather than guess', async () => {
    const changes: [doubt: RegExp, undetermined: string, change: (guest: Guest) => void][] = [
      // Two places where names could be.
      [
        /2 places hold "System"/,
        'name',
        ({ truth, kernel, build }) => {
          for (const p of truth.processes) {
            kernel.write(p.address + BigInt(build.eprocess.name) + 0x80n, Buffer.from('System\0', 'latin1'));
          }
        },
      ],
      [
        /no process IDs/,
        'pid',
        ({ truth, kernel, build }) => {
          for (const p of truth.processes) kernel.u64(p.address + BigInt(build.eprocess.pid), 4n);
        },
      ],
      [
        /no offset of the links in EPROCESS fits/,
        'address',
        ({ truth, kernel }) => {
          for (const p of truth.processes.slice(1)) kernel.u8(p.address, 7);
        },
      ],
    ];
    for (const [doubt, undetermined, change] of changes) {
      const guest = buildGuest();
      change(guest);
      writeFileSync(input, writeElf(guest));
      const { windows } = await infoOf(input);
      expect(windows?.doubts).toEqual([expect.stringMatching(doubt)]);
      expect(windows?.processes).toHaveLength(3);
      for (const p of windows?.processes ?? []) expect(p).toMatchObject({ [undetermined]: null });
    }
  });

  it('infers the layout of EPROCESS where all CPUs idle, too', async () => {
    const guest = buildGuest();
    // The idle process is in no list.
    for (const p of guest.truth.processors) {
      const thread = guest.kernel.read(p.prcb + 8n, 8).readBigUInt64LE();
      guest.kernel.u64(thread + 0xb8n, guest.truth.kernelBase + 0x3b000n);
    }
    writeFileSync(input, writeElf(guest));
    const { windows } = await infoOf(input);
    expect(windows?.processes).toMatchObject(expected(guest).processes);
  });

  it('ends in time with hostile lists, and keeps what holds up', async () => {
    const guest = buildGuest();
    const { kernel, truth, build } = guest;
    // A process list that runs in a circle without its head; an unloaded driver that ends before it begins.
    const link = (i: number) => truth.processes[i]!.address + BigInt(build.eprocess.links);
    kernel.u64(link(2), link(1));
    const ring = kernel.read(truth.kernelBase + 0x36018n, 8).readBigUInt64LE();
    kernel.u64(ring + 0x18n, 1n);
    // Exports that claim to be many, and a resource directory that leads to itself.
    const exports = truth.modules[2]!.base + 0x1000n;
    kernel.u32(exports + 0x18n, 0xffff_ffff);
    kernel.u32(truth.modules[2]!.base + 0x7400n + 0x1cn, 0x8000_0000);
    writeFileSync(input, writeElf(guest));
    const { windows } = await infoOf(input);
    expect(windows?.doubts).toEqual([
      expect.stringContaining('impossible addresses'),
      expect.stringContaining('the list turns back to'),
    ]);
    expect(windows?.processes.map((p) => p.pid)).toEqual([4, 0x198, 0x1a2c]);
    expect(windows?.modules[2]).toMatchObject({ name: 'demo.sys', fileVersion: null });
  });

  it('tells the header of a dump whose memory it does not read', async () => {
    const crash = { code: 0xd1, parameters: [0x10n, 2n, 0n, 1n] as const, processor: 0 };
    writeFileSync(input, writeElf(buildGuest({ crash })));
    await convert({ input, output, force: true });
    const other = readFileSync(output).subarray(0, 0x10000);
    other.writeUInt32LE(7, 0xf98);
    writeFileSync(output, other);
    expect(await infoOf(output)).toMatchObject({
      windows: null,
      problem: { code: 'dmp-type' },
      input: { machine: 'x64', dumpHeader: { dumpType: 7, build: 19041, bugCheck: { code: '0xd1' } } },
    });
    await expect(inspect({ input: join(dir, 'none') })).rejects.toMatchObject({ code: 'io-enoent' });
  });

  it('says what an input is where no Windows is in it', async () => {
    const guest = buildGuest({ processors: 1 });
    for (const page of guest.memory.pages.values()) page.fill(0);
    writeFileSync(input, writeElf(guest));
    const report = await infoOf(input);
    expect(report).toMatchObject({
      windows: null,
      problem: { code: 'windows-not-found', kind: 'unsupported' },
      input: { format: 'elf-core', cpus: [{ index: 0, mode: 'kernel' }] },
    });
  });
});
