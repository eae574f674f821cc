// Which CPU state belongs to which processor, with PRCBs and threads in a few pages of memory.
import { describe, expect, it } from 'vitest';
import { Reason } from '../../src/core/reason.ts';
import { pa, va } from '../../src/core/units.ts';
import { NT_PRSTATUS } from '../../src/formats/elf.ts';
import { locateWindows } from '../../src/locate/locator.ts';
import type { CpuState } from '../../src/machines/machine.ts';
import { X64 } from '../../src/machines/x64/index.ts';
import { PAGING_4_LEVELS } from '../../src/machines/x64/paging.ts';
import { AddressSpace } from '../../src/memory/address-space.ts';
import type { MemoryImage } from '../../src/memory/image.ts';
import { planConversion } from '../../src/plan/conversion.ts';
import { openSource } from '../../src/readers/registry.ts';
import { BufferSource } from '../../src/source/buffer.ts';
import { matchProcessors } from '../../src/windows/cpu-matching.ts';
import { findAllProcessors, findProcessors, type Processor } from '../../src/windows/processors.ts';
import { buildArm64Guest } from '../guest/arm64.ts';
import { writeArm64Elf } from '../guest/arm64-elf.ts';
import { writeElf } from '../guest/elf.ts';
import { buildGuest, type Guest } from '../guest/guest.ts';
import { PageTables, PhysicalMemory } from '../guest/memory.ts';
import { imageOf } from '../support/images.ts';
import { knownGuest } from '../support/known-guest.ts';
import { x64 } from '../support/registers.ts';

const KPCRS = [0xfffff800_00001000n, 0xfffff800_00003000n, 0xfffff800_00005000n] as const;
const CURRENT_THREAD = 8;
const TEB = 0xf0;
const FIELDS = { OffsetPrcbCurrentThread: CURRENT_THREAD, OffsetKThreadTeb: TEB };

/** Three processors, whose threads have these TEBs (0: a kernel thread). */
function processorsWith(tebs: readonly [bigint, bigint, bigint], set: (tables: PageTables) => void = () => {}) {
  const memory = new PhysicalMemory(1 << 20, 1);
  const tables = new PageTables(memory);
  const processors = KPCRS.map((kpcr, number): Processor => {
    const [prcb, thread] = [kpcr + 0x180n, kpcr + 0x1000n];
    tables.mapNew(kpcr, 0x2000);
    tables.u64(prcb + BigInt(CURRENT_THREAD), thread);
    tables.u64(thread + BigInt(TEB), tebs[number]!);
    return {
      number,
      prcb: va(prcb),
      kpcr: va(kpcr),
      context: undefined,
      specialRegisters: undefined,
      doubt: undefined,
      cpu: undefined,
      cpuBy: undefined,
    };
  });
  set(tables);
  const image = imageOf([{ start: 0, bytes: memory.flat(0, memory.bytes) }]);
  return { processors, space: new AddressSpace(image, pa(tables.root), PAGING_4_LEVELS) };
}

/** A CPU as an NT_PRSTATUS note has it. */
function cpuOf(index: number, gsBase: bigint, user: boolean, rsp = 0n): CpuState {
  const desc = Buffer.alloc(336);
  desc.writeBigUInt64LE(user ? 0x7ff6_00001000n : 0xfffff800_10001000n, 0xf0);
  desc.writeBigUInt64LE(user ? 0x33n : 0x10n, 0xf8);
  desc.writeBigUInt64LE(rsp, 0x108);
  desc.writeBigUInt64LE(gsBase, 0x120);
  const form = X64.cpuNotes.find(({ name, type }) => name === 'CORE' && type === NT_PRSTATUS)!;
  return { index, ...form.parse(desc, [])!, origin: 'test' };
}

