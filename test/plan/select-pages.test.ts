import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it, vi } from 'vitest';
import { Pulse } from '../../src/core/pulse.ts';
import { Reason } from '../../src/core/reason.ts';
import { MIB } from '../../src/core/units.ts';
import { HoleMap } from '../../src/files/holes.ts';
import { locateWindows } from '../../src/locate/locator.ts';
import { PageMap } from '../../src/memory/page-map.ts';
import { Mapped, walkTables } from '../../src/memory/table-walk.ts';
import { type PageCounts, type PageKind, selectPages } from '../../src/plan/select-pages.ts';
import { openImage, openSource } from '../../src/readers/registry.ts';
import { BufferSource } from '../../src/source/buffer.ts';
import { readPageStates } from '../../src/windows/page-states.ts';
import { findProcessRoots } from '../../src/windows/process-roots.ts';
import type { Windows } from '../../src/windows/windows.ts';
import { writeElf } from '../guest/elf.ts';
import { buildGuest, type Guest, type GuestOptions } from '../guest/guest.ts';
import { writeLargeGuest } from '../guest/large-guest.ts';
import { addMemoryManager, PFN_DATABASE } from '../guest/memory-manager.ts';

/** Locations of the database, by number. */
const STATES: (PageKind | undefined)[] = [
  'zeroed',
  'free',
  'standby',
  'modified',
  'modified',
  'bad',
  'otherInUse',
  'otherInUse',
];
const BY_TABLES: [number, PageKind][] = [
  [Mapped.kernelTable, 'kernelPageTables'],
  [Mapped.kernel, 'kernel'],
  [Mapped.kernelSoft, 'kernelInTransition'],
  [Mapped.userTable, 'userPageTables'],
  [Mapped.user, 'user'],
  [Mapped.userSoft, 'userInTransition'],
];
const MAPPED = Mapped.kernelTable | Mapped.userTable | Mapped.kernel | Mapped.user;

/** The slow way: each page by itself. */
async function pageByPage(windows: Windows, type: 'kernel' | 'active', ram: 'all' | 'windows') {
  const { image, space, kdbg, physicalMemory } = windows;
  const map = new PageMap(image);
  const { transition } = await walkTables(space, findProcessRoots(windows).roots, map);
  const isRam = (address: number) =>
    physicalMemory instanceof Reason ||
    physicalMemory.some(({ start, size }) => address >= start && address < start + size);
  const pages = map.extents.flatMap(({ start, size }) =>
    Array.from({ length: size / 0x1000 }, (_, i) => start + i * 0x1000),
  );
  const kernel = Mapped.kernelTable | Mapped.userTable | Mapped.kernel;
  const states = readPageStates(image, space, kdbg.fields.MmPfnDatabase, {
    mapped: pages.filter((at) => (map.bits[map.indexOf(at)]! & kernel) !== 0 && isRam(at)),
    transition: transition.filter((at) => (map.bits[map.indexOf(at)]! & MAPPED) === 0),
  });
  const kept: PageCounts = {};
  const leftOut: PageCounts = {};
  const addresses: number[] = [];
  for (const address of pages) {
    const bits = !isRam(address) && ram === 'windows' ? 0 : map.bits[map.indexOf(address)]!;
    const state = states instanceof Reason ? undefined : states.states.of(address);
    const byTables = BY_TABLES.find(([bit]) => (bits & bit) !== 0)?.[1];
    const kind = byTables ?? (isRam(address) ? (STATES[state?.location ?? -1] ?? 'unknown') : 'notRam');
    const keep = () => {
      if (type === 'kernel') return ['kernelPageTables', 'kernel', 'kernelInTransition'].includes(kind);
      if ((bits & MAPPED) !== 0) return true;
      if (states instanceof Reason) return !['unknown', 'standby', 'free', 'zeroed', 'notRam'].includes(kind);
      if (kind === 'notRam') return false;
      if (!state) return true;
      const of = STATES[state.location];
      return state.cached && (of === 'otherInUse' || (state.isPrivate && (of === 'standby' || of === 'modified')));
    };
    const keeps = keep();
    const side = keeps ? kept : leftOut;
    side[kind] = (side[kind] ?? 0) + 1;
    if (keeps) addresses.push(address);
  }
  return { kept, leftOut, addresses };
}

const GUESTS: Record<string, { options: GuestOptions; database?: 'none' | 'with holes' }> = {
  'Windows 7': { options: { build: 'win7', processors: 2, user: [1] } },
  'Windows 10': { options: { build: 'win10', processors: 2, ramMiB: 24 } },
  'a database with holes': { options: { build: 'win10' }, database: 'with holes' },
  'no database': { options: { build: 'win10' }, database: 'none' },
};

