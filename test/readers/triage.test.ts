// Triage dumps as input: what is in them, and every way in which their lists can be damaged.
import { beforeAll, describe, expect, it } from 'vitest';
import { Elf2dmpError } from '../../src/core/errors.ts';
import { locateWindows } from '../../src/locate/locator.ts';
import type { MemoryImage } from '../../src/memory/image.ts';
import { chooseContexts } from '../../src/plan/contexts.ts';
import { planConversion } from '../../src/plan/conversion.ts';
import { openSource } from '../../src/readers/registry.ts';
import { reportInput } from '../../src/report/input.ts';
import { Places } from '../../src/report/places.ts';
import { Images } from '../../src/report/processors.ts';
import { stacksOf } from '../../src/report/stacks.ts';
import { describeWindows } from '../../src/report/windows.ts';
import { BufferSource } from '../../src/source/buffer.ts';
import { writeElf } from '../guest/elf.ts';
import { buildGuest, type Guest } from '../guest/guest.ts';
import { type TriagePlaces, writeTriage } from '../guest/win-dump.ts';
import { buildGuest32 } from '../guest/x86/guest.ts';

const CRASH = { code: 0x7e, parameters: [0xffffffff_c0000005n, 2n, 3n, 4n], processor: 1 } as const;
const open = (file: Buffer): MemoryImage => openSource(new BufferSource(file, 'mini.dmp'), { crashDumps: true });

let guest: Guest;
let good: Buffer;
let places: TriagePlaces;
beforeAll(() => {
  guest = buildGuest({ processors: 3, user: [2], crash: CRASH });
  ({ file: good, places } = writeTriage(guest));
});

describe('a triage dump', () => {
  it('shows its Windows, processors, modules and bug check', async () => {
    const image = open(good);
    expect([image.format, image.runs, image.triage?.blockCount]).toEqual([
      'windows-triage-dump',
      [],
      places.blockCount,
    ]);
    const windows = await locateWindows(image);
    const contexts = chooseContexts(windows, 'auto');
    const { truth } = guest;
    const info = describeWindows(windows, contexts);
    expect([info.build, BigInt(info.kernel.base), info.currentProcessor]).toEqual([19041, truth.kernelBase, 1]);
    expect(info.bugCheck).toMatchObject({ code: '0x7e', processor: 1, processorFrom: 'input' });
    expect(info.modules.map((m) => [m.path, BigInt(m.base), m.size, Number(m.checkSum)])).toEqual(
      truth.modules.map((m) => [`\\SystemRoot\\system32\\${m.name}`, m.base, m.size, 0x12345]),
    );
    expect(info.unloadedModules.map((m) => [m.name, BigInt(m.from), BigInt(m.to), m.time])).toEqual(
      truth.unloaded.map((m) => [m.name.slice(0, 12), m.from, m.to, null]),
    );
    expect(info.processors.map((p) => [p.number, p.registers, p.mode])).toEqual([
      [0, 'dump', 'kernel'],
      [1, 'dump', 'kernel'],
      [2, 'dump', 'user'],
    ]);
    for (const { frame, processor } of contexts.shown) {
      expect(frame).toEqual(guest.kernel.read(truth.processors[processor.number]!.context, 0x4d0));
    }
    expect(info.doubts).toEqual([
      'processes: a triage dump holds only the current one, without a list',
      'RAM: a triage dump has no physical memory',
    ]);
  });

  it('opens on the processor whose PRCB it has, whatever registers its header has', async () => {
    const file = Buffer.from(good);
    file.writeBigUInt64LE(0xffffa580_00000000n, 0x348 + 0x98);
    const { opened } = chooseContexts(await locateWindows(open(file)), 'auto');
    expect(opened?.processor.number).toBe(1);
  });

  it('has the stack of its processor, frame by frame', async () => {
    const windows = await locateWindows(open(good));
    const contexts = chooseContexts(windows, 'auto');
    const places = new Places(windows, contexts, new Images(windows));
    const [, crashed] = stacksOf(windows, contexts, { places });
    // The innermost is the CPU's, which went on after the bug check.
    const returns = guest.truth.processors[1]!.returns.slice(1);
    expect(crashed!.frames.slice(1).map((f) => BigInt(f.instructionPointer))).toEqual(returns);
    expect(crashed!.frames.every((f) => f.certain)).toBe(true);
  });

  it('gives memory across blocks that touch and overlap, and none beside them', async () => {
    const { space } = await locateWindows(open(good));
    const { kernelBase } = guest.truth;
    expect(space.read(kernelBase + 0x700n, 0x1000)).toEqual(guest.kernel.read(kernelBase + 0x700n, 0x1000));
    expect(space.read(kernelBase + 0x9ff8n, 16)).toBeUndefined();
    expect(space.read(kernelBase - 1n, 2)).toBeUndefined();
    expect(space.translate(kernelBase)).toBeUndefined();
    expect(space.fault(kernelBase)).toBeUndefined();
    expect(space.fault(kernelBase - 8n)).toMatchObject({ reason: 'no-block' });
  });

  it('is described as virtual memory', () => {
    const { runs, runCount, blocks, memoryBytes } = reportInput(open(good));
    expect([runs, runCount, blocks?.count]).toEqual([[], 0, places.blockCount]);
    const total = blocks!.runs.reduce((sum, { size }) => sum + size, 0);
    expect(memoryBytes).toBe(total);
    const ends = blocks!.runs.map(({ start, size }) => BigInt(start) + BigInt(size));
    expect(blocks!.runs.slice(1).every(({ start }, i) => BigInt(start) >= ends[i]!)).toBe(true);
  });

  it('need not have SharedUserData: its header has the versions and times', async () => {
    const { shared, version } = await locateWindows(open(good));
    const { truth } = guest;
    expect([shared.ntMajorVersion, shared.systemTime, shared.interruptTime, version.build]).toEqual([
      10,
      truth.systemTime,
      truth.upTime,
      19041,
    ]);
  });
});

