/**
 * Where a stream's RAM blocks are in physical memory. The stream has no addresses: the machine's CMOS says how much RAM
 * is below and above 4 GiB, and the ACPI tables which part is whose. What nothing says is tried in every way that can
 * be, and the locator finds out which is right.
 */
import { because, type Reason } from '../../core/reason.ts';
import { GIB, KIB, MIB } from '../../core/units.ts';
import type { RamBlock } from './ram.ts';

/** Part of a block at a physical address. */
export interface Piece {
  block: RamBlock;
  /** Byte offset in the block. */
  offset: number;
  start: number;
  size: number;
}

/** One way in which the blocks may lie. */
export interface Layout {
  pieces: readonly Piece[];
  /** What it was taken from, where the machine itself does not say so: a clause for messages. */
  takenFrom: string | undefined;
  /** Blocks that could be RAM and have no known place. */
  unplaced: readonly RamBlock[];
}

/** Video memory, firmware and tables: not the machine's RAM. */
const OTHER_BLOCK = /\/|^pc\.(bios|rom)$|vram|vga|qxl|flash\d*$|pflash|tag-ram|^ramfb|\.rom$|cmb|ivshmem/;

/** RAM is hidden behind the legacy video window where there is a display adapter. */
const VIDEO_WINDOW = { start: 0xa0000, end: 0xc0000 };

export const isRam = ({ name }: RamBlock): boolean => !OTHER_BLOCK.test(name);

/** Bytes of RAM below 4 GiB and above, as QEMU's pc machines leave them in CMOS (pc_cmos_init in hw/i386/pc.c). */
export function ramInCmos(cmos: Buffer): { low: number; high: number } | undefined {
  if (cmos.length < 0x5e) return undefined;
  const above16M = cmos.readUInt16LE(0x34) * 64 * KIB;
  // Below 17 MiB the older field counts, in KiB above the first MiB.
  const low = above16M > 0 ? 16 * MIB + above16M : MIB + cmos.readUInt16LE(0x30) * KIB;
  const high = (cmos.readUInt16LE(0x5b) + cmos.readUInt8(0x5d) * 0x10000) * 64 * KIB;
  return low <= 4 * GIB ? { low, high } : undefined;
}

/** Where low RAM ends if there is more than that, by machine type: pc_piix.c, pc_q35.c and microvm.c in QEMU's hw/i386. */
export function lowRamEnds(machineType: string | undefined, ram: number): number[] {
  const q35 = ram >= 0xb000_0000 ? 0x8000_0000 : 0xb000_0000;
  const pc = ram >= 0xe000_0000 ? 0xc000_0000 : 0xe000_0000;
  if (machineType === undefined) return [pc, q35];
  if (/q35/.test(machineType)) return [q35];
  return /microvm/.test(machineType) ? [0xc000_0000] : [pc, 0xe000_0000];
}

/** What says where RAM lies. */
export interface LayoutSources {
  /** undefined where the stream has none. */
  cmos?: Buffer | undefined;
  /** ACPI tables that the firmware got; undefined where the stream has none. */
  tables?: Buffer | undefined;
  /** Of the machine, see `MigrationForm`. */
  ramStart: number | undefined;
}

/** The ways in which RAM may lie, the likeliest first. */
export function layouts(
  { blocks, machineType }: { blocks: readonly RamBlock[]; machineType: string | undefined },
  { cmos, tables, ramStart }: LayoutSources,
): readonly Layout[] | Reason {
  const ram = blocks.filter(isRam);
  const total = ram.reduce((sum, { size }) => sum + size, 0);
  if (total === 0) return because('none of its RAM blocks can be memory of the machine');
  if (ramStart !== undefined) return inOnePiece(ram, total, { tables, start: ramStart });
  const hasVideo = blocks.some(({ name }) => /vram|vga|qxl/.test(name));
  const split = cmos && ramInCmos(cmos);
  const options = split ? [split] : lowRamEnds(machineType, total).map((end) => bothSides(total, end));
  const takenFrom = split ? undefined : 'the rules of its machine type';
  const found = options.flatMap(({ low, high }) =>
    ordered(ram, low + high, tables).flatMap(({ main, extra }) =>
      placeExtra(extra, tables).map(({ placed, unplaced }) => {
        const pieces = withoutWindow([...place(main, low), ...placed], hasVideo);
        return { pieces, takenFrom, unplaced };
      }),
    ),
  );
  if (found.length > 0) return found.slice(0, MAX_LAYOUTS);
  return because(`its RAM blocks (${ram.map(({ name }) => name).join(', ')}) do not add up to what its CMOS says`);
}

