/** zstd files with a table of their frames at the end: any frame can be unpacked by itself. */
import { Pulse } from '../core/pulse.ts';
import { firstIndex } from '../core/sorted.ts';
import { type FrameIndex, MAX_FRAME, type StoredFrame } from './framed.ts';
import {
  SEEK_TABLE_CHECKSUM_SIZE,
  SEEK_TABLE_CHECKSUMS,
  SEEK_TABLE_RESERVED,
  SEEK_TABLE_SKIPPABLE,
  SEEKABLE_MAGIC,
  SeekTableEntry,
  SeekTableFooter,
  SeekTableHead,
} from './seek-table-layout.ts';
import { type ByteSource, readUpTo } from './source.ts';
import { DEFAULT_WINDOW, type FrameDecoder, frameDecoder, frameEnd, frameHeaderAt } from './zstd.ts';

/** Entries that are read together. */
const ENTRIES = 4096;

/** Frames that one table may have: a dump of 4 TiB in frames of 1 MiB. Their places take 16 bytes each. */
const MAX_FRAMES = 1 << 22;

/** Frames that are passed without a look at the clock. */
const BEAT = 256;

/** Frames that compress badly grow a little. */
const MAX_STORED = MAX_FRAME + MAX_FRAME / 64;

/**
 * The frames of a zstd file, by its seek table; undefined where it has none, or one that the frames contradict, and where
 * frames are large or do not say how long their contents are: these files are read as streams. Throws `Elf2dmpError` where
 * the file can't be read.
 *
 * @param memory bytes that unpacking a frame may take
 */
export async function indexSeekTable(
  file: ByteSource,
  memory: number = MAX_FRAME,
  signal?: AbortSignal,
): Promise<FrameIndex | undefined> {
  const table = tableOf(file);
  if (!table) return undefined;
  const frames = await framesIn(file, table, { memory: Math.min(memory, MAX_FRAME), pulse: new Pulse(signal) });
  return frames && new SeekTableIndex(frames, await frameDecoder());
}

interface Table {
  /** In the file: where the frames end. */
  offset: number;
  count: number;
  entrySize: number;
}

function tableOf(file: ByteSource): Table | undefined {
  const at = file.size - SeekTableFooter.size;
  if (at < SeekTableHead.size) return undefined;
  const footer = SeekTableFooter.read(readUpTo(file, at, SeekTableFooter.size));
  const { Number_Of_Frames: count, Seek_Table_Descriptor: descriptor } = footer;
  if (footer.Seekable_Magic_Number !== SEEKABLE_MAGIC || (descriptor & SEEK_TABLE_RESERVED) !== 0) return undefined;
  const checksums = (descriptor & SEEK_TABLE_CHECKSUMS) !== 0;
  const entrySize = SeekTableEntry.size + (checksums ? SEEK_TABLE_CHECKSUM_SIZE : 0);
  const offset = at - count * entrySize - SeekTableHead.size;
  if (count === 0 || count > MAX_FRAMES || offset <= 0) return undefined;
  const head = SeekTableHead.read(readUpTo(file, offset, SeekTableHead.size));
  const fits =
    head.Skippable_Magic_Number === SEEK_TABLE_SKIPPABLE &&
    head.Frame_Size === count * entrySize + SeekTableFooter.size;
  return fits ? { offset, count, entrySize } : undefined;
}

/** Where frames begin, in the file and in the contents; and where the last one ends. */
interface Frames {
  stored: Float64Array;
  contents: Float64Array;
}

/** undefined where table and frames contradict each other. */
async function framesIn(
  file: ByteSource,
  table: Table,
  { memory, pulse }: { memory: number; pulse: Pulse },
): Promise<Frames | undefined> {
  const { offset, count } = table;
  const frames = { stored: new Float64Array(count + 1), contents: new Float64Array(count + 1) };
  let frame = 0;
  for (const { Compressed_Size: size, Decompressed_Size: contents } of entriesOf(file, table)) {
    if (size === 0 || size > MAX_STORED || contents > memory) return undefined;
    frames.stored[frame + 1] = frames.stored[frame]! + size;
    frames.contents[++frame] = frames.contents[frame - 1]! + contents;
  }
  if (frames.stored[count] !== offset) return undefined;
  for (frame = 0; frame < count; frame++) {
    if (!isAsListed(file, frames, frame)) return undefined;
    if (frame % BEAT === 0) await pulse.beat();
  }
  return frames;
}

function* entriesOf(file: ByteSource, { offset, count, entrySize }: Table) {
  for (let first = 0; first < count; first += ENTRIES) {
    const entries = Math.min(ENTRIES, count - first);
    const bytes = readUpTo(file, offset + SeekTableHead.size + first * entrySize, entries * entrySize);
    for (let i = 0; i < entries; i++) yield SeekTableEntry.read(bytes, i * entrySize);
  }
}

/**
 * Whether a frame begins where the table has one, of the contents that it has. A damaged header is not the table's
 * fault: then the frame before it ends there, the table says the same of this one as of the first, and nothing is moved.
 */
function isAsListed(file: ByteSource, { stored, contents }: Frames, frame: number): boolean {
  const size = contents[frame + 1]! - contents[frame]!;
  const header = frameHeaderAt(file, stored[frame]!);
  if (header) return header.contentSize === size && header.window <= DEFAULT_WINDOW;
  if (size === 0) return false;
  return frame > 0 && size === contents[1] && frameEnd(file, stored[frame - 1]!) === stored[frame];
}

class SeekTableIndex implements FrameIndex {
  readonly container = 'zstd';
  readonly size: number;
  readonly count: number;
  readonly unpackSync: FrameIndex['unpackSync'];
  readonly unpack: FrameIndex['unpack'];
  readonly #frames: Frames;

  constructor(frames: Frames, decoder: FrameDecoder) {
    this.#frames = frames;
    this.count = frames.stored.length - 1;
    this.size = frames.contents[this.count]!;
    this.unpackSync = decoder.unpackSync;
    this.unpack = decoder.unpack;
  }

  frameAt(offset: number): number {
    return firstIndex(this.count, (frame) => this.#frames.contents[frame + 1]! > offset);
  }

  contentsAt(frame: number): number {
    return this.#frames.contents[frame]!;
  }

  stored(frame: number): StoredFrame {
    const { stored } = this.#frames;
    return { offset: stored[frame]!, size: stored[frame + 1]! - stored[frame]! };
  }
}
