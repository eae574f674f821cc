// Guests of ARM64, from their memory to dumps: what is found without a system register, and what dumps of them hold.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { pa } from '../../src/core/units.ts';
import { locateWindows } from '../../src/locate/locator.ts';
import { PAGING_4K_GRANULE } from '../../src/machines/arm64/paging.ts';
import { AddressSpace } from '../../src/memory/address-space.ts';
import { type ConvertOptions, convert } from '../../src/operations/convert.ts';
import { inspect } from '../../src/operations/inspect.ts';
import { stacks } from '../../src/operations/stacks.ts';
import { verify } from '../../src/operations/verify.ts';
import { openImage, openSource } from '../../src/readers/registry.ts';
import { BufferSource } from '../../src/source/buffer.ts';
import { readPeImage } from '../../src/windows/pe-image.ts';
import { type Arm64Guest, type Arm64Options, arm64Context, buildArm64Guest } from '../guest/arm64.ts';
import { type Arm64ElfOptions, arm64Notes, writeArm64Elf } from '../guest/arm64-elf.ts';
import { RAM_BASE } from '../guest/arm64-memory.ts';
import { kdumpFile } from '../guest/kdump.ts';
import { addPageDatabaseArm64 } from '../guest/page-database.ts';
import { pagesOf } from '../support/dumps.ts';

let dir: string;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'elf2dmp-arm64-'));
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));
const at = (name: string) => join(dir, name);

const ram = (guest: Arm64Guest) => guest.memory.flat(RAM_BASE, RAM_BASE + guest.ramBytes);

async function made(
  guest: Arm64Guest,
  { elf, ...options }: Partial<ConvertOptions> & { elf?: Arm64ElfOptions; input?: string } = {},
) {
  const [input, output] = [options.input ?? at('vm.elf'), at('out.dmp')];
  if (options.input === undefined) writeFileSync(input, writeArm64Elf(guest, elf));
  const report = await convert({ force: true, ...options, input, output });
  const dump = readFileSync(output);
  return { input, output, report, dump, pages: pagesOf(dump) };
}

/** Reads the guest's virtual memory in a dump, by the guest's own tables. */
function readIn(guest: Arm64Guest, pages: ReadonlyMap<number, Buffer>, virtual: bigint, length: number): Buffer {
  const result: Buffer[] = [];
  for (let done = 0; done < length; ) {
    const physical = guest.kernel.translate(virtual + BigInt(done))!;
    const page = pages.get(physical - (physical % 0x1000))!;
    const piece = page.subarray(physical % 0x1000, (physical % 0x1000) + length - done);
    result.push(piece);
    done += piece.length;
  }
  return Buffer.concat(result);
}

function expectSamples(guest: Arm64Guest, pages: ReadonlyMap<number, Buffer>): void {
  for (const { what, virtual, bytes, physical } of guest.truth.samples) {
    const seen =
      physical === undefined
        ? readIn(guest, pages, virtual, bytes.length)
        : pages.get(physical - (physical % 0x1000))?.subarray(physical % 0x1000, (physical % 0x1000) + bytes.length);
    expect([what, seen]).toEqual([what, bytes]);
  }
}

const codes = (report: { diagnostics: readonly { severity: string; code: string }[] }, severity: string) =>
  report.diagnostics.filter((d) => d.severity === severity).map((d) => d.code);

/** The CONTEXT that a CPU's registers make, by literal offsets. */
function frameOf(guest: Arm64Guest, cpu: number): Buffer {
  const of = guest.cpus[cpu]!;
  const frame = arm64Context(of);
  of.v.forEach((value, i) => {
    value.copy(frame, 0x110 + 16 * i);
  });
  frame.writeUInt32LE(of.fpcr, 0x310);
  frame.writeUInt32LE(of.fpsr, 0x314);
  return frame;
}

const CRASH = { code: 0xd1, parameters: [0x10n, 2n, 0n, 0xfffff806_86040004n], processor: 1 } as const;

