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

const KPCRS = [0xfffff800_00001000n, 0xfffff800_00004000n, 0xfffff800_00007000n] as const;
/** Where PRCBs of Windows 7 to 10 1709 have their own frame: ProcessorState at 0x40, the frame 0xe0 into it. */
const OWN_FRAME = 0x120;

/** Where frames are that Windows made elsewhere: at the same place of a page, as in a real dump. */
const POOL = 0xffff9b00_00000000n;
const FRAMES = [POOL + 0x340n, POOL + 0x3340n, POOL + 0x5340n] as const;
/** A thread and its stack. */
const THREAD = POOL + 0x8000n;
const STACK = { limit: POOL + 0xa000n, base: POOL + 0xc000n };
const MEMORY = 0x10000;

/** CONTEXT_AMD64 with all that a stopped processor saves. */
const USED = 0x10000f;

/** What is left of frames at these places. */
const framesAt = (...contexts: readonly bigint[]) => framesIn(contexts, () => undefined);

/** @param change the memory before it is looked at */
function framesIn(contexts: readonly bigint[], change: (memory: PageTables) => void): (bigint | string | undefined)[] {
  const memory = new PhysicalMemory(1 << 20, 1);
  const tables = new PageTables(memory);
  tables.mapNew(POOL, MEMORY);
  const processors = contexts.map((context, number): Processor => {
    const kpcr = KPCRS[number]!;
    tables.mapNew(kpcr, 0x2000);
    tables.u64(kpcr + 0x180n + 8n, THREAD);
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
  tables.u64(THREAD + 0x30n, STACK.limit);
  tables.u64(THREAD + 0x38n, STACK.base);
  change(tables);
  const image = imageOf([{ start: 0, bytes: memory.flat(0, memory.bytes) }]);
  const space = new AddressSpace(image, pa(tables.root), PAGING_4_LEVELS);
  const fields = { OffsetPrcbContext: 0x1000, OffsetPrcbProcStateContext: OWN_FRAME };
  const thread = {
    OffsetPrcbCurrentThread: 8,
    SizeEThread: 0x800,
    OffsetKThreadStackLimit: 0x30,
    OffsetKThreadStackBase: 0x38,
  };
  const kdbg = {
    address: va(0xfffff800_00010000n),
    size: 0x340,
    encoded: false,
    block: Buffer.alloc(0),
    fields: { ...fields, ...thread },
  };
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

  /** The flags that a PRCB keeps after the pointer, for new frames. */
  const keepFlags = (tables: PageTables, flags = 0x10004b) => {
    for (const kpcr of KPCRS.slice(0, 3)) if (tables.translate(kpcr)) tables.u32(kpcr + 0x1188n, flags);
  };

  it('are right where a CONTEXT is, and where the others have theirs and nothing was saved yet', () => {
    const used = (tables: PageTables) => {
      keepFlags(tables);
      for (const frame of FRAMES) tables.u32(frame + 0x30n, USED);
    };
    expect(framesIn(FRAMES, used)).toEqual(FRAMES);
    expect(framesIn(FRAMES, keepFlags)).toEqual(FRAMES);
  });

  it('are wrong where other bytes are, however little a pointer is off', () => {
    const fill = (tables: PageTables) => {
      keepFlags(tables);
      tables.write(FRAMES[0], Buffer.alloc(0x4d0, 0xa5));
      tables.u32(FRAMES[0] + 0x30n, USED);
      tables.u32(FRAMES[0] + 0x34n, 0x1f80);
    };
    for (const by of [0x10n, 0x20n, 0x30n, 0x40n, 0x100n]) {
      expect(framesIn([FRAMES[0] - by], fill)).toEqual([expect.stringContaining('looks like no CONTEXT')]);
      expect(framesIn([FRAMES[0] + by], fill)).toEqual([expect.stringContaining('looks like no CONTEXT')]);
    }
  });

  it('are wrong in zeros elsewhere than the others are, and with other flags after the pointer', () => {
    const [first, second] = FRAMES;
    const off = FRAMES[2] - 0x40n;
    expect(framesIn([first, second, off], keepFlags)).toEqual([
      first,
      second,
      expect.stringContaining('other processors have theirs at 0x340 of a page'),
    ]);
    expect(framesIn([first], (tables) => keepFlags(tables, 0x1234_5678))).toEqual([
      expect.stringContaining('the flags after the pointer, 0x12345678, are not those of a CONTEXT'),
    ]);
  });

  it('are wrong where two processors have the same, a thread is, or its stack', () => {
    const [first] = FRAMES;
    expect(framesIn([first, first + 0x80n], keepFlags)).toEqual([
      expect.stringContaining('the PRCB of processor 1 points to'),
      expect.stringContaining('the PRCB of processor 0 points to'),
    ]);
    expect(framesIn([THREAD + 0x40n], keepFlags)).toEqual([expect.stringContaining('the thread of processor 0 is')]);
    expect(framesIn([STACK.limit + 0x340n], keepFlags)).toEqual([
      expect.stringContaining('the stack of processor 0 is'),
    ]);
  });
});
