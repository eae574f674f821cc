/**
 * KDDEBUGGER_DATA64, plain or encoded, found in the kernel image without symbols.
 *
 * Windows 8 and later keep the block encoded: `dec = bswap(rol(enc ^ W, W & 63) ^ E) ^ A` for each
 * 64-bit word, with two random words W (KiWaitNever) and A (KiWaitAlways) and the address E of
 * KdpDataBlockEncoded. Symbols would tell where these are; but they cancel pairwise:
 * `dec[a] ^ dec[b] = bswap(rol(enc[a] ^ enc[b], s))` with `s = W & 63`. Word 2 of the block is the
 * tag with the size above it and word 3 is KernBase, which is known: so but for the size, and for each of
 * 64 s, the xor of two neighbouring words is known, and the block shows itself in one pass.
 */

import { bswap32, bswap64, isKernelAddress, rol64, widened } from '../core/bits.ts';
import { because, Reason } from '../core/reason.ts';
import { hex, hex64, MIB, PAGE_SIZE, type VirtualAddress, va } from '../core/units.ts';
import { KDBG_MAX_SIZE, KDBG_MIN_SIZE, KDBG_TAG, KdVersion, readKdVersion } from '../formats/win-kernel.ts';
import type { AddressSpace } from '../memory/address-space.ts';
import type { Evidence } from '../windows/evidence.ts';
import { debuggerFields, type Kdbg } from '../windows/kdbg.ts';
import type { KernelImage } from '../windows/kernel-image.ts';
import { firstModule } from '../windows/modules.ts';
import { writableRanges } from '../windows/pe-image.ts';
import { findProcessors, loadedKpcrs } from '../windows/processors.ts';
import { selfMapAt } from '../windows/self-map.ts';

/** Names this step in evidence. */
export const KDBG_STEP = 'KDBG';

/** A place that looks like a block, before anything in it is believed. */
export interface KdbgCandidate {
  /** Byte offset in the buffer that was searched. */
  offset: number;
  size: number;
  /** Rotation of the encoding; undefined for a plain block. */
  rotation: number | undefined;
}

const TAG_WORD = 2;
const KERNBASE_WORD = 3;

/**
 * 16-bit values of which an encoded block's words 2 and 3, xored, have one at least in one of their four aligned
 * places. Rotated by `s`, the upper half is known: tag and lower half of KernBase, byte-swapped. Wherever it lies among
 * the 64 bits, it covers such a place: one of 16 values, by how far it is from the place's border.
 */
function pairFilter(known: number): Uint8Array {
  const filter = new Uint8Array(0x1_0000);
  for (let from = 0; from < 16; from++) filter[(known >>> (16 - from)) & 0xffff] = 1;
  return filter;
}

/** What is passed over at once where it is zeros, with the word behind it. */
const ZERO_WORDS = 128;
const ZEROS = Buffer.alloc(4 * (ZERO_WORDS + 2));

const beginsWithZeros = (buffer: Buffer): boolean =>
  buffer.length > ZEROS.length && buffer.compare(ZEROS, 0, ZEROS.length, 0, ZEROS.length) === 0;

/** Searches buffers for blocks of one kernel. */
export class KdbgSearch {
  /** The upper half of a rotated pair, and what the lower one is but for the size: words 2 and 3 in plain, xored. */
  readonly #known: number;
  readonly #baseHigh: number;
  readonly #filter: Uint8Array;

  constructor(kernBase: bigint) {
    this.#known = bswap32((KDBG_TAG ^ Number(kernBase & 0xffff_ffffn)) >>> 0);
    this.#baseHigh = Number((kernBase >> 32n) & 0xffff_ffffn);
    this.#filter = pairFilter(this.#known);
  }

