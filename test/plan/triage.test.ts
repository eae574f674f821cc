// Triage dumps byte by byte, by literal offsets: what is in them, what is not, and how large they can be.
import { beforeAll, describe, expect, it } from 'vitest';
import type { Elf2dmpError } from '../../src/core/errors.ts';
import { locateWindows } from '../../src/locate/locator.ts';
import { planConversion } from '../../src/plan/conversion.ts';
import type { DumpPlan } from '../../src/plan/plan.ts';
import type { TriageChoices } from '../../src/plan/triage.ts';
import { openSource } from '../../src/readers/registry.ts';
import { BufferSource } from '../../src/source/buffer.ts';
import type { Windows } from '../../src/windows/windows.ts';
import { writeElf } from '../guest/elf.ts';
import { buildGuest, type Guest, type GuestOptions } from '../guest/guest.ts';
import { buildTrueGuest, type TrueGuest } from '../guest/true-guest.ts';
import { buildGuest32 } from '../guest/x86/guest.ts';

const CRASH = { code: 0x7e, parameters: [0xffffffff_c0000005n, 2n, 3n, 4n], processor: 1 } as const;

const found = (guest: Guest): Promise<Windows> =>
  locateWindows(openSource(new BufferSource(writeElf(guest), 'vm.elf')));

async function planned(guest: Guest, triage: TriageChoices = {}, change?: (windows: Windows) => void) {
  const windows = await found(guest);
  change?.(windows);
  const { plan, diagnostics } = planConversion(windows, { type: 'triage', triage });
  return { plan, diagnostics, file: new Triage(plan) };
}

/** A triage dump as its bytes say. */
class Triage {
  readonly bytes: Buffer;
  readonly blocks: { address: bigint; bytes: Buffer }[];

  constructor({ segments, size }: DumpPlan) {
    const [segment] = segments;
    if (segment?.kind !== 'bytes' || segments.length !== 1) throw new Error('not one segment of bytes');
    this.bytes = segment.bytes;
    expect(this.bytes.length).toBe(size);
    this.blocks = Array.from({ length: this.u32(0x207c) }, (_, i) => {
      const at = this.u32(0x2078) + 16 * i;
      const from = this.u32(at + 8);
      return { address: this.u64(at), bytes: this.bytes.subarray(from, from + this.u32(at + 12)) };
    });
  }

  u32 = (at: number): number => this.bytes.readUInt32LE(at);
  u64 = (at: number): bigint => this.bytes.readBigUInt64LE(at);

  read(address: bigint, length: number): Buffer | undefined {
    const block = this.blocks.find(
      (b) => address >= b.address && address + BigInt(length) <= b.address + BigInt(b.bytes.length),
    );
    return block?.bytes.subarray(Number(address - block.address), Number(address - block.address) + length);
  }

  get modules(): { base: bigint; size: number; path: string }[] {
    return Array.from({ length: this.u32(0x2034) }, (_, i) => {
      const at = this.u32(0x2030) + 0x90 * i;
      const name = this.u32(at);
      const path = this.bytes.toString('utf16le', name + 4, name + 4 + 2 * this.u32(name));
      return { base: this.u64(at + 0x38), size: this.u32(at + 0x48), path };
    });
  }

  get unloaded(): { name: string; from: bigint; to: bigint }[] {
    const list = this.u32(0x2018);
    return Array.from({ length: Number(this.u64(list)) }, (_, i) => {
      const at = list + 8 + 0x38 * i;
      const name = this.bytes.toString('utf16le', at + 0x10, at + 0x10 + this.bytes.readUInt16LE(at));
      return { name, from: this.u64(at + 0x28), to: this.u64(at + 0x30) };
    });
  }
}