describe('the selection of pages', () => {
  it('can be interrupted', async () => {
    const guest = buildGuest({ ramMiB: 64 });
    const windows = await locateWindows(openSource(new BufferSource(writeElf(guest))));
    const beat = vi.spyOn(Pulse.prototype, 'beat');
    await walkTables(windows.space, findProcessRoots(windows).roots, new PageMap(windows.image));
    const walking = beat.mock.calls.length;
    await selectPages(windows, 'kernel', 'all');
    // 16,384 pages in few runs are gone through twice, besides the walk.
    expect(beat.mock.calls.length - 2 * walking).toBeGreaterThanOrEqual(2);
    beat.mockRestore();
  });
});

describe('damaged page tables', () => {
  /** Entries of the kernel's half from here on are used by no guest. */
  const SLOT = 300;
  const diagnosticsOf = async (change: (guest: Guest) => void) => {
    const guest = buildGuest({ ramMiB: 16 });
    change(guest);
    const windows = await locateWindows(openSource(new BufferSource(writeElf(guest))));
    const { diagnostics } = await selectPages(windows, 'kernel', 'all');
    return diagnostics.map(({ severity, code, message }) => `${severity} ${code}: ${message}`);
  };

  it('that are not in the input are warned of', async () => {
    const sound = await diagnosticsOf(() => undefined);
    const found = await diagnosticsOf(({ kernel }) => kernel.setTopEntry(SLOT, (1n << 40n) | 0x63n));
    expect(found.filter((text) => !sound.includes(text))).toEqual([
      'warning page-tables-missing: 1 page tables are not in the input: what they map was not found',
    ]);
  });

  it('that are more than pages are a loss', async () => {
    const found = await diagnosticsOf(({ kernel }) => {
      const { memory } = kernel;
      // Each entry of each leads to another, at every level.
      const tables = Array.from({ length: 2400 }, () => memory.allocate());
      tables.forEach((table, i) => {
        const bytes = memory.page(table);
        for (let at = 0; at < 512; at++)
          bytes.writeBigUInt64LE(BigInt(tables[(400 * i + at) % tables.length]!) | 0x63n, 8 * at);
      });
      for (let slot = 0; slot < 6; slot++) kernel.setTopEntry(SLOT + slot, BigInt(tables[slot]!) | 0x63n);
    });
    expect(found).toContainEqual(expect.stringMatching(/^loss page-tables-damaged: /));
  });
});

describe('pages are selected in runs as they are one by one', () => {
  it.each(Object.entries(GUESTS))('%s', async (_, { options, database }) => {
    const guest = buildGuest(options);
    addMemoryManager(guest);
    // A device's: in use, and not cached.
    const uncached = PFN_DATABASE + BigInt((guest.memory.allocate() / 0x1000) * 0x30);
    guest.kernel.u8(uncached + BigInt(guest.build.pageLocation), 0x16);
    const entry = (page: number) => guest.kernel.setEntry(PFN_DATABASE + BigInt(page * 0x1000), 0n);
    if (database === 'with holes') for (const page of [3, 7, 8, 9, 20]) entry(page);
    if (database === 'none') guest.kernel.u64(guest.truth.pfnDatabaseVariable, 0n);
    const bytes = writeElf(guest);
    const windows = await locateWindows(openSource(new BufferSource(bytes)));
    for (const type of ['kernel', 'active'] as const) {
      for (const ram of ['all', 'windows'] as const) {
        const { kept, leftOut, extents } = await selectPages(windows, type, ram);
        const addresses = extents.flatMap(({ start, size }) =>
          Array.from({ length: size / 0x1000 }, (_each, i) => start + i * 0x1000),
        );
        expect({ kept, leftOut, addresses }, `${type}, --ram ${ram}`).toEqual(await pageByPage(windows, type, ram));
      }
    }
  });

  it('a large guest, whose database lies in large pages', async () => {
    const dir = mkdtempSync(join(tmpdir(), 'elf2dmp-large-'));
    try {
      const path = join(dir, 'vm.elf');
      const highBytes = 256 * MIB;
      const pages = writeLargeGuest(path, { highBytes, processes: 3, kernelPages: 1500, pagesOfEach: 600 });
      const image = openImage(path);
      const windows = await locateWindows(image);
      for (const type of ['kernel', 'active'] as const) {
        const before = image.bytesRead;
        const { kept, leftOut, extents } = await selectPages(windows, type, 'all');
        // Most of the database is holes of the file, which are not read.
        const database = (highBytes / 0x1000) * 0x30;
        if (await HoleMap.open(image.stored!.fd)) expect(image.bytesRead - before).toBeLessThan(database / 2);
        const addresses = extents.flatMap(({ start, size }) =>
          Array.from({ length: size / 0x1000 }, (_each, i) => start + i * 0x1000),
        );
        expect({ kept, leftOut, addresses }, type).toEqual(await pageByPage(windows, type, 'all'));
        expect(kept.kernel).toBeGreaterThan(pages.kernel);
        expect((type === 'kernel' ? leftOut : kept).user).toBeGreaterThanOrEqual(pages.user);
      }
      image.close();
    } finally {
      rmSync(dir, { recursive: true });
    }
  });
});