/** As Arm's virt has it: the nodes' memory one behind the other, and then what was plugged in. */
function inOnePiece(
  ram: readonly RamBlock[],
  total: number,
  { tables, start }: { tables: Buffer | undefined; start: number },
): readonly Layout[] | Reason {
  const listed = (tables && nodeSizes(tables)) ?? [];
  const first = listed.length > 0 ? listed.reduce((sum, size) => sum + size, 0) : total;
  const found = ordered(ram, first, tables).flatMap(({ main, extra }) => {
    let end = start;
    const pieces = main.map((block): Piece => {
      const piece = { block, offset: 0, start: end, size: block.size };
      end += block.size;
      return piece;
    });
    return placeExtra(extra, tables).map(({ placed, unplaced }) => ({
      pieces: [...pieces, ...placed],
      takenFrom: undefined,
      unplaced,
    }));
  });
  if (found.length > 0) return found.slice(0, MAX_LAYOUTS);
  return because(`its RAM blocks (${ram.map(({ name }) => name).join(', ')}) do not add up to what its tables say`);
}

/** Each is searched for Windows. */
const MAX_LAYOUTS = 24;

const bothSides = (total: number, end: number) => ({ low: Math.min(total, end), high: Math.max(0, total - end) });

/** Blocks that make up the memory that the machine began with, in the order of their addresses, and those that do not. */
function ordered(
  ram: readonly RamBlock[],
  total: number,
  tables: Buffer | undefined,
): { main: readonly RamBlock[]; extra: readonly RamBlock[] }[] {
  const subsets = subsetsOf(ram, total);
  const fewest = subsets[0]?.length;
  const sizes = tables && nodeSizes(tables);
  // DIMMs can be as large as all of the machine's own memory, whose block is mostly called RAM.
  return subsets
    .filter(({ length }) => length === fewest)
    .sort((a, b) => b.filter(isCalledRam).length - a.filter(isCalledRam).length)
    .flatMap((main) => {
      const extra = ram.filter((block) => !main.includes(block));
      return (main.length === 1 ? [main] : orders(main, sizes)).map((order) => ({ main: order, extra }));
    });
}

const isCalledRam = ({ name }: RamBlock) => /ram/i.test(name);

const MAX_SUBSET_BLOCKS = 12;

function subsetsOf(ram: readonly RamBlock[], total: number): RamBlock[][] {
  if (ram.reduce((sum, { size }) => sum + size, 0) === total) return [[...ram]];
  if (ram.length > MAX_SUBSET_BLOCKS) return [];
  const found: RamBlock[][] = [];
  for (let bits = 1; bits < 1 << ram.length; bits++) {
    const subset = ram.filter((_, i) => (bits >> i) & 1);
    if (subset.reduce((sum, { size }) => sum + size, 0) === total) found.push(subset);
  }
  return found.sort((a, b) => a.length - b.length);
}

/** Orders of NUMA nodes' blocks: those whose sizes are as the tables say, by number in their names first. */
function orders(blocks: readonly RamBlock[], sizes: readonly number[] | undefined): RamBlock[][] {
  const all = allOrders(blocks);
  const fitting = sizes ? all.filter((order) => order.every(({ size }, i) => size === sizes[i])) : all;
  return fitting.length > 0 ? fitting : all;
}

/** All orders of few blocks, else one: by number in their names, which users and libvirt count up. */
function allOrders(blocks: readonly RamBlock[]): RamBlock[][] {
  const number = ({ name }: RamBlock) => Number(/(\d+)\D*$/.exec(name)?.[1] ?? 0);
  const byName = [...blocks].sort((a, b) => number(a) - number(b) || (a.name < b.name ? -1 : 1));
  return blocks.length <= 4 ? permutations(byName) : [byName];
}

function permutations<T>(items: readonly T[]): T[][] {
  if (items.length <= 1) return [[...items]];
  return items.flatMap((item, i) => permutations(items.filter((_, j) => j !== i)).map((rest) => [item, ...rest]));
}