const set32 = (at: number, value: number) => (file: Buffer) => void file.writeUInt32LE(value, at);

describe('a damaged triage dump', () => {
  it.each<[string, (file: Buffer) => void, string]>([
    ['a size beyond the file', set32(0x2004, 0x7fffffff), 'the file is cut off'],
    ['a size of 0', set32(0x2004, 0), 'lies outside'],
    ['no mark', (file) => file.fill(0, file.readUInt32LE(0x2008), file.readUInt32LE(0x2008) + 4), 'was not completed'],
    ['a mark outside', set32(0x2008, 0xfffffff0), 'lies outside'],
    ['a KDBG outside', set32(0x2070, 0xfffffff0), 'lies outside'],
    ['modules outside', set32(0x2030, 0xfffffff0), 'lies outside'],
    ['too many modules', set32(0x2034, 0xffffffff), 'too many modules'],
    ['unloaded modules outside', set32(0x2018, 0xfffffff0), 'lies outside'],
    ['too many unloaded modules', (file) => void file.writeUInt32LE(51, places.unloaded), 'too many unloaded'],
    ['blocks outside', set32(0x2078, 0xfffffff0), 'lies outside'],
    ['too many blocks', set32(0x207c, 0xffffffff), 'too many data blocks'],
    ['a block outside', (file) => void file.writeUInt32LE(0xffffff00, places.blocks + 8), 'data block 0 of'],
    ['a block in the header', (file) => void file.writeUInt32LE(0x100, places.blocks + 8), 'data block 0 of'],
    ['a block that wraps', (file) => void file.writeBigUInt64LE(2n ** 64n - 1n, places.blocks), 'data block 0 of'],
  ])('with %s is refused', (_, damage, message) => {
    const file = Buffer.from(good);
    damage(file);
    expect(() => open(file)).toThrow(expect.objectContaining({ code: 'dmp-triage' }));
    expect(() => open(file)).toThrow(message);
  });

  it('without KDBG, or with one of another kernel, has no Windows', async () => {
    const file = Buffer.from(good);
    file.writeUInt32LE(0, places.kdbg + 0x10);
    await expect(locateWindows(open(file))).rejects.toMatchObject({ code: 'kdbg-not-found' });
    const other = Buffer.from(good);
    other.writeBigUInt64LE(0xfffff80012340000n, places.kdbg + 0x18);
    await expect(locateWindows(open(other))).rejects.toMatchObject({ code: 'kernel-not-found' });
  });

  it.each([0xfffffff0, 0])('whose module has a name at %i says so', async (offset) => {
    const file = Buffer.from(good);
    file.writeUInt32LE(offset, places.drivers + 0x90);
    const windows = await locateWindows(open(file));
    expect(windows.modules[1]!.name).toBe('');
    expect(windows.diagnostics.losses.map((d) => d.code)).toEqual(['triage-names']);
  });

  it('whose PRCBs are not those of their numbers has fewer processors, and says so', async () => {
    const file = Buffer.from(good);
    const windows = await locateWindows(open(good));
    const table = windows.kdbg.fields.KiProcessorBlock!;
    const run = windows.image.triage!.runs.find((r) => r.address <= table && table < r.address + BigInt(r.size))!;
    const at = run.fileOffset + Number(table - run.address);
    file.copyWithin(at, at + 8, at + 16);
    const damaged = await locateWindows(open(file));
    expect(damaged.processors.map((p) => p.number)).toEqual([1, 2]);
    expect(damaged.diagnostics.losses.map((d) => d.code)).toEqual(['no-processors']);
  });

  it('cut off anywhere is refused with a reason', () => {
    for (let length = 0x2000; length < good.length; length += 0x333) {
      expect(() => open(good.subarray(0, length))).toThrow(Elf2dmpError);
    }
  });
});

