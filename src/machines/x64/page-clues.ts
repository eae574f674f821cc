/** What a page of physical memory shows of Windows on x64, for the search of dumps without useful CPU states. */
import { isKernelAddress } from '../../core/bits.ts';
import { MIB, pa, va } from '../../core/units.ts';
import type { PageClue } from '../machine.ts';

/** Windows puts the start block of its other processors into the first MiB. */
const LOW_MEMORY = MIB;
/** Of a page-table entry: present, writable, not large. */
const TABLE_ENTRY = 0x3;
const TABLE_ENTRY_MASK = 0x83;

export function* pageClues(block: Buffer, at: number, physical: number): Generator<PageClue> {
  if (physical < LOW_MEMORY) {
    const cr3 = startBlockCr3(block, at);
    if (cr3 !== undefined) yield { kind: 'root', root: pa(cr3), how: 'processor start block' };
  }
  const selfLow = block.readUInt32LE(at + 0x18);
  // Cheap test first: Self at +0x18 is a page's address, CurrentPrcb at +0x20 lies 0x180 above it.
  if ((selfLow & 0xfff) === 0 && block.readUInt32LE(at + 0x20) === (selfLow + 0x180) >>> 0) {
    const self = block.readBigUInt64LE(at + 0x18);
    const idtBase = block.readBigUInt64LE(at + 0x38);
    if (isKernelAddress(self) && block.readBigUInt64LE(at + 0x20) === self + 0x180n && isKernelAddress(idtBase)) {
      yield { kind: 'kpcr', virtual: va(self), idtBase: va(idtBase) };
    }
  }
  if (hasSelfMap(block, at, physical)) yield { kind: 'root', root: pa(physical), how: 'self-map' };
}

/**
 * CR3 in a PROCESSOR_START_BLOCK: a jump over its header and its completion flag in the first word, the
 * kernel's entry at +0x70, CR3 at +0xa0 (as public memory forensics tools look for it).
 */
function startBlockCr3(block: Buffer, at: number): number | undefined {
  if ((block.readBigUInt64LE(at) & 0xffff_ffff_ffff_00ffn) !== 0x0000_0001_0006_00e9n) return undefined;
  if ((block.readBigUInt64LE(at + 0x70) & 0xffff_f800_0000_0003n) !== 0xffff_f800_0000_0000n) return undefined;
  const cr3 = block.readBigUInt64LE(at + 0xa0);
  return (cr3 & 0xfff0_0000_0000_0fffn) === 0n && cr3 !== 0n ? Number(cr3) : undefined;
}

/** Whether an entry of the kernel's half of a table points back to the table. */
function hasSelfMap(block: Buffer, at: number, physical: number): boolean {
  const low = physical % 2 ** 32;
  const high = Math.floor(physical / 2 ** 32);
  for (let i = 256; i < 512; i++) {
    const entryLow = block.readUInt32LE(at + 8 * i);
    if ((entryLow & 0xffff_f000) >>> 0 !== low || (entryLow & TABLE_ENTRY_MASK) !== TABLE_ENTRY) continue;
    if ((block.readUInt32LE(at + 8 * i + 4) & 0xf_ffff) === high) return true;
  }
  return false;
}