const match = (tebs: readonly [bigint, bigint, bigint], cpus: readonly CpuState[]) => {
  const { processors, space } = processorsWith(tebs);
  const left = matchProcessors(processors, cpus, space, FIELDS);
  return { cpus: processors.map((p) => p.cpu?.index), how: processors.map((p) => p.cpuBy), left: left.length };
};

/** All of an image's memory from 0 on. */
function flat(image: MemoryImage): Buffer {
  const { start, size } = image.runs.at(-1)!;
  const bytes = Buffer.alloc(start + size);
  for (const run of image.runs) image.readSync(run.start, bytes.subarray(run.start, run.start + run.size));
  return bytes;
}

describe('matching CPUs and processors', () => {
  it('goes by the KPCR in the kernel, and by the TEB of the running thread in user mode', () => {
    const { cpus, how, left } = match(
      [0x7f_0000_1000n, 0n, 0x7f_0000_3000n],
      [cpuOf(0, 0x7f_0000_3000n, true), cpuOf(1, 0x7f_0000_1000n, true), cpuOf(2, KPCRS[1], false)],
    );
    expect(cpus).toEqual([1, 2, 0]);
    expect(how).toEqual([
      'by the TEB 0x0000007f00001000 of its thread',
      'by the KPCR 0xfffff80000003000',
      'by the TEB 0x0000007f00003000 of its thread',
    ]);
    expect(left).toBe(0);
  });

  it('believes no TEB that two of them have: processes can use the same address', () => {
    const teb = 0x7f_0000_1000n;
    expect(match([teb, teb, 0n], [cpuOf(0, teb, true)])).toMatchObject({ cpus: [undefined, undefined, undefined] });
    expect(match([teb, 0n, 0n], [cpuOf(0, teb, true), cpuOf(1, teb, true)])).toMatchObject({ left: 2 });
  });

  it('leaves the last one to the last CPU', () => {
    const { cpus, how } = match(
      [0x7f_0000_1000n, 0x7f_0000_2000n, 0n],
      [cpuOf(0, 0x7f_0000_9000n, true), cpuOf(1, KPCRS[0], false), cpuOf(2, KPCRS[2], false)],
    );
    expect([cpus, how[1]]).toEqual([[1, 0, 2], 'as the only one left, in user mode']);
  });

  it('leaves it to none where another CPU is left, whose KPCR is none of theirs', () => {
    const { cpus } = match(
      [0x7f_0000_1000n, 0x7f_0000_2000n, 0n],
      [
        cpuOf(0, 0x7f_0000_9000n, true),
        cpuOf(1, KPCRS[0], false),
        cpuOf(2, KPCRS[2], false),
        cpuOf(3, 0xfffff800_77777000n, false),
      ],
    );
    expect(cpus).toEqual([1, undefined, 2]);
  });
});

/** What a QEMU note says besides: the kernel's GS base, control registers, descriptor tables. */
function noteOf(cpu: CpuState, more: { kernelGsBase: bigint; cr3?: number; tables?: bigint; rsp?: bigint }): CpuState {
  const form = X64.cpuNotes.find(({ name }) => name === 'QEMU')!;
  const old = x64(cpu.registers!);
  const desc = Buffer.alloc(440);
  desc.writeUInt32LE(1, 0);
  desc.writeUInt32LE(440, 4);
  desc.writeBigUInt64LE(more.rsp ?? 0n, 0x38);
  desc.writeBigUInt64LE(old.rip, 0x88);
  desc.writeUInt32LE(old.cs.selector, 0x98);
  desc.writeBigUInt64LE(old.gs.base, 0xf8 + 0x10);
  for (const at of [0x158, 0x170]) desc.writeBigUInt64LE(more.tables ?? 0n, at + 0x10);
  desc.writeBigUInt64LE(0x8000_0001n, 0x188);
  desc.writeBigUInt64LE(BigInt(more.cr3 ?? 0), 0x1a0);
  desc.writeBigUInt64LE(0x20n, 0x1a8);
  desc.writeBigUInt64LE(more.kernelGsBase, 0x1b0);
  return { ...form.parse(desc, [])!, index: cpu.index, origin: 'test' };
}

