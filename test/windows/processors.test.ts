// Which CPU state belongs to which processor, with PRCBs and threads in a few pages of memory.
import { describe, expect, it } from 'vitest';
import { pa, va } from '../../src/core/units.ts';
import { NT_PRSTATUS } from '../../src/formats/elf.ts';
import type { CpuState } from '../../src/machines/machine.ts';
import { X64 } from '../../src/machines/x64/index.ts';
import { PAGING_4_LEVELS } from '../../src/machines/x64/paging.ts';
import { AddressSpace } from '../../src/memory/address-space.ts';
import { matchProcessors, type Processor } from '../../src/windows/processors.ts';
import { PageTables, PhysicalMemory } from '../guest/memory.ts';
import { imageOf } from '../support/images.ts';

const KPCRS = [0xfffff800_00001000n, 0xfffff800_00003000n, 0xfffff800_00005000n] as const;
const CURRENT_THREAD = 8;
const TEB = 0xf0;
const FIELDS = { OffsetPrcbCurrentThread: CURRENT_THREAD, OffsetKThreadTeb: TEB };

/** Three processors, whose threads have these TEBs (0: a kernel thread). */
function processorsWith(tebs: readonly [bigint, bigint, bigint]) {
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
  const image = imageOf([{ start: 0, bytes: memory.flat(0, memory.bytes) }]);
  return { processors, space: new AddressSpace(image, pa(tables.root), PAGING_4_LEVELS) };
}

/** A CPU as an NT_PRSTATUS note has it. */
function cpuOf(index: number, gsBase: bigint, user: boolean): CpuState {
  const desc = Buffer.alloc(336);
  desc.writeBigUInt64LE(user ? 0x7ff6_00001000n : 0xfffff800_10001000n, 0xf0);
  desc.writeBigUInt64LE(user ? 0x33n : 0x10n, 0xf8);
  desc.writeBigUInt64LE(gsBase, 0x120);
  const form = X64.cpuNotes.find(({ name, type }) => name === 'CORE' && type === NT_PRSTATUS)!;
  return { index, ...form.parse(desc, [])!, origin: 'test' };
}

const match = (tebs: readonly [bigint, bigint, bigint], cpus: readonly CpuState[]) => {
  const { processors, space } = processorsWith(tebs);
  const left = matchProcessors(processors, cpus, space, FIELDS);
  return { cpus: processors.map((p) => p.cpu?.index), how: processors.map((p) => p.cpuBy), left: left.length };
};

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
});