describe('a triage dump of a crashed guest', () => {
  let guest: TrueGuest;
  let file: Triage;
  beforeAll(async () => {
    guest = buildTrueGuest({ crash: CRASH, processors: 2 });
    ({ file } = await planned(guest));
  });

  it('has a header of type 4, all parts, and its mark at its end', () => {
    expect(file.bytes.toString('latin1', 0, 8)).toBe('PAGEDU64');
    expect([file.u32(0xf98), file.u32(0x1038), file.u32(0x38)]).toEqual([4, 0xcff, 0x7e]);
    expect(file.u32(0x2004)).toBe(file.bytes.length);
    expect(file.bytes.toString('latin1', file.u32(0x2008), file.u32(0x2008) + 4)).toBe('TRGD');
    expect([file.u32(0x200c), file.u32(0x2010)]).toEqual([0x348, 0xf00]);
    expect(file.bytes.toString('latin1', file.u32(0x2070) + 0x10, file.u32(0x2070) + 0x14)).toBe('KDBG');
  });

  it("has the crashing processor's PRCB, thread, process and stack, as memory has them", () => {
    const { prcb } = guest.truth.processors[1]!;
    const at = file.u32(0x201c);
    expect(file.bytes.readUInt32LE(at + 0x24)).toBe(1);
    const thread = guest.kernel.read(prcb + 8n, 8).readBigUInt64LE();
    expect(file.u64(at + 8)).toBe(thread);
    const bytesAt = (offset: number, length: number) =>
      file.bytes.subarray(file.u32(offset), file.u32(offset) + length);
    expect(bytesAt(0x2024, 0x898)).toEqual(guest.kernel.read(thread, 0x898));
    const process = guest.kernel.read(thread + BigInt(guest.generation.kthread.process), 8).readBigUInt64LE();
    expect(bytesAt(0x2020, 0x40)).toEqual(guest.kernel.read(process, 0x40));
    const top = file.u64(0x2048);
    const frame = file.read(guest.truth.processors[1]!.context, 0x4d0)!;
    expect(top).toBe(frame.readBigUInt64LE(0x98));
    expect((top + BigInt(file.u32(0x202c))) & 0xfffn).toBe(0n);
    expect(bytesAt(0x2028, file.u32(0x202c))).toEqual(guest.kernel.read(top, file.u32(0x202c)));
  });

  it('lists the modules and the unloaded ones', () => {
    expect(file.modules.map(({ base }) => base)).toEqual(guest.truth.modules.map(({ base }) => base));
    expect(file.modules[0]!.path.toLowerCase()).toContain('ntoskrnl.exe');
    expect(file.unloaded).toEqual(
      guest.truth.unloaded.map(({ name, from, to }) => ({ name: name.slice(0, 12), from, to })),
    );
  });

  it('has what switching processors takes, and the registers of all', () => {
    const table = file.read(guest.truth.kernelBase, 2)!;
    expect(table.toString('latin1')).toBe('MZ');
    for (const { prcb, context, number } of guest.truth.processors) {
      expect(file.read(prcb, 0x200), `PRCB ${number}`).toBeDefined();
      expect(file.read(prcb + BigInt(guest.generation.contextPointer!), 8)!.readBigUInt64LE()).toBe(context);
      expect(file.read(context, 0x4d0)!.readBigUInt64LE(0xf8), `RIP ${number}`).not.toBe(0n);
    }
  });
});