describe('contradicting claims to a KPCR', () => {
  const none = [0n, 0n, 0n] as const;
  const claimants = ({ processors }: { processors: readonly Processor[] }) =>
    processors.map((p) => p.claimants?.map(({ index }) => index));
  const found = (cpus: readonly CpuState[], set?: (tables: PageTables) => void, fields: object = {}) => {
    const scene = processorsWith(none, set);
    matchProcessors(scene.processors, cpus, scene.space, { ...FIELDS, ...fields });
    return { processors: scene.processors, cpus: scene.processors.map((p) => p.cpu?.index) };
  };

  it('believes no address that a program can load: two hold each other’s KPCR in GS', () => {
    const { cpus } = found([
      noteOf(cpuOf(0, KPCRS[1], true), { kernelGsBase: KPCRS[0] }),
      noteOf(cpuOf(1, KPCRS[0], true), { kernelGsBase: KPCRS[1] }),
    ]);
    expect(cpus).toEqual([0, 1, undefined]);
    // Without the kernel's GS base nothing is known of them.
    expect(found([cpuOf(0, KPCRS[1], true), cpuOf(1, KPCRS[0], true)]).cpus).toEqual([undefined, undefined, undefined]);
  });

  it('leaves a processor that two CPUs claim without registers, and names both', () => {
    const scene = found([0, 1].map((index) => noteOf(cpuOf(index, 0n, true), { kernelGsBase: KPCRS[0] })));
    expect(scene.cpus).toEqual([undefined, undefined, undefined]);
    expect(claimants(scene)).toEqual([[0, 1], undefined, undefined]);
  });

  it('does not give a contested processor to the last CPU in user mode', () => {
    const rivals = [0, 1].map((index) => noteOf(cpuOf(index, 0n, true), { kernelGsBase: KPCRS[0] }));
    const others = [cpuOf(2, KPCRS[1], false), cpuOf(3, KPCRS[2], false), cpuOf(4, 0x7f_0000_0000n, true)];
    expect(found([...rivals, ...others]).cpus).toEqual([undefined, 2, 3]);
  });

  it.each([
    [
      'descriptor tables',
      { tables: 0xfffff900_00000000n },
      (tables: PageTables) => {
        tables.u64(KPCRS[0], 0xfffff900_00000000n);
        tables.u64(KPCRS[0] + 0x38n, 0xfffff900_00000000n);
      },
    ],
    [
      "the current thread's stack",
      { rsp: 0xfffff901_00000800n },
      (tables: PageTables) => {
        tables.u64(KPCRS[0] + 0x1000n + 0x30n, 0xfffff901_00000000n);
        tables.u64(KPCRS[0] + 0x1000n + 0x38n, 0xfffff901_00001000n);
      },
    ],
    [
      "the current process's page tables",
      { cr3: 0x5000 },
      (tables: PageTables) => {
        tables.u64(KPCRS[0] + 0x1000n + 0xb8n, KPCRS[0] + 0x1800n);
        tables.u64(KPCRS[0] + 0x1800n + 0x28n, 0x5000n);
      },
    ],
  ])('is decided by %s', (_, more, set) => {
    const fields = {
      OffsetKThreadStackLimit: 0x30,
      OffsetKThreadStackBase: 0x38,
      OffsetKThreadApcProcess: 0xb8,
      OffsetEprocessDirectoryTableBase: 0x28,
    };
    const rivals = [
      noteOf(cpuOf(0, KPCRS[0], false), { kernelGsBase: 0n }),
      noteOf(cpuOf(1, KPCRS[0], false), { kernelGsBase: 0n, ...more }),
    ];
    expect(found(rivals, set, fields).cpus).toEqual([1, undefined, undefined]);
  });

  it('believes no CPU that is on the stack of another processor, where its descriptor tables are unknown', () => {
    const stack = (number: number) => 0xfffff901_00000000n + BigInt(0x10000 * number);
    const fields = { OffsetKThreadStackLimit: 0x30, OffsetKThreadStackBase: 0x38 };
    const set = (tables: PageTables) => {
      KPCRS.forEach((kpcr, number) => {
        tables.u64(kpcr + 0x1000n + 0x30n, stack(number));
        tables.u64(kpcr + 0x1000n + 0x38n, stack(number) + 0x6000n);
      });
    };
    const on = (index: number, kpcr: number, at: bigint) => cpuOf(index, KPCRS[kpcr]!, false, at);
    const right = [on(0, 0, stack(0) + 8n), on(1, 1, stack(1) + 8n)];
    expect(found(right, set, fields).cpus).toEqual([0, 1, undefined]);
    const exchanged = [on(0, 1, stack(0) + 8n), on(1, 0, stack(1) + 8n)];
    expect(found(exchanged, set, fields).cpus).toEqual([undefined, undefined, undefined]);
    // The thread of one of them is not known.
    const half = [on(0, 1, stack(0) + 8n), on(1, 0, stack(1) + 8n)];
    const withoutThread = (tables: PageTables) => {
      set(tables);
      tables.u64(KPCRS[0] + 0x180n + BigInt(CURRENT_THREAD), 0n);
    };
    expect(found(half, withoutThread, fields).cpus).toEqual([undefined, undefined, undefined]);
    // On a stack for DPCs or interrupts, which is nobody's current thread's.
    const elsewhere = [on(0, 0, stack(7)), on(1, 1, stack(7) + 0x8000n)];
    expect(found(elsewhere, set, fields).cpus).toEqual([0, 1, undefined]);
  });

  it('believes no CPU that leads to a processor whose program another one runs', () => {
    const teb = 0x7f_0000_1000n;
    const running = cpuOf(0, teb, true);
    expect(match([teb, 0n, 0n], [running, cpuOf(1, KPCRS[1], false)]).cpus).toEqual([0, 1, undefined]);
    expect(match([teb, 0n, 0n], [running, cpuOf(1, KPCRS[0], false)])).toMatchObject({
      cpus: [undefined, undefined, undefined],
      left: 2,
    });
  });

  it('doubts a CPU whose GS base and descriptor tables are those of two processors', () => {
    const scene = found([noteOf(cpuOf(0, 0n, true), { kernelGsBase: KPCRS[0], tables: 0xfffff900_00000000n })], (t) => {
      t.u64(KPCRS[1] + 0x38n, 0xfffff900_00000000n);
    });
    expect(scene.cpus).toEqual([undefined, undefined, undefined]);
    expect(claimants(scene)).toEqual([[0], undefined, undefined]);
  });

  it('finds the own KPCR of a CPU in the kernel whose program had loaded another’s', () => {
    const scene = found(
      [noteOf(cpuOf(0, KPCRS[1], false), { kernelGsBase: KPCRS[0], tables: 0xfffff900_00000000n })],
      (t) => {
        t.u64(KPCRS[0] + 0x38n, 0xfffff900_00000000n);
      },
    );
    expect(scene.cpus).toEqual([0, undefined, undefined]);
  });
});