describe('a triage dump of a 32-bit guest', () => {
  const crash = { code: 0xd1, parameters: [0x10, 2, 0, 0x8a460003] as const, processor: 1 };
  const built = async () => {
    const image = openSource(
      new BufferSource(writeElf(buildGuest32({ build: 'win7', processors: 2, crash })), 'x86.elf'),
    );
    const [segment] = planConversion(await locateWindows(image), { type: 'triage', triage: {} }).plan.segments;
    return segment?.kind === 'bytes' ? segment.bytes : Buffer.alloc(0);
  };
  /** What becomes of it: read, or an error that says why not. */
  const outcomeOf = async (bytes: Buffer): Promise<string> => {
    try {
      await locateWindows(open(bytes));
      return 'read';
    } catch (error) {
      if (error instanceof Elf2dmpError) return error.code;
      throw error;
    }
  };

  it('is read or refused by name, whatever its lists say', async () => {
    const good = await built();
    const outcomes = new Map<string, number>();
    const count = (outcome: string) => outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
    const list = good.readUInt32LE(0x1030);
    const blocks = good.readUInt32LE(0x1060);
    for (let at = 0x1000; at < 0x1068; at += 4) {
      for (const value of [0, 1, 0x7fffffff, 0xffffffff]) {
        const file = Buffer.from(good);
        file.writeUInt32LE(value, at);
        count(await outcomeOf(file));
      }
    }
    for (const at of [list, list + 0x1c, list + 0x24, blocks, blocks + 8, blocks + 12, good.readUInt32LE(0x1018)]) {
      const file = Buffer.from(good);
      file.writeUInt32LE(0xfffffff0, at);
      count(await outcomeOf(file));
    }
    for (const length of [0x1000, 0x1040, 0x1067, good.length - 1]) count(await outcomeOf(good.subarray(0, length)));
    expect([...outcomes.keys()].sort()).toEqual(['dmp-triage', 'kdbg-not-found', 'kernel-not-found', 'read']);
  });
});
