import { describe, expect, it } from 'vitest';
import { locateWindows } from '../../src/locate/locator.ts';
import { selfMapAt } from '../../src/windows/self-map.ts';
import { walkStack } from '../../src/windows/stacks.ts';
import { currentThreadStack, leadsTo, runsIdleThread } from '../../src/windows/thread-stack.ts';
import { GENERATIONS } from '../guest/generations.ts';
import { buildTrueGuest, type TrueGuest } from '../guest/true-guest.ts';
import { imageOf } from '../support/images.ts';
import { knownGuest } from '../support/known-guest.ts';

const PAGE = 0x1000;
const imageOfGuest = (guest: TrueGuest) => imageOf([{ start: 0, bytes: guest.memory.flat(0, guest.ramBytes) }]);

describe('a stack for DPCs or interrupts', () => {
  it('ends at its top, has the size of such stacks, and no gaps', () => {
    const STACK = 0xffffa58f_20000000n;
    const guest = knownGuest({}, ({ kernel }) => {
      kernel.mapNew(STACK, 0x20000);
      kernel.mapNew(STACK + 0x21000n, PAGE);
    });
    const leads = (from: bigint, to: bigint) => leadsTo(guest.space, STACK + from, STACK + to);
    expect(leads(0x10ff8n, 0x12000n)).toBe(true);
    expect(leads(0x12000n, 0x12000n)).toBe(true);
    expect(leads(0x12008n, 0x12000n)).toBe(false);
    expect(leads(0x2000n, 0x14000n)).toBe(true);
    expect(leads(0x1ff8n, 0x14000n)).toBe(false);
    expect(leads(0x1f000n, 0x22000n)).toBeUndefined();
  });
});

describe('the stack of the thread that a processor runs', () => {
  it.each(['8.1', '1607', '2004', '11 24H2'] as const)('has the bounds of %s', async (generation) => {
    const guest = buildTrueGuest({ generation });
    const { space, kdbg, processors } = await locateWindows(imageOfGuest(guest));
    const bounds = processors.map(({ prcb }) => currentThreadStack(space, kdbg.fields, prcb));
    const tops = guest.truth.processors.map(({ cpu }) => {
      const { rsp } = guest.cpus[cpu]!.regs;
      return (rsp & ~0xfffn) + BigInt(PAGE);
    });
    expect(bounds).toEqual(tops.map((base) => ({ limit: base - BigInt(6 * PAGE), base })));
  });

  it('has none where the KDBG does not tell the offsets, or the thread is damaged', async () => {
    const old = buildTrueGuest({ generation: '7' });
    const found = await locateWindows(imageOfGuest(old));
    expect(currentThreadStack(found.space, found.kdbg.fields, found.processors[0]!.prcb)).toBeUndefined();
    const guest = buildTrueGuest();
    const { prcb } = guest.truth.processors[0]!;
    const thread = guest.kernel.read(prcb + 8n, 8).readBigUInt64LE();
    guest.kernel.u64(thread + BigInt(GENERATIONS['2004'].kthread.stackLimit), 0xffff8000_00000000n);
    const { space, kdbg } = await locateWindows(imageOfGuest(guest));
    expect(currentThreadStack(space, kdbg.fields, prcb)).toBeUndefined();
  });

  it("is where the search for return addresses ends, not in the next thread's", async () => {
    const guest = buildTrueGuest();
    const { prcb, cpu } = guest.truth.processors[0]!;
    const { rsp } = guest.cpus[cpu]!.regs;
    const base = (rsp & ~0xfffn) + BigInt(PAGE);
    // Nothing on the stack looks like a return address; the page behind it does, in the kernel.
    guest.kernel.write(rsp, Buffer.alloc(Number(base - rsp)));
    guest.kernel.mapNew(base, PAGE);
    guest.kernel.u64(base + 0x40n, guest.truth.processors[0]!.returns[0]!);
    const windows = await locateWindows(imageOfGuest(guest));
    const [processor] = windows.processors;
    const context = Buffer.alloc(0x4d0);
    context.writeUInt32LE(0x100007, 0x30);
    context.writeUInt16LE(0x10, 0x38);
    context.writeBigUInt64LE(rsp, 0x98);
    // In no module, so that the stack has to be searched.
    context.writeBigUInt64LE(0xfffff8ff_00001000n, 0xf8);
    expect(processor?.prcb).toBe(prcb);
    expect(walkStack(windows, processor!, context).frames.length).toBe(1);
    // It would have been found: without bounds it is.
    const { OffsetKThreadStackBase: _, ...fields } = windows.kdbg.fields;
    const unbounded = { ...windows, kdbg: { ...windows.kdbg, fields } };
    expect(walkStack(unbounded, processor!, context).frames[1]?.how).toBe('guess');
  });
});

describe('PteBase of the KDBG', () => {
  it('confirms the root', async () => {
    const guest = buildTrueGuest();
    const windows = await locateWindows(imageOfGuest(guest));
    const slot = GENERATIONS['2004'].selfMapSlot;
    expect(selfMapAt(windows.space, windows.kdbg.fields.PteBase)).toEqual({ index: slot, leadsBack: true });
    expect(windows.evidence).toContainEqual(
      expect.objectContaining({
        accepted: true,
        method: expect.stringContaining('PteBase'),
        detail: expect.stringContaining(`entry ${slot} of the root`),
      }),
    );
  });

  it('contradicts another, and says nothing where it is none', async () => {
    const { space, kdbg } = await locateWindows(imageOfGuest(buildTrueGuest()));
    const next = (kdbg.fields.PteBase ?? 0n) + (1n << 39n);
    expect(selfMapAt(space, next)).toMatchObject({ leadsBack: false });
    for (const value of [undefined, 0n, 0x1234n, next + 0x1000n]) expect(selfMapAt(space, value)).toBeUndefined();
  });
});

describe('whether a processor runs its idle thread', () => {
  it('is so where current and idle thread are one, and unknown without either', async () => {
    const guest = buildTrueGuest();
    const { space, kdbg } = await locateWindows(imageOfGuest(guest));
    const { prcb } = guest.truth.processors[0]!;
    const runs = (fields = kdbg.fields) => runsIdleThread(space, fields, prcb);
    const current = guest.kernel.read(prcb + 8n, 8).readBigUInt64LE();
    const { OffsetPrcbCurrentThread: _, ...none } = kdbg.fields;
    expect(runs(none)).toBeUndefined();
    const cases = [current, current + 0x1000n, 0n].map(async (idle) => {
      const other = buildTrueGuest();
      other.kernel.u64(prcb + 0x18n, idle);
      const found = await locateWindows(imageOfGuest(other));
      return runsIdleThread(found.space, found.kdbg.fields, prcb);
    });
    expect(await Promise.all(cases)).toEqual([true, false, undefined]);
  });
});