  /** All candidates in a buffer that begins at an 8-byte boundary. */
  search(buffer: Buffer): KdbgCandidate[] {
    const found: KdbgCandidate[] = [];
    const words = new Uint32Array(buffer.buffer, buffer.byteOffset, Math.floor(buffer.length / 8) * 2);
    const filter = this.#filter;
    const first = 2 * TAG_WORD;
    for (let i = first; i + 3 < words.length && found.length <= MAX_CANDIDATES; i += 2) {
      const thisLow = words[i]!;
      // Much of a kernel's data is zeros, which begin no block.
      if (thisLow === 0 && (i - first) % ZERO_WORDS === 0 && beginsWithZeros(buffer.subarray(4 * i))) {
        i += ZERO_WORDS - 2;
        continue;
      }
      if (thisLow === KDBG_TAG) {
        const size = words[i + 1]!;
        if (plausibleSize(size)) found.push({ offset: (i - 2 * TAG_WORD) * 4, size, rotation: undefined });
        continue;
      }
      const low = (thisLow ^ words[i + 2]!) >>> 0;
      const high = (words[i + 1]! ^ words[i + 3]!) >>> 0;
      const isPossible = filter[low & 0xffff]! | filter[low >>> 16]! | filter[high & 0xffff]! | filter[high >>> 16]!;
      if (isPossible === 0) continue;
      for (const { size, rotation } of this.#rotations(high, low)) {
        found.push({ offset: (i - 2 * TAG_WORD) * 4, size, rotation });
      }
    }
    return found;
  }

