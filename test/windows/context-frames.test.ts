// Which CONTEXT frames may be written to, with PRCBs in a few pages of memory.
import { describe, expect, it } from 'vitest';
import { Reason } from '../../src/core/reason.ts';
import { pa, va } from '../../src/core/units.ts';
import { PAGING_4_LEVELS } from '../../src/machines/x64/paging.ts';
import { AddressSpace } from '../../src/memory/address-space.ts';
import { dropDoubtfulFrames } from '../../src/windows/context-frames.ts';
import type { Processor } from '../../src/windows/processors.ts';
import { PageTables, PhysicalMemory } from '../guest/memory.ts';
import { imageOf } from '../support/images.ts';

const KPCRS = [0xfffff800_00001000n, 0xfffff800_00004000n] as const;
/** Where PRCBs of Windows 7 to 10 1709 have their own frame: ProcessorState at 0x40, the frame 0xe0 into it. */
const OWN_FRAME = 0x120;

/** What is left of frames at these places. */
function framesAt(...contexts: readonly bigint[]): (bigint | string | undefined)[] {
  const memory = new PhysicalMemory(1 << 20, 1);
  const tables = new PageTables(memory);
  const processors = contexts.map((context, number): Processor => {
    const kpcr = KPCRS[number]!;
    tables.mapNew(kpcr, 0x2000);
    return {
      number,
      prcb: va(kpcr + 0x180n),
      kpcr: va(kpcr),
      context: va(context),
      specialRegisters: undefined,
      doubt: undefined,
      cpu: undefined,
      cpuBy: undefined,
    };
  });
  const image = imageOf([{ start: 0, bytes: memory.flat(0, memory.bytes) }]);
  const space = new AddressSpace(image, pa(tables.root), PAGING_4_LEVELS);
  const fields = { OffsetPrcbContext: 0x1000, OffsetPrcbProcStateContext: OWN_FRAME };
  const kdbg = { address: va(0xfffff800_00010000n), size: 0x340, encoded: false, block: Buffer.alloc(0), fields };
  dropDoubtfulFrames({ space, kdbg, processors, modules: [] });
  return processors.map(({ context }) => (context instanceof Reason ? context.text : context));
}

describe('frames', () => {
  it('are right where the KDBG says that the PRCB has its own, as on CPUs without XSAVE', () => {
    const own = KPCRS.map((kpcr) => kpcr + 0x180n + BigInt(OWN_FRAME));
    expect(framesAt(...own)).toEqual(own);
  });

  it("are wrong elsewhere in a KPCR, and in another processor's PRCB", () => {
    const [first] = KPCRS;
    expect(framesAt(first + 0x180n + 0x60n)).toEqual([expect.stringContaining('the KPCR of processor 0 is there')]);
    const others = first + 0x180n + BigInt(OWN_FRAME);
    expect(framesAt(others, others)).toEqual([others, expect.stringContaining('the KPCR of processor 0 is there')]);
  });
});
