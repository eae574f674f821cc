// Holds the guests of true size to the facts that they are built from.
import { describe, expect, it } from 'vitest';
import { GENERATIONS, type GenerationName } from './generations.ts';
import { buildTrueGuest, type TrueGuest } from './true-guest.ts';

const u16 = (guest: TrueGuest, at: bigint) => guest.kernel.read(at, 2).readUInt16LE();
const u32 = (guest: TrueGuest, at: bigint) => guest.kernel.read(at, 4).readUInt32LE();
const u64 = (guest: TrueGuest, at: bigint) => guest.kernel.read(at, 8).readBigUInt64LE();

function ring(guest: TrueGuest, head: bigint): bigint[] {
  const entries: bigint[] = [];
  for (let at = u64(guest, head); at !== head; at = u64(guest, at)) {
    expect(u64(guest, u64(guest, at + 8n))).toBe(at);
    entries.push(at);
  }
  return entries;
}

describe('a guest of true size: 19041', () => {
  const guest = buildTrueGuest();
  const { kernelBase: base } = guest.truth;
  const nt = base + BigInt(u32(guest, base + 0x3cn));

  it('is the same each time', () => {
    const again = buildTrueGuest();
    expect([...again.pages.keys()]).toEqual([...guest.pages.keys()]);
    for (const [at, page] of guest.pages) expect(again.pages.get(at)!.equals(page)).toBe(true);
  });

  it('has 33 sections, 35,399 functions and a kernel of 0x1046000 bytes', () => {
    expect([u32(guest, base + 0x3cn), u16(guest, nt + 6n), u32(guest, nt + 0x50n)]).toEqual([0x110, 33, 0x1046000]);
    const [pdata, size] = [u32(guest, nt + 0xa0n), u32(guest, nt + 0xa4n)];
    expect(size / 12).toBe(35_399);
    const entry = base + BigInt(pdata);
    expect(u32(guest, entry + 12n)).toBeGreaterThanOrEqual(u32(guest, entry + 4n));
  });

  it('has holes where sections were discarded, in large pages that were split for them', () => {
    // GFIDS, INIT, INITDATA, .rsrc, .reloc; .text, PAGE and KVASCODE are there.
    for (const rva of [0x14e000, 0xa18000, 0xd32000, 0x1000000, 0x1040000]) {
      expect(guest.kernel.translate(base + BigInt(rva)), rva.toString(16)).toBeUndefined();
    }
    for (const rva of [0x134000, 0x200000, 0x5c6000, 0xa11000, 0xc00b20]) {
      expect(guest.kernel.translate(base + BigInt(rva)), rva.toString(16)).toBeDefined();
    }
    const physical = [0x200000n, 0x201000n].map((rva) => guest.kernel.translate(base + rva)!);
    expect(physical[1]).toBe(physical[0]! + 0x1000);
    // Frames of discarded parts have another use.
    const reused = [...guest.pages.keys()].filter((at) => at >= 0x600000 + 0xa18000 && at < 0x600000 + 0xaa4000);
    expect(reused.length).toBeGreaterThan(0);
  });

  it('has 155 modules at 64 KiB, the last four in session space only', () => {
    const entries = ring(guest, guest.truth.psLoadedModuleList);
    expect(entries.length).toBe(155);
    for (const entry of entries.slice(1)) expect(u64(guest, entry + 0x30n) % 0x10000n).toBe(0n);
    expect(guest.sessionModules.map((m) => m.name)).toEqual([
      'win32k.sys',
      'win32kbase.sys',
      'win32kfull.sys',
      'cdd.dll',
    ]);
    for (const m of guest.sessionModules) expect(guest.kernel.translate(m.base)).toBeUndefined();
  });

  it('has processors with a null KdVersionBlock, and frames elsewhere or inside the PRCB', () => {
    const inside = buildTrueGuest({ xsave: false });
    for (const [made, elsewhere] of [
      [guest, true],
      [inside, false],
    ] as const) {
      for (const p of made.truth.processors) {
        expect(u64(made, p.kpcr + 0x108n)).toBe(0n);
        expect(u64(made, p.prcb + 0x85c0n)).toBe(p.context);
        expect([p.context % 64n === 0n, p.context === p.prcb + 0x1f0n]).toEqual([elsewhere, !elsewhere]);
        expect(p.gdt).toBe(p.idt + 0x2fb0n);
      }
    }
  });

  it('has processes whose root is another page now', () => {
    const gone = guest.processes.filter((p) => p.gone);
    expect(gone.map((p) => p.gone)).toEqual(['secure system', 'outswapped', 'exited']);
    for (const p of gone) {
      expect(Number(u64(guest, p.address + 0x28n))).toBe(p.root);
      expect(guest.memory.read(p.root, 4).toString()).toBe('pool');
    }
    expect(ring(guest, guest.truth.psActiveProcessHead).map((link) => link - 0x448n)).toEqual(
      guest.processes.map((p) => p.address),
    );
  });
});

describe.each(Object.keys(GENERATIONS) as GenerationName[])('the page frame database of Windows %s', (generation) => {
  it('says of each page what it is', () => {
    const guest = buildTrueGuest({ generation, swizzleBit: 39 });
    const { stateAt, originalPteAt } = GENERATIONS[generation].pfn;
    const database = u64(guest, guest.truth.pfnDatabaseVariable);
    const entry = (physical: number) => guest.kernel.read(database + BigInt((physical / 0x1000) * 0x30), 0x30);
    const state = (physical: number) => entry(physical)[stateAt]! & 7;
    const { known } = guest;
    expect([guest.truth.root, known.activeUnmapped, known.standbyFile, known.modifiedPrivate].map(state)).toEqual([
      6, 6, 2, 3,
    ]);
    expect([known.zeroed, known.free].map(state)).toEqual([0, 1]);
    expect(entry(known.standbyFile).readBigUInt64LE(originalPteAt) & 0x400n).toBe(0x400n);
    expect(entry(known.standbyPrivate).readBigUInt64LE(originalPteAt) & 0x400n).toBe(0n);
    const resident = GENERATIONS[generation].residentPages;
    expect([state(known.largeFree), state(known.largeFree + 0x1000)]).toEqual([0, resident ? 5 : 0]);
    for (const page of guest.pages.keys()) {
      if (Object.values(known).includes(page) || page === known.transition.physical) continue;
      expect(state(page), page.toString(16)).toBe(6);
    }
  });
});
