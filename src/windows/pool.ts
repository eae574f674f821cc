/** Blocks of kernel pool, as far as memory proves them: a chain of headers that agree with each other. */
import { isKernelAddress } from '../core/bits.ts';
import { PAGE_SIZE } from '../core/units.ts';
import { PoolHeader32, PoolHeader64, SEGMENT_HEAP_BUILD } from '../formats/win-kernel.ts';
import { moduleOf } from './modules.ts';
import type { Windows } from './windows.ts';

/** Which pool memory is of. */
export type PoolKind = 'paged' | 'nonpaged';

/** A block of pool, with its header. */
export interface PoolBlock {
  /** Of its header. */
  address: bigint;
  /** Bytes, with the header. */
  size: number;
  /** Four characters; undefined where a free block has none that can be printed. */
  tag: string | undefined;
  isFree: boolean;
}

/** Pool at an address: its kind where that is known, and the block, which only small allocations have. */
export interface PoolPlace {
  kind: PoolKind | undefined;
  block: PoolBlock | undefined;
}

/** What pool is looked for in. */
export interface PoolScene extends Pick<Windows, 'space' | 'kernel' | 'kdbg'> {
  version: { build: number };
}

/** A header, decoded. Sizes in bytes. */
interface Header {
  offset: number;
  previousSize: number;
  size: number;
  type: number;
  tag: string | undefined;
}

/** So many blocks in a row have their sizes confirmed by what follows them, at least. */
const MIN_CONFIRMED = 2;

/** Windows Vista: a type of pool is stored as it is, before that plus 1 (Volatility's pool headers). */
const VISTA_BUILD = 6000;

/** Windows 8 keeps the pools' bounds elsewhere. */
const WINDOWS_8_BUILD = 9200;

/** Bit 7 of a tag's last character: the block may only be freed with its tag (PROTECTED_POOL). */
const PROTECTED = 0x80;

/**
 * Pool at an address; undefined where memory does not prove that there is some. Since Windows 10 1903 nothing does:
 * headers are not linked any more. Large allocations have no header; of paged ones the pool's bounds are known before Windows 8.
 */
export function poolAt(scene: PoolScene, address: bigint): PoolPlace | undefined {
  const { space, version } = scene;
  if (version.build >= SEGMENT_HEAP_BUILD || !isKernelAddress(address)) return undefined;
  const base = address - (address % BigInt(PAGE_SIZE));
  const page = space.read(base, PAGE_SIZE);
  if (!page) return undefined;
  const paged = pagedPool(scene);
  const isPaged = paged !== undefined && address >= paged.start && address < paged.end;
  const header = headerOf(page, space.image.machine.pointerSize, Number(address - base));
  if (!header) return isPaged ? { kind: 'paged', block: undefined } : undefined;
  const kind = kindOf(header.type, version.build);
  // Where the kernel's own bounds contradict a header, it may be a copy.
  if (kind === 'nonpaged' && isPaged) return undefined;
  const { offset, size, tag } = header;
  const block = { address: base + BigInt(offset), size, tag, isFree: header.type === 0 };
  return { kind: kind ?? (isPaged ? 'paged' : undefined), block };
}

/** undefined for a free block, whose header does not say it. */
function kindOf(type: number, build: number): PoolKind | undefined {
  if (type === 0) return undefined;
  const isOdd = type % 2 === 1;
  return isOdd === build >= VISTA_BUILD ? 'paged' : 'nonpaged';
}

/** The header of the block at an offset in a page, where it and those before it agree with what follows them. */
function headerOf(page: Buffer, pointerSize: 4 | 8, offset: number): Header | undefined {
  const headers: Header[] = [];
  let next = 0;
  for (let previousSize = 0; next < PAGE_SIZE; ) {
    const header = readHeader(page, pointerSize, next);
    if (!isSound(header) || header.previousSize !== previousSize) break;
    headers.push(header);
    previousSize = header.size;
    next += header.size;
  }
  // What is beyond the last one does not lead back to it.
  const confirmed = next === PAGE_SIZE ? headers : headers.slice(0, -1);
  if (confirmed.length < MIN_CONFIRMED) return undefined;
  return confirmed.find((header) => offset < header.offset + header.size);
}

function isSound({ offset, size, type, tag }: Header): boolean {
  return size > 0 && offset + size <= PAGE_SIZE && (type === 0 || tag !== undefined);
}

function readHeader(page: Buffer, pointerSize: 4 | 8, offset: number): Header {
  if (pointerSize === 8) {
    const { PreviousSize, BlockSize, PoolType, PoolTag } = PoolHeader64.read(page, offset);
    const unit = PoolHeader64.size;
    return { offset, previousSize: PreviousSize * unit, size: BlockSize * unit, type: PoolType, tag: tagOf(PoolTag) };
  }
  const { PreviousSizeAndIndex, BlockSizeAndType, PoolTag } = PoolHeader32.read(page, offset);
  const bytes = (word: number) => (word & 0x1ff) * PoolHeader32.size;
  return {
    offset,
    previousSize: bytes(PreviousSizeAndIndex),
    size: bytes(BlockSizeAndType),
    type: BlockSizeAndType >> 9,
    tag: tagOf(PoolTag),
  };
}

function tagOf(bytes: Buffer): string | undefined {
  const plain = Buffer.from(bytes);
  plain[3]! &= ~PROTECTED;
  const isPrintable = plain.every((byte) => byte >= 0x20 && byte < 0x7f) && plain.some((byte) => byte !== 0x20);
  return isPrintable ? plain.toString('latin1') : undefined;
}

/** The largest that Windows had before Windows 8. */
const MAX_POOL = 1n << 37n;

/** Where paged pool begins and ends, by the kernel's variables; undefined where they cannot be that. */
function pagedPool({ space, kernel, kdbg, version }: PoolScene): { start: bigint; end: bigint } | undefined {
  if (version.build >= WINDOWS_8_BUILD) return undefined;
  const keptIn = (variable: bigint | undefined): bigint | undefined => {
    const isKernels = variable !== undefined && moduleOf([kernel], variable) !== undefined;
    const value = isKernels ? space.readPointer(variable) : undefined;
    return value !== undefined && isKernelAddress(value) ? value : undefined;
  };
  const start = keptIn(kdbg.fields.MmPagedPoolStart);
  const last = keptIn(kdbg.fields.MmPagedPoolEnd);
  if (start === undefined || last === undefined || start % BigInt(PAGE_SIZE) !== 0n) return undefined;
  // Some kernels keep the last byte's address.
  const end = last % BigInt(PAGE_SIZE) === BigInt(PAGE_SIZE - 1) ? last + 1n : last;
  const holdsKernel = kernel.base >= start && kernel.base < end;
  return end > start && end - start <= MAX_POOL && !holdsKernel ? { start, end } : undefined;
}