  /** The rotations by which a pair is that of a block. */
  *#rotations(high: number, low: number): Generator<{ size: number; rotation: number }> {
    for (let rotation = 0; rotation < 64; rotation++) {
      if (upperRotated(high, low, rotation) !== this.#known) continue;
      const size = (bswap32(upperRotated(low, high, rotation)) ^ this.#baseHigh) >>> 0;
      if (plausibleSize(size)) yield { size, rotation };
    }
  }
}

/** A candidate whose kernel base came out of the block itself. */
export interface BaselessCandidate extends KdbgCandidate {
  kernBase: bigint;
}

/**
 * As `KdbgSearch`, for a kernel whose base is unknown but not far: KernBase is page aligned and at most
 * `reach` below `address`, which gives all of its bits that do not mix with the size. Slower: it tries every
 * rotation on every word.
 */
export function searchWithoutBase(
  buffer: Buffer,
  address: bigint,
  reach: number,
  pointerSize: 4 | 8,
): BaselessCandidate[] {
  const found: BaselessCandidate[] = [];
  const words = new Uint32Array(buffer.buffer, buffer.byteOffset, Math.floor(buffer.length / 8) * 2);
  const highs = [...new Set([address, address - BigInt(reach)].map((a) => Number(a >> 32n)))];
  const tagPage = KDBG_TAG & 0xfff;
  const take = (i: number, size: number, kernBase: bigint, rotation: number | undefined) => {
    const distance = address - kernBase;
    if (found.length < MAX_CANDIDATES && plausibleSize(size) && distance >= 0n && distance < BigInt(reach)) {
      found.push({ offset: (i - 2 * TAG_WORD) * 4, size, rotation, kernBase });
    }
  };
  for (let i = 2 * TAG_WORD; i + 3 < words.length; i += 2) {
    if (words[i] === KDBG_TAG) {
      const kernBase = (BigInt(words[i + 3]!) << 32n) | BigInt(words[i + 2]!);
      take(i, words[i + 1]!, widened(kernBase, pointerSize), undefined);
      continue;
    }
    const low = (words[i]! ^ words[i + 2]!) >>> 0;
    const high = (words[i + 1]! ^ words[i + 3]!) >>> 0;
    if (low === 0 && high === 0) continue;
    for (let rotation = 0; rotation < 64; rotation++) {
      // Byte-swapped, the upper half is the plain word's lower one.
      const upper = upperRotated(high, low, rotation);
      if (upper >>> 24 !== (tagPage & 0xff)) continue;
      const plainLow = bswap32(upper);
      if ((plainLow & 0xfff) !== tagPage) continue;
      const plainHigh = bswap32(upperRotated(low, high, rotation));
      for (const baseHigh of highs) {
        const kernBase = (BigInt(baseHigh) << 32n) | BigInt((plainLow ^ KDBG_TAG) >>> 0);
        take(i, (plainHigh ^ baseHigh) >>> 0, kernBase, rotation);
      }
    }
  }
  return found;
}

/** The upper half of rol64; with the halves exchanged, the lower one. */
function upperRotated(high: number, low: number, rotation: number): number {
  const [h, l] = rotation < 32 ? [high, low] : [low, high];
  const n = rotation & 31;
  return n === 0 ? h : ((h << n) | (l >>> (32 - n))) >>> 0;
}

const plausibleSize = (size: number) => size >= KDBG_MIN_SIZE && size <= KDBG_MAX_SIZE && size % 8 === 0;

/** Decodes a block relative to its word 3, whose plain value is the kernel's base. */
export function decodeBlock(encoded: Buffer, kernBase: bigint, rotation: number): Buffer {
  const anchor = encoded.readBigUInt64LE(8 * KERNBASE_WORD);
  const decoded = Buffer.alloc(encoded.length);
  for (let at = 0; at + 8 <= encoded.length; at += 8) {
    const word = kernBase ^ bswap64(rol64(encoded.readBigUInt64LE(at) ^ anchor, rotation));
    decoded.writeBigUInt64LE(word, at);
  }
  return decoded;
}

/** Places looked at: a kernel has a dozen, hostile memory any number. */
const MAX_CANDIDATES = 1024;

/** Image bytes searched at a time. */
const CHUNK = MIB / 4;

/** What a search of parts of an image came to. */
interface Ranking {
  /** Best first. */
  blocks: { kdbg: Kdbg; verdict: Verdict }[];
  refused: { method: string; detail: string }[];
  /** Places that looked like a block, and bytes that were present. */
  seen: number;
  present: number;
}

/**
 * Finds the block of `kernel`. Stale copies and decoys lose: the one whose pointers hold up wins. It is data of the
 * kernel's: what else the image holds, most of it code, is read only where no block there is beyond doubt.
 */
export function findKdbg(space: AddressSpace, kernel: KernelImage, evidence: Evidence): Kdbg | undefined {
  const search = new KdbgSearch(kernel.base);
  const inData = rank(space, kernel, search, writableRanges(space, kernel));
  const { blocks, refused, seen, present } = isBeyondDoubt(inData)
    ? inData
    : rank(space, kernel, search, [{ rva: 0, size: kernel.size }]);
  for (const { method, detail } of refused) evidence.reject(KDBG_STEP, method, detail);
  const [best, second] = blocks;
  if (!best) {
    evidence.reject(
      KDBG_STEP,
      'search of the kernel image',
      `${seen} places looked like a block, but none of them is one (${hex(present)} of ${hex(kernel.size)} bytes are present)`,
    );
    return undefined;
  }
  const { kdbg, verdict } = best;
  const equals = blocks.filter((block) => block.verdict.score === verdict.score);
  if (equals.length > 1) {
    space.image.diagnostics.add(
      'loss',
      'kdbg-ambiguous',
      `the KDBG can be at ${equals.map((block) => hex64(block.kdbg.address)).join(' or ')}, and nothing decides between them: the first was used`,
      { virtual: hex64(kdbg.address) },
    );
  }
  const rival = second
    ? `; the next best, at ${hex64(second.kdbg.address)}, has only ${second.verdict.reasons.join(', ') || 'its tag'}`
    : '';
  evidence.accept(KDBG_STEP, describeBlock(kdbg), `${verdict.reasons.join(', ')}${rival}`);
  return kdbg;
}

function isBeyondDoubt({ blocks: [best, second] }: Ranking): boolean {
  return best?.verdict.doubtless === true && (second === undefined || second.verdict.score < best.verdict.score);
}

const describeBlock = ({ address, size, encoded }: Pick<Kdbg, 'address' | 'size' | 'encoded'>): string =>
  `${encoded ? 'encoded' : 'plain'} block of ${hex(size)} bytes at ${hex64(address)}`;

/** Looks at all that could be a block in parts of a kernel's image. */
function rank(
  space: AddressSpace,
  kernel: KernelImage,
  search: KdbgSearch,
  ranges: readonly { rva: number; size: number }[],
): Ranking {
  const ranking: Ranking = { blocks: [], refused: [], seen: 0, present: 0 };
  const seen = new Set<bigint>();
  const take = (address: VirtualAddress, { size, rotation }: KdbgCandidate) => {
    seen.add(address);
    const place = { address, size, encoded: rotation !== undefined };
    const bytes = space.read(address, size);
    const block = bytes && rotation !== undefined ? decodeBlock(bytes, kernel.base, rotation) : bytes;
    const kdbg = block && { ...place, block, fields: debuggerFields(block, size, space.image.machine) };
    const verdict = kdbg ? examine(space, kernel, kdbg) : because('part of it is not present');
    if (kdbg && !(verdict instanceof Reason)) ranking.blocks.push({ kdbg, verdict });
    else ranking.refused.push({ method: describeBlock(place), detail: String(verdict) });
  };
  for (const { rva, size } of ranges) {
    forEachPresentChunk(space, { base: kernel.base + BigInt(rva), size }, (buffer, address) => {
      ranking.present += buffer.length;
      for (const candidate of search.search(buffer)) {
        const at = va(address + BigInt(candidate.offset));
        if (seen.size < MAX_CANDIDATES && !seen.has(at)) take(at, candidate);
      }
    });
  }
  ranking.seen = seen.size;
  ranking.blocks.sort((a, b) => b.verdict.score - a.verdict.score);
  return ranking;
}

/** A block that something other than a search of the image led to, held to the same rules. */
export function checkKdbg(
  space: AddressSpace,
  kernel: KernelImage,
  { kdbg, method }: { kdbg: Kdbg | Reason; method: string },
  evidence: Evidence,
): Kdbg | undefined {
  const verdict = kdbg instanceof Reason ? kdbg : examine(space, kernel, kdbg);
  if (kdbg instanceof Reason || verdict instanceof Reason) {
    evidence.reject(KDBG_STEP, method, String(verdict));
    return undefined;
  }
  evidence.accept(KDBG_STEP, method, verdict.reasons.join(', '));
  return kdbg;
}

/**
 * Calls back with each present part of a range, in chunks that overlap by the largest block. A page that is missing
 * hides only itself, whatever the size of the page that maps it. The buffer is used again.
 */
export function forEachPresentChunk(
  space: AddressSpace,
  kernel: { base: bigint; size: number },
  take: (buffer: Buffer, address: bigint) => void,
) {
  const room = Buffer.allocUnsafeSlow(Math.min(CHUNK + KDBG_MAX_SIZE, kernel.size));
  for (let at = 0; at < kernel.size; at += CHUNK) {
    const length = Math.min(CHUNK + KDBG_MAX_SIZE, kernel.size - at);
    const start = kernel.base + BigInt(at);
    let offset = -1;
    let end = -1;
    const flush = () => {
      if (offset < 0) return;
      const buffer = room.subarray(0, end - offset);
      readPages(space, start + BigInt(offset), buffer);
      take(buffer, start + BigInt(offset));
    };
    for (const part of presentParts(space, start, length)) {
      if (part.offset !== end) {
        flush();
        offset = part.offset;
      }
      end = part.offset + part.length;
    }
    flush();
  }
}

/** The parts of a virtual range that are mapped and present. */
function* presentParts(space: AddressSpace, virtual: bigint, length: number) {
  for (const piece of space.pieces(virtual, length)) {
    if (piece.physical === undefined) continue;
    for (const { start, size } of space.image.presentParts(piece.physical, piece.length)) {
      yield { offset: piece.offset + start - piece.physical, length: size };
    }
  }
}

/** Pages that lie one behind the other in physical memory too are read at once; damaged ones become zeros. */
function readPages(space: AddressSpace, address: bigint, target: Buffer) {
  let [physical, from, to] = [0, 0, 0];
  const flush = () => {
    if (space.image.readSync(physical, target.subarray(from, to))) return;
    for (let at = from; at < to; at += PAGE_SIZE) {
      const page = target.subarray(at, Math.min(to, at + PAGE_SIZE));
      if (!space.image.readSync(physical + at - from, page)) page.fill(0);
    }
  };
  for (const piece of space.pieces(address, target.length)) {
    if (piece.physical === undefined) continue;
    if (piece.offset === to && piece.physical === physical + to - from) to += piece.length;
    else {
      flush();
      [physical, from, to] = [piece.physical, piece.offset, piece.offset + piece.length];
    }
  }
  flush();
}

/** What speaks for a block. */
interface Verdict {
  score: number;
  reasons: string[];
  /** All that it names is there, and no list of blocks leads elsewhere. */
  doubtless: boolean;
}

/** Whether what a block says of the kernel is so: a reason against it, or what speaks for it. */
function examine(space: AddressSpace, kernel: KernelImage, kdbg: Kdbg): Reason | Verdict {
  const { fields } = kdbg;
  if (fields.KernBase !== kernel.base)
    return because(`KernBase is ${hex64(fields.KernBase ?? 0n)}, not the kernel's ${hex64(kernel.base)}`);
  const reasons = ['KernBase is right'];
  let score = 1;
  const head = fields.PsLoadedModuleList;
  if (head !== undefined && firstLinkedEntry(space, head) !== undefined) {
    score += 2;
    reasons.push('PsLoadedModuleList links back');
    if (firstModule(space, head)?.base === kernel.base) {
      score += 2;
      reasons.push('its first module is the kernel');
    }
  }
  if (firstLinkedEntry(space, fields.PsActiveProcessHead) !== undefined) {
    score += 2;
    reasons.push('PsActiveProcessHead links back');
  }
  const { processors } = findProcessors(space, fields);
  if (processors.length > 0) {
    score += 3;
    reasons.push(`${processors.length} PRCB${processors.length === 1 ? '' : 's'} that name themselves`);
  }
  if (score === 1) return because('KernBase is right, but no list links back and no PRCB names itself: a stale copy');
  const selfMap = selfMapAt(space, fields.PteBase);
  if (selfMap?.leadsBack) {
    score += 1;
    reasons.push('PteBase is the self-map');
  }
  // The block itself is encoded, but the head of its list is not. An empty list leads back to its head.
  const kpcrs = processors.length > 0 ? processors.map(({ kpcr }) => kpcr) : loadedKpcrs(space);
  const heads = [fields.ListFlink, fields.ListBlink, ...debuggerLists(space, kernel, kpcrs)];
  const linked = heads.flatMap((head) => linksOf(space, head).filter((link) => link !== head));
  const doubtless = reasons.length === (selfMap ? 6 : 5) && (linked.length === 0 || linked.includes(kdbg.address));
  if (linked.includes(kdbg.address)) {
    score += 4;
    reasons.push('it is linked in the list of debugger data blocks');
  }
  return { score, reasons, doubtless };
}

/** DebuggerDataList of the KdVersionBlocks that KPCRs name; null on x64 since Vista. */
function* debuggerLists(space: AddressSpace, kernel: KernelImage, kpcrs: readonly bigint[]): Generator<bigint> {
  for (const kpcr of kpcrs) {
    const address = space.readPointer(kpcr + BigInt(space.image.machine.kpcr.kdVersionBlock));
    const bytes = address !== undefined && isKernelAddress(address) ? space.read(address, KdVersion.size) : undefined;
    const version = bytes && readKdVersion(bytes, space.image.machine.pointerSize);
    if (version?.KernBase === kernel.base) yield version.DebuggerDataList;
  }
}

/** Both links of a list entry, as far as they are present. */
function linksOf(space: AddressSpace, entry: bigint | undefined): bigint[] {
  if (entry === undefined || !isKernelAddress(entry)) return [];
  const { pointerSize } = space.image.machine;
  return [0, pointerSize].flatMap((at) => space.readPointer(entry + BigInt(at)) ?? []);
}

/** The first entry of a list whose head and neighbours link to each other. */
function firstLinkedEntry(space: AddressSpace, head: bigint | undefined): bigint | undefined {
  if (head === undefined || !isKernelAddress(head)) return undefined;
  const back = BigInt(space.image.machine.pointerSize);
  const [flink, blink] = [space.readPointer(head), space.readPointer(head + back)];
  if (flink === undefined || blink === undefined) return undefined;
  if (flink === head || !isKernelAddress(flink) || !isKernelAddress(blink)) return undefined;
  if (space.readPointer(flink + back) !== head || space.readPointer(blink) !== head) return undefined;
  return flink;
}