/** Blocks one after another, with the hole at `low`. */
function place(blocks: readonly RamBlock[], low: number): Piece[] {
  const pieces: Piece[] = [];
  let at = 0;
  for (const block of blocks) {
    const below = Math.max(0, Math.min(block.size, low - at));
    if (below > 0) pieces.push({ block, offset: 0, start: at, size: below });
    const above = block.size - below;
    if (above > 0) pieces.push({ block, offset: below, start: 4 * GIB + at + below - low, size: above });
    at += block.size;
  }
  return pieces;
}

/** QEMU puts memory that is plugged in at such addresses (QEMU_VMALLOC_ALIGN). */
const HOTPLUG_ALIGNMENT = 2 * MIB;

interface PlugIn {
  placed: Piece[];
  unplaced: RamBlock[];
}

/**
 * Memory that was plugged in lies in the range that the tables keep for it, one block behind the other unless somebody
 * gave addresses or took one out again: of several, nothing says in which order, and Windows' own list decides.
 */
function placeExtra(extra: readonly RamBlock[], tables: Buffer | undefined): PlugIn[] {
  const nowhere = { placed: [], unplaced: [...extra] };
  const range = tables && hotplugRange(tables);
  if (extra.length === 0 || !range) return [nowhere];
  const ways = allOrders(extra)
    .map((order) => oneAfterAnother(order, range))
    .filter((placed) => placed !== undefined)
    .map((placed): PlugIn => ({ placed, unplaced: [] }));
  return extra.length === 1 && ways.length > 0 ? ways : [...ways, nowhere];
}

/** undefined: they do not fit the range. */
function oneAfterAnother(blocks: readonly RamBlock[], range: { start: number; size: number }): Piece[] | undefined {
  let at = range.start;
  const placed = blocks.map((block) => {
    const start = Math.ceil(at / HOTPLUG_ALIGNMENT) * HOTPLUG_ALIGNMENT;
    at = start + block.size;
    return { block, offset: 0, start, size: block.size };
  });
  return at <= range.start + range.size ? placed : undefined;
}

function withoutWindow(pieces: readonly Piece[], hasVideo: boolean): Piece[] {
  if (!hasVideo) return [...pieces];
  const { start, end } = VIDEO_WINDOW;
  return pieces.flatMap((piece) => {
    if (piece.start >= end || piece.start + piece.size <= start) return [piece];
    const left = { ...piece, size: start - piece.start };
    const skipped = end - piece.start;
    const right = { ...piece, offset: piece.offset + skipped, start: end, size: piece.size - skipped };
    return [left, right].filter(({ size }) => size > 0);
  });
}

interface MemoryAffinity {
  node: number;
  start: number;
  size: number;
  hotplug: boolean;
}

/** Memory affinity structures of the SRAT (ACPI 6.5, 5.2.16.2). */
function affinities(tables: Buffer): MemoryAffinity[] {
  const found: MemoryAffinity[] = [];
  for (let at = tables.indexOf('SRAT'); at >= 0; at = tables.indexOf('SRAT', at + 4)) {
    if (at + 48 > tables.length) break;
    const end = Math.min(at + tables.readUInt32LE(at + 4), tables.length);
    for (let entry = at + 48; entry + 2 <= end; ) {
      const length = tables[entry + 1]!;
      if (length < 2) break;
      if (tables[entry] === 1 && length >= 40 && entry + 40 <= end) {
        const flags = tables.readUInt32LE(entry + 28);
        const size = Number(tables.readBigUInt64LE(entry + 16));
        if ((flags & 1) !== 0 && size > 0) {
          found.push({
            node: tables.readUInt32LE(entry + 2),
            start: Number(tables.readBigUInt64LE(entry + 8)),
            size,
            hotplug: (flags & 2) !== 0,
          });
        }
      }
      entry += length;
    }
  }
  return found;
}

/** Bytes of each NUMA node's memory, in the order of their addresses. */
function nodeSizes(tables: Buffer): number[] | undefined {
  const sizes = new Map<number, number>();
  for (const { node, size, hotplug } of affinities(tables).sort((a, b) => a.start - b.start)) {
    if (!hotplug) sizes.set(node, (sizes.get(node) ?? 0) + size);
  }
  return sizes.size > 0 ? [...sizes.values()] : undefined;
}

function hotplugRange(tables: Buffer): { start: number; size: number } | undefined {
  const [range, ...others] = affinities(tables).filter(({ hotplug }) => hotplug);
  return others.length === 0 ? range : undefined;
}