describe('what memory lacks or contradicts', () => {
  it('are pages of the PRCB: they are zeros, and a loss', async () => {
    const guest = buildTrueGuest({ crash: CRASH, processors: 2 });
    const { prcb } = guest.truth.processors[1]!;
    guest.kernel.setEntry((prcb & ~0xfffn) + 0x3000n, 0n);
    const { file, diagnostics } = await planned(guest);
    const at = file.u32(0x201c) + Number(0x3000n - (prcb & 0xfffn));
    expect(file.bytes.subarray(at, at + 0x1000)).toEqual(Buffer.alloc(0x1000));
    expect(diagnostics).toContainEqual(
      expect.objectContaining({
        severity: 'loss',
        code: 'triage-part-missing',
        message: expect.stringMatching(/^4 KiB of the PRCB/),
      }),
    );
  });

  it("are time stamps of modules whose images are missing: the loader's are believed if the kernel's is its header's", async () => {
    const stampOf = async (ofKernel: number) => {
      const { file } = await planned(buildTrueGuest({ crash: CRASH, processors: 2 }), {}, ({ modules, kernel }) => {
        const [first, last] = [modules[0]!, modules.at(-1)!];
        first.timeDateStamp = kernel.timeDateStamp + ofKernel;
        Object.assign(last, { base: 0xfffff8ff_00000000n, timeDateStamp: 0x5a5a5a5a });
      });
      return file.u32(file.u32(0x2030) + 0x90 * (file.u32(0x2034) - 1) + 0x88);
    };
    expect([await stampOf(0), await stampOf(1)]).toEqual([0x5a5a5a5a, 0]);
  });

  it.each([
    ['below the stack pointer', -0x8000n],
    ['farther than any stack', 0x100_0000n],
  ])("is a stack's end %s: then what is present counts", async (_, distance) => {
    const guest = buildTrueGuest({ crash: CRASH, processors: 2 });
    const { kthread } = guest.generation;
    const thread = guest.kernel.read(guest.truth.processors[1]!.prcb + 8n, 8).readBigUInt64LE();
    const sound = guest.kernel.read(thread + BigInt(kthread.stackBase), 8).readBigUInt64LE();
    for (let page = 0; page < 0x20; page++) {
      const at = sound + BigInt(0x1000 * page);
      if (guest.kernel.translate(at) === undefined) guest.kernel.mapNew(at, 0x1000);
    }
    const end = sound + distance;
    for (const at of [kthread.initialStack, kthread.stackBase]) guest.kernel.u64(thread + BigInt(at), end);
    const { file } = await planned(guest);
    const [top, size] = [file.u64(0x2048), file.u32(0x202c)];
    expect(size).toBe(0x12000);
    expect(file.bytes.subarray(file.u32(0x2028), file.u32(0x2028) + size)).toEqual(guest.kernel.read(top, size));
  });

  it("is a module's directory that reaches beyond it", async () => {
    const guest = buildTrueGuest({ crash: CRASH, processors: 2 });
    const { kernel, truth } = guest;
    const { base, size } = truth.modules[0]!;
    const end = base + BigInt(size);
    if (kernel.translate(end) === undefined) kernel.mapNew(end, 0x1000);
    const header = base + BigInt(kernel.read(base + 0x3cn, 4).readUInt32LE());
    const unwindData = header + 0x88n + 24n;
    kernel.u32(unwindData, size - 8);
    kernel.u32(unwindData + 4n, 16);
    const { file } = await planned(guest);
    expect(file.read(end, 8)).toBeUndefined();
  });
});

describe('memory of user mode', () => {
  const options: GuestOptions = { processors: 2, user: [0, 1] };

  it('is not in a triage dump', async () => {
    const { file } = await planned(buildGuest(options), { cpus: 'all' });
    expect(file.blocks.filter(({ address }) => address < 1n << 63n)).toEqual([]);
    expect(file.u32(0x202c)).toBe(0);
  });

  it('is there on request: stack and code of the process', async () => {
    const guest = buildGuest(options);
    const { file } = await planned(guest, { userStacks: true });
    const user = file.blocks.filter(({ address }) => address < 1n << 63n);
    const { rip, rsp } = guest.cpus[guest.truth.processors[0]!.cpu]!.regs;
    expect(file.read(rip, 1)).toBeDefined();
    expect(file.read(rsp, 8)).toBeDefined();
    expect(user.length).toBeGreaterThan(0);
  });
});

