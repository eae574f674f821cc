/**
 * By how much the addresses in raw memory are off: a page-table root has an entry that names the root's own address,
 * and roots of several processes have it at the same index. Tools that skip pages put all after them too low.
 */
import { PAGE_SIZE, type PhysicalAddress, pa } from '../core/units.ts';
import type { MemoryImage } from '../memory/image.ts';

const BLOCK = 1024 * PAGE_SIZE;

/** Entries of a root, and those of its user half. */
const ENTRIES = 512;
const USER = ENTRIES / 2;

/** A root's kernel half is sparse, and so is a process's user half. */
const MAX_KERNEL_ENTRIES = 96;
const MAX_USER_ENTRIES = 48;

/** Present, writable, not large. */
const TABLE_ENTRY = 0x3;
const TABLE_ENTRY_MASK = 0x83;

/** Keys that are counted: hostile memory may have any number. */
const MAX_KEYS = 1 << 16;

/** A page that would be a root if its address were `shift` more than where it lies in the run. */
export interface ShiftedRoot {
  shift: number;
  /** The address that it has for itself. */
  root: PhysicalAddress;
}

interface Vote extends ShiftedRoot {
  count: number;
}

/**
 * What could be shifted roots: differences that several of them agree on come first.
 *
 * @param image one run, at whatever address: each byte counts as lying where it lies in the run
 */
export async function shiftedRoots(image: MemoryImage): Promise<ShiftedRoot[]> {
  const votes = new Map<string, Vote>();
  const buffer = Buffer.allocUnsafeSlow(BLOCK);
  for (const { start, size } of image.pageExtents().extents) {
    for (let at = 0; at < size; at += BLOCK) {
      const block = buffer.subarray(0, Math.min(BLOCK, size - at));
      await image.read(start + at, block);
      const words = new Uint32Array(block.buffer, block.byteOffset, block.length / 4);
      for (let page = 0; page < block.length; page += PAGE_SIZE) vote(words, page / 4, at + page, votes);
    }
  }
  return [...votes.values()].sort((a, b) => b.count - a.count);
}

function vote(words: Uint32Array, at: number, address: number, votes: Map<string, Vote>): void {
  let kernel = 0;
  for (let i = USER; i < ENTRIES; i++) {
    const low = words[at + 2 * i]!;
    if ((low & 1) === 0) continue;
    if (++kernel > MAX_KERNEL_ENTRIES || (low & TABLE_ENTRY_MASK) !== TABLE_ENTRY) return;
  }
  if (kernel < 2) return;
  let user = 0;
  for (let i = 0; i < USER; i++) if (words[at + 2 * i] !== 0 && ++user > MAX_USER_ENTRIES) return;
  for (let i = USER; i < ENTRIES; i++) {
    const low = words[at + 2 * i]!;
    if ((low & 1) === 0) continue;
    const named = (words[at + 2 * i + 1]! & 0xf_ffff) * 2 ** 32 + ((low & 0xffff_f000) >>> 0);
    const shift = named - address;
    const key = `${i} ${shift}`;
    const known = votes.get(key);
    if (known) known.count++;
    else if (votes.size < MAX_KEYS) votes.set(key, { shift, root: pa(named), count: 1 });
  }
}