it('keeps a processor whose KPCR does not name itself only if a CPU runs it', () => {
  const { space, fields, image } = knownGuest({}, ({ kernel, truth }) =>
    kernel.u64(truth.processors[1]!.kpcr + 0x18n, 0x5a5an),
  );
  const found = findProcessors(space, fields);
  expect(found.processors.map(({ number, doubt }) => [number, doubt !== undefined])).toEqual([
    [0, false],
    [1, true],
  ]);
  const without = new AddressSpace(imageOf([{ start: 0, bytes: flat(image) }]), space.root, space.mode);
  const { processors, bad } = findProcessors(without, fields);
  expect([processors.map(({ number }) => number), bad.map(({ number }) => number)]).toEqual([[0], [1]]);
});

it('counts a PRCB once, and doubts one of another number', () => {
  const twice = knownGuest({}, ({ kernel, truth }) =>
    kernel.u64(truth.kdbgBlock.readBigUInt64LE(0x218) + 16n, truth.processors[0]!.prcb),
  );
  const numbers = findProcessors(twice.space, twice.fields).processors.map(({ number }) => number);
  expect(numbers).toEqual([0, 1]);
  const other = knownGuest({}, ({ kernel, truth, build }) =>
    kernel.u8(truth.processors[1]!.prcb + BigInt(build.prcbNumber), 5),
  );
  expect(findProcessors(other.space, other.fields).processors.map(({ doubt }) => doubt)).toEqual([
    undefined,
    'PRCB.Number is 5, but KiProcessorBlock has it at 1',
  ]);
});