const GUESTS: readonly [name: string, Arm64Options, Arm64ElfOptions?][] = [
  ['running, one processor in user mode', { processors: 3, user: [1] }],
  ['of 8 processors, its kernel in a block of 2 MiB', { processors: 8, kernelPages: '2m', user: [2, 5], seed: 2 }],
  ['without saved architecture state', { processors: 2, archState: false, seed: 3 }],
  ['without it, all processors in user mode', { processors: 2, archState: false, user: [0, 1], seed: 4 }],
  ['with a plain KDBG', { processors: 2, kdbg: 'plain', seed: 5 }],
  ['crashed, its KDBG encoded', { processors: 2, crash: CRASH, kdbg: 'encoded', seed: 6 }],
  ['crashed', { processors: 4, crash: CRASH, seed: 7 }],
  [
    'on CPUs without SVE, one of which was never started',
    { processors: 2, neverStarted: 1, seed: 8 },
    { withoutSve: true },
  ],
];

describe('a conversion of an ARM64 guest', () => {
  it.each(GUESTS)('finds all, loses nothing, and holds every register: %s', async (_, options, elf) => {
    const guest = buildArm64Guest(options);
    const { truth } = guest;
    const { report, dump, pages, input, output } = await made(guest, { ...(elf && { elf }) });
    expect(report).toMatchObject({ outcome: 'good', diagnostics: [] });
    expect(report.windows).toMatchObject({
      kernel: { base: `0x${truth.kernelBase.toString(16)}` },
      kdbg: { address: `0x${truth.kdbg.toString(16)}`, encoded: truth.kdbgEncoded },
      build: 22000,
    });
    // The header.
    expect(dump.toString('latin1', 0, 8)).toBe('PAGEDU64');
    expect([dump.readUInt32LE(0x30), dump.readUInt32LE(0x34)]).toEqual([0xaa64, truth.processors.length]);
    expect(dump.readBigUInt64LE(0x10)).toBe(BigInt(truth.root));
    expect(dump.readBigUInt64LE(0x80)).toBe(truth.kdbg);
    const { code, parameters } = truth.bugCheck ?? { code: 0x161, parameters: [0n, 0n, 0n, 0n] };
    expect(dump.readUInt32LE(0x38)).toBe(code);
    expect([0x40, 0x48, 0x50, 0x58].map((o) => dump.readBigUInt64LE(o))).toEqual(parameters);
    expect([dump.readBigUInt64LE(0xfa8), dump.readBigUInt64LE(0x1030)]).toEqual([truth.systemTime, truth.upTime]);
    // Memory.
    expect(readIn(guest, pages, truth.kdbg, truth.kdbgBlock.length)).toEqual(truth.kdbgBlock);
    const opened = truth.captured?.processor ?? 0;
    for (const { number, cpu, context } of truth.processors) {
      const frame = readIn(guest, pages, context, 0x390);
      if (number === truth.captured?.processor) {
        expect(frame.readBigUInt64LE(0x108)).toBe(truth.captured.pc);
        expect(frame.readBigUInt64LE(8)).toBe(truth.captured.x0);
      } else expect(frame).toEqual(frameOf(guest, cpu));
      if (number === opened) expect(dump.subarray(0x348, 0x348 + 0x390)).toEqual(frame);
    }
    expectSamples(guest, pages);
    const verified = await verify({ dump: output, against: input });
    expect(verified).toMatchObject({ outcome: 'sound', findings: [] });
  });

  it('claims no vector registers that the input lacks', async () => {
    const guest = buildArm64Guest({ processors: 1 });
    const { pages } = await made(guest, { elf: { withoutVectors: true } });
    const frame = readIn(guest, pages, guest.truth.processors[0]!.context, 0x390);
    expect(frame.readUInt32LE(0)).toBe(0x400003);
    expect(frame.subarray(0x110).every((byte) => byte === 0)).toBe(true);
  });

  it("names System's tables in the header, whichever were found", async () => {
    const guest = buildArm64Guest({ processors: 2, archState: false, user: [0, 1], seed: 4 });
    // Without its own self-map, System's root is found by no search.
    guest.kernel.setTopEntry(guest.truth.selfMapSlot, 0n);
    const { dump, report } = await made(guest);
    expect(report.windows.directoryTableBase).toBe(`0x${guest.truth.processes[2]!.root.toString(16)}`);
    expect(dump.readBigUInt64LE(0x10)).toBe(BigInt(guest.truth.root));
  });

  it('tells CPUs that run something else, and those that were never started', async () => {
    const { report } = await made(buildArm64Guest({ processors: 2, neverStarted: 1, hypervisor: 1 }), {});
    expect(codes(report, 'loss')).toEqual(['cpu-without-processor']);
    expect(report.diagnostics[0]!.message).toContain('CPU 3 runs a hypervisor (EL2)');
    const never = report.evidence.find(({ method }) => method === 'CPU 2');
    expect(never?.detail).toContain('never started');
  });

  it('knows a CPU that has just entered the kernel, with the TEB still in X18', async () => {
    const guest = buildArm64Guest({ processors: 3, user: [1, 2] });
    const { cpu, number } = guest.truth.processors[1]!;
    Object.assign(guest.cpus[cpu]!, { pc: guest.vbar + 0x404n, pstate: 0x6000_03c5n });
    const { report } = await made(guest);
    expect(report.outcome).toBe('good');
    expect(report.windows.processors[number]).toMatchObject({ cpu, mode: 'kernel' });
    expect(report.evidence.find(({ method }) => method.startsWith('KiProcessorBlock[1]'))?.detail).toContain(
      'by the TEB',
    );
  });

  it("mends a PRCB's pointer to its frame, without which the debugger shows nothing", async () => {
    const guest = buildArm64Guest({ processors: 2, withoutContext: [1] });
    const { report, pages, input, output } = await made(guest);
    expect(report.outcome).toBe('good');
    expect(codes(report, 'warning')).toEqual(['context-pointer-mended']);
    const { prcb, context, cpu } = guest.truth.processors[1]!;
    expect(readIn(guest, pages, prcb + 0x8a0n, 8).readBigUInt64LE()).toBe(context);
    expect(readIn(guest, pages, context, 0x390)).toEqual(frameOf(guest, cpu));
    expect(await verify({ dump: output, against: input })).toMatchObject({ outcome: 'sound' });
  });

  it('mends one that leads elsewhere', async () => {
    const guest = buildArm64Guest({ processors: 2 });
    const { prcb, context } = guest.truth.processors[0]!;
    guest.kernel.u64(prcb + 0x8a0n, guest.truth.kdbg);
    const { report, pages } = await made(guest);
    expect(codes(report, 'warning')).toEqual(['context-pointer-mended']);
    expect(readIn(guest, pages, prcb + 0x8a0n, 8).readBigUInt64LE()).toBe(context);
    expect(readIn(guest, pages, guest.truth.kdbg, 0x380)).toEqual(guest.truth.kdbgBlock);
  });

  it.each(['bitmap', 'kernel', 'active'] as const)(
    'makes dumps of type %s, and of each the same again',
    async (type) => {
      const guest = buildArm64Guest({ processors: 2, user: [0], crash: CRASH, seed: 9 });
      const { report, output, input, dump, pages } = await made(guest, { type });
      expect(codes(report, 'loss').filter((code) => code !== 'page-states-unknown')).toEqual([]);
      expect(dump.readUInt32LE(0x30)).toBe(0xaa64);
      for (const { context } of guest.truth.processors) {
        expect(readIn(guest, pages, context, 4).readUInt32LE()).toBe(0x400007);
      }
      expect(await verify({ dump: output, against: input })).toMatchObject({ outcome: 'sound' });
      const again = at('again.dmp');
      await convert({ input: output, output: again, force: true, ...(type === 'bitmap' && { type }) });
      expect(readFileSync(again).equals(dump)).toBe(true);
      const info = await inspect({ input: output });
      expect(info.windows?.processors.map((p) => p.mode)).toEqual(['user', 'kernel']);
    },
  );

  it('has in a dump of active memory what its page frame database says is in use', async () => {
    const guest = buildArm64Guest({ processors: 2, user: [0], seed: 10 });
    const { unmapped, fill } = addPageDatabaseArm64(guest);
    const { report, pages, input, output } = await made(guest, { type: 'active' });
    expect(report).toMatchObject({ outcome: 'good', diagnostics: [] });
    expect(report.dump.selection?.statesFrom).toBe('page frame database');
    for (const physical of [unmapped.modified, unmapped.active]) expect(pages.get(physical)).toEqual(fill(physical));
    for (const physical of [unmapped.standby, unmapped.free, unmapped.zeroed]) expect(pages.has(physical)).toBe(false);
    // It is a file's, and on standby.
    const { physical } = guest.truth.samples.find(({ what }) => what === 'a page in transition')!;
    expect(pages.has(physical! - (physical! % 0x1000))).toBe(false);
    expect(await verify({ dump: output, against: input })).toMatchObject({ outcome: 'sound' });
  });

  it('makes a triage dump of a running guest, with the registers and calls of every processor', async () => {
    const guest = buildArm64Guest({ processors: 3, user: [2], seed: 12 });
    const [input, output] = [at('vm.elf'), at('triage.dmp')];
    writeFileSync(input, writeArm64Elf(guest));
    const report = await convert({ input, output, force: true, type: 'triage', triageCpus: 'all' });
    const dump = readFileSync(output);
    expect(codes(report, 'loss')).toEqual([]);
    expect([dump.readUInt32LE(0xf98), dump.readUInt32LE(0x30), dump.readUInt32LE(0x38)]).toEqual([4, 0xaa64, 0x161]);
    expect(await verify({ dump: output })).toMatchObject({ outcome: 'sound' });
    const calls = async (file: string) =>
      (await stacks({ input: file })).stacks.map(({ processor, frames }) => [
        processor,
        // Memory of programs is left out.
        processor === 2 ? frames[0]!.instructionPointer : frames.map((f) => [f.instructionPointer, f.stackPointer]),
      ]);
    expect(await calls(output)).toEqual(await calls(input));
  });

  it('drops pages of zeros', async () => {
    const guest = buildArm64Guest({ processors: 2 });
    const { report, pages } = await made(guest, { dropZeroPages: true });
    expect(codes(report, 'loss')).toEqual(['zero-pages-dropped']);
    expect(pages.size).toBeLessThan(guest.ramBytes / 0x1000 / 2);
    expectSamples(guest, pages);
  });
});