describe('limits', () => {
  it('other stacks only with cpus: all', async () => {
    const guest = buildGuest({ processors: 2, crash: CRASH });
    const [one, all] = [await planned(guest), await planned(guest, { cpus: 'all' })];
    const rsp = guest.cpus[guest.truth.processors[0]!.cpu]!.regs.rsp;
    expect(one.file.read(rsp, 8)).toBeUndefined();
    expect(all.file.read(rsp, 8)).toEqual(guest.kernel.read(rsp, 8));
  });

  it.each([1, 64, 256])('is at most 2 MiB with %i times a module list of the longest names', async (times) => {
    const guest = buildTrueGuest({ processors: 2, crash: CRASH });
    const { plan, diagnostics } = await planned(guest, { cpus: 'all' }, (windows) => {
      const path = 'x'.repeat(4000);
      const modules = Array.from({ length: times }, () => windows.modules.map((m) => ({ ...m, path }))).flat();
      Object.assign(windows, { modules });
    });
    expect(plan.size).toBeLessThanOrEqual(0x20_0000);
    expect(diagnostics.some(({ code }) => code === 'triage-too-large')).toBe(times > 1);
  });

  it('refuses a guest of which no processor was found', async () => {
    const windows = await found(buildGuest());
    const none = { ...windows, processors: [], crash: undefined };
    expect(() => planConversion(none, { type: 'triage' })).toThrow(
      expect.objectContaining<Partial<Elf2dmpError>>({ code: 'triage-no-processor' }),
    );
  });
});

describe('a triage dump of a 32-bit guest', () => {
  it('has its parts where Windows has them, and its memory by sign-extended addresses', async () => {
    const crash = { code: 0xd1, parameters: [0x10, 2, 0, 0x8a460003] as const, processor: 1 };
    const guest = buildGuest32({ build: 'win7', processors: 2, crash });
    const { truth, kernel } = guest;
    const windows = await locateWindows(openSource(new BufferSource(writeElf(guest), 'x86.elf')));
    const { plan } = planConversion(windows, { type: 'triage', triage: {} });
    const [segment] = plan.segments;
    const bytes = segment?.kind === 'bytes' ? segment.bytes : Buffer.alloc(0);
    const u32 = (at: number) => bytes.readUInt32LE(at);
    expect([bytes.toString('latin1', 0, 8), u32(0xf88), u32(0xf8c)]).toEqual(['PAGEDUMP', 4, 0xcff]);
    // SizeOfDump, ValidOffset, ContextOffset, ExceptionOffset.
    expect([u32(0x1004), u32(0x100c), u32(0x1010)]).toEqual([bytes.length, 0x320, 0x7d0]);
    expect(bytes.toString('latin1', u32(0x1008))).toBe('TRGD');
    const { prcb, thread } = truth.processors[1]!;
    const part = (at: number, length: number) => bytes.subarray(u32(at), u32(at) + length);
    expect(part(0x101c, 0x200).equals(kernel.read(prcb, 0x200))).toBe(true);
    expect(part(0x1024, 0x80).equals(kernel.read(thread, 0x80))).toBe(true);
    // The stack begins at ESP of the frame that Windows captured.
    expect(u32(0x1048)).toBe(truth.captured!.esp);
    expect(part(0x1028, 0x20).equals(kernel.read(truth.captured!.esp, 0x20))).toBe(true);
    expect(bytes.subarray(u32(0x1058), u32(0x1058) + u32(0x105c)).equals(truth.kdbgBlock)).toBe(true);
    const modules = Array.from({ length: u32(0x1034) }, (_, i) => {
      const at = u32(0x1030) + 0x4c * i;
      const name = u32(at);
      return [bytes.toString('utf16le', name + 4, name + 4 + 2 * u32(name)), u32(at + 0x1c), u32(at + 0x24)];
    });
    expect(modules.map(([, base, size]) => [base, size])).toEqual(truth.modules.map(({ base, size }) => [base, size]));
    const unloaded = u32(0x1018);
    expect(u32(unloaded)).toBe(truth.unloaded.length);
    const [first] = truth.unloaded;
    const entry = unloaded + 4;
    expect([u32(entry + 0x20), u32(entry + 0x24)]).toEqual([first!.from, first!.to]);
    expect(bytes.toString('utf16le', entry + 8, entry + 8 + bytes.readUInt16LE(entry))).toBe(first!.name.slice(0, 12));
    for (let i = 0; i < u32(0x1064); i++) {
      const at = u32(0x1060) + 16 * i;
      const [low, high, from, size] = [u32(at), u32(at + 4), u32(at + 8), u32(at + 12)];
      expect(high).toBe(0xffffffff);
      if (size < 0x40 && low >= truth.kernelBase)
        expect(bytes.subarray(from, from + size).equals(kernel.read(low, size))).toBe(true);
    }
  });
});