it("takes what is no CONTEXT in a PRCB for no processor's frame", () => {
  const { space, fields } = knownGuest({ build: 'server2003' }, ({ kernel, truth }) =>
    kernel.write(truth.processors[1]!.context, Buffer.alloc(0x4d0, 0x77)),
  );
  const contexts = findProcessors(space, fields).processors.map(({ context }) => context);
  expect(contexts[0]).not.toBeInstanceOf(Reason);
  expect(`${contexts[1]}`).toMatch(/^no CONTEXT is at 0x\w+ in its PRCB, where the KDBG has one$/);
});

it("takes a PRCB's own frame where its pointer is missing, but not in a crash dump, whose writer has decided", async () => {
  const guest = buildArm64Guest({ withoutContext: [1] });
  const { image, space, kdbg } = await locateWindows(openSource(new BufferSource(writeArm64Elf(guest))));
  const second = () => {
    const { context, missingPointer } = findProcessors(space, kdbg.fields).processors[1]!;
    return [context, missingPointer !== undefined];
  };
  expect(second()).toEqual([guest.truth.processors[1]!.context, true]);
  Object.assign(image, { dumpHeader: image.machine.dumpHeader.decode(Buffer.alloc(image.machine.dumpHeader.size)) });
  expect(second()).toEqual([undefined, false]);
});

it('takes no CONTEXT frame from the start of a PRCB where the KDBG has no place for its pointer', () => {
  const { space, fields } = knownGuest({}, ({ kernel, truth: { processors, kernelBase } }) => {
    for (const { prcb } of processors) kernel.u64(prcb, kernelBase + 0x36000n);
  });
  const { processors } = findProcessors(space, { ...fields, OffsetPrcbContext: 0 });
  expect(processors.map(({ context }) => context instanceof Reason)).toEqual([true, true]);
});