describe('images of other machines in an ARM64 guest', () => {
  it.each([
    [0x8664, 'a PE image of another machine (0x8664: x64 code, which Windows emulates, or ARM64EC)'],
    [0x14c, 'a PE image of another machine (0x14c: x86 code, which Windows emulates)'],
    [0x1c4, 'a PE image of another machine (0x1c4)'],
  ])('are told: %i', (machine, said) => {
    const guest = buildArm64Guest({ processors: 1 });
    const { base } = guest.truth.modules[1]!;
    guest.kernel.u16(base + 0x84n, machine);
    const image = openSource(new BufferSource(writeArm64Elf(guest), 'guest.elf'));
    const space = new AddressSpace(image, pa(guest.truth.root), PAGING_4K_GRANULE);
    expect(String(readPeImage(space, base, 0xaa64))).toBe(said);
  });
});

describe('ARM64 memory in other files', () => {
  const guest = buildArm64Guest({ processors: 2, user: [1], crash: { ...CRASH, processor: 0 }, seed: 11 });

  it('is found in raw memory, which begins at 1 GiB', async () => {
    writeFileSync(at('vm.raw'), ram(guest));
    const { report, dump } = await made(guest, { input: at('vm.raw') });
    expect(report.windows.kernel.base).toBe(`0x${guest.truth.kernelBase.toString(16)}`);
    expect(dump.readBigUInt64LE(0x98)).toBe(BigInt(RAM_BASE / 0x1000));
    expect(dump.readUInt32LE(0x38)).toBe(CRASH.code);
    // The crashed processor has its captured registers; the others have none in such a file.
    expect(codes(report, 'loss')).toEqual(['no-cpu-states', 'processor-without-state']);
  });

  it('is found in raw memory from address 0 on', async () => {
    const image = openImage(at('vm.raw'), { format: 'raw', runs: [{ start: RAM_BASE, size: guest.ramBytes }] });
    expect((await locateWindows(image)).kernel.base).toBe(guest.truth.kernelBase);
    image.close();
  });

  it('is read from kdump-compressed files, whose blocks have 64 KiB', async () => {
    const memory = ram(guest);
    const pages = new Map<number, Buffer>();
    for (let i = 0; i < memory.length; i += 0x10000)
      pages.set((RAM_BASE + i) / 0x10000, memory.subarray(i, i + 0x10000));
    writeFileSync(at('vm.kdump'), kdumpFile({ pages, notes: arm64Notes(guest), blockSize: 0x10000 }).file);
    const fromElf = await made(guest);
    const fromKdump = await made(guest, { input: at('vm.kdump') });
    expect(fromKdump.report.input.format).toBe('kdump');
    expect(fromKdump.dump.equals(fromElf.dump)).toBe(true);
    // Without notes, the size of a block shows the machine.
    writeFileSync(at('bare.kdump'), kdumpFile({ pages, blockSize: 0x10000 }).file);
    const bare = await made(guest, { input: at('bare.kdump') });
    expect(bare.report.windows.kernel.base).toBe(`0x${guest.truth.kernelBase.toString(16)}`);
  });
});