describe('processors that KiProcessorBlock lost', () => {
  const found = (change: (guest: Guest, entry: (number: number) => bigint) => void) => {
    const { space, fields, truth } = knownGuest({ processors: 3 }, (guest) =>
      change(guest, (number) => guest.truth.kdbgBlock.readBigUInt64LE(0x218) + BigInt(8 * number)),
    );
    const { processors, bad } = findAllProcessors(space, fields);
    const table = truth.kdbgBlock.readBigUInt64LE(0x218);
    return {
      prcbs: processors.map(({ prcb }) => truth.processors.findIndex((p) => p.prcb === prcb)),
      mended: processors.flatMap(({ missingEntry }) =>
        missingEntry === undefined ? [] : [Number(missingEntry - table) / 8],
      ),
      bad: bad.map(({ number }) => number),
    };
  };

  it('are those whose KPCRs the CPUs have loaded, where another entry proves the block', () => {
    const all = found(({ kernel }, entry) => kernel.write(entry(1), Buffer.alloc(16, 0xa7)));
    expect(all).toEqual({ prcbs: [0, 1, 2], mended: [1, 2], bad: [] });
  });

  it.each([0, 0xa7])('stay lost where nothing proves that the block is there: all of it is 0x%x', (byte) => {
    expect(found(({ kernel }, entry) => kernel.write(entry(0), Buffer.alloc(24, byte)))).toMatchObject({
      prcbs: [],
      mended: [],
    });
  });

  it('stay lost where the entries that are left are not in their places', () => {
    const all = found(({ kernel, truth }, entry) => {
      kernel.u64(entry(0), truth.processors[1]!.prcb);
      kernel.u64(entry(1), 0n);
    });
    expect(all).toMatchObject({ prcbs: [1, 2], mended: [] });
  });

  it.each([
    ['its KPCR does not name itself', 0x18n],
    ['its KPCR names another PRCB', 0x20n],
  ])('stay lost where %s', (_, at) => {
    const all = found(({ kernel, truth }, entry) => {
      kernel.u64(entry(1), 0n);
      kernel.u64(truth.processors[1]!.kpcr + at, 0n);
    });
    expect(all).toEqual({ prcbs: [0, 2], mended: [], bad: [] });
  });

  it('stay lost where the KPCR is not of the tables that the CPU has loaded', () => {
    const all = found(({ kernel, truth }, entry) => {
      kernel.u64(entry(1), 0n);
      for (const at of [0n, 0x38n]) kernel.u64(truth.processors[1]!.kpcr + at, truth.processors[0]!.kpcr);
    });
    expect(all).toEqual({ prcbs: [0, 2], mended: [], bad: [] });
  });

  it.each([0, 2, 3, 0xff])('stay lost where the PRCB has the number %i, of another or of none', (number) => {
    const all = found(({ kernel, truth, build }, entry) => {
      kernel.u64(entry(1), 0n);
      kernel.u8(truth.processors[1]!.prcb + BigInt(build.prcbNumber), number);
    });
    expect(all).toEqual({ prcbs: [0, 2], mended: [], bad: [] });
  });

  it.each([
    ['are found by the stack', true, [0, 1]],
    ['stay lost where the CPU that leads to them is not on their stack', false, [0]],
  ])('%s, where no descriptor tables are known', async (_, isOn, numbers) => {
    const guest = buildArm64Guest({ processors: 2 });
    const { kernel, truth } = guest;
    kernel.u64(truth.kdbgBlock.readBigUInt64LE(0x218) + 8n, 0n);
    const cpus = guest.cpus.map((cpu, i) => ({
      ...cpu,
      sp: isOn || i !== truth.processors[1]!.cpu ? cpu.sp : cpu.sp + 0x100000n,
    }));
    const { processors } = await locateWindows(openSource(new BufferSource(writeArm64Elf({ ...guest, cpus }))));
    expect(processors.map(({ number }) => number)).toEqual(numbers);
  });

  it('stay lost where the PRCB has no thread', () => {
    const all = found(({ kernel, truth }, entry) => {
      kernel.u64(entry(1), 0n);
      kernel.u64(truth.processors[1]!.prcb + 8n, 0n);
    });
    expect(all).toEqual({ prcbs: [0, 2], mended: [], bad: [] });
  });

  it('are in the dump’s block', async () => {
    const guest = buildGuest({ processors: 3 });
    const table = guest.truth.kdbgBlock.readBigUInt64LE(0x218);
    guest.kernel.write(table, Buffer.alloc(16));
    const planned = planConversion(await locateWindows(openSource(new BufferSource(writeElf(guest)))));
    const set = planned.plan.patches.filter(({ what }) => what.includes('KiProcessorBlock'));
    expect(set.map(({ virtual, bytes }) => [virtual - table, bytes.readBigUInt64LE()])).toEqual(
      guest.truth.processors.slice(0, 2).map(({ number, prcb }) => [BigInt(8 * number), prcb]),
    );
    const codes = planned.diagnostics.map(({ code }) => code);
    expect(codes).toEqual(['processor-entry-mended', 'processor-entry-mended']);
  });
});
