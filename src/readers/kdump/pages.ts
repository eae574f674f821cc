/** Reads pages: finds their descriptors, reads data that lies together at once, and has it decompressed. */
import type { Diagnostics } from '../../core/errors.ts';
import { hex, KIB, MIB } from '../../core/units.ts';
import { PageDescriptor } from '../../formats/kdump.ts';
import type { RunReader } from '../../memory/image.ts';
import type { PhysicalRun } from '../../memory/runs.ts';
import { readUpTo } from '../../source/source.ts';
import { DescriptorRules, type PageData, type PagedFile, parseDescriptor } from './descriptors.ts';
import { FlattenedSource } from './flattened.ts';
import { decodePage, PageDecoder, type PageJob, PageJobs } from './page-decoder.ts';
import { SharedMemory } from './shared-memory.ts';

/** Blocks whose bytes are read from the file together. */
const MAX_SPAN = MIB;

/** Bytes between two pages' data that are read and thrown away rather than asked for separately. */
const MAX_GAP = 16 * KIB;

/** Damaged pages that are named each. */
const NAMED_PAGES = 10;

/** A page whose bytes are needed. */
interface Wanted extends PageData {
  page: number;
  /** Where it goes in the room for pages. */
  to: number;
}

/** Pages whose data is read with one request. */
interface Span {
  offset: number;
  size: number;
  pages: Wanted[];
}

/** Pages that follow each other, of one run: so do their descriptors. */
interface Stretch {
  firstPage: number;
  count: number;
  /** Number of the first page's descriptor. */
  rank: number;
}

/** Reads the pages of one file. Damaged ones become zeros and are reported. */
export class PageReader implements RunReader {
  readonly #file: PagedFile;
  readonly #diagnostics: Diagnostics;
  readonly #rules: DescriptorRules;
  readonly #decoder = new PageDecoder();
  /** For compressed bytes, and for pages where the caller's memory is not shared. */
  readonly #memory = new SharedMemory(MAX_SPAN);
  /** File offset of the page that all zero pages share. */
  readonly #zeroAt: number | undefined;
  #damaged = 0;

  constructor(file: PagedFile, diagnostics: Diagnostics) {
    this.#file = file;
    this.#diagnostics = diagnostics;
    this.#rules = new DescriptorRules(file);
    this.#zeroAt = zeroPage(file);
  }

  readSync(run: PhysicalRun, offset: number, target: Buffer): boolean {
    const { source, blockSize } = this.#file;
    let sound = true;
    for (const stretch of this.#stretches(run.start + offset, target.length)) {
      const descriptors = this.#descriptors(stretch);
      source.readSync(descriptors.at, descriptors.bytes);
      const room = Buffer.allocUnsafe(stretch.count * blockSize);
      const { wanted, bad } = this.#wanted(stretch, descriptors.bytes, room);
      if (bad > 0) sound = false;
      for (const span of spans(wanted)) {
        const data = Buffer.allocUnsafe(span.size);
        source.readSync(span.offset, data);
        for (const page of span.pages) {
          const whole = room.subarray(page.to, page.to + blockSize);
          if (decodePage({ flags: page.flags, source: dataOf(page, span, data) }, whole)) continue;
          whole.fill(0);
          this.#report(page.page);
          sound = false;
        }
      }
      this.#give(stretch, room, { address: run.start + offset, target });
    }
    return sound;
  }

  async read(run: PhysicalRun, offset: number, target: Buffer): Promise<void> {
    const address = run.start + offset;
    for (const stretch of this.#stretches(address, target.length)) {
      const own = this.#roomIn(target, address, stretch);
      if (own) await this.#readStretch(stretch, own);
      else {
        await this.#memory.lend(async (room) => {
          await this.#readStretch(stretch, room);
          this.#give(stretch, room, { address, target });
        });
      }
    }
  }

  close(): void {
    this.#decoder.close();
    this.#file.source.close();
  }

  /** The pages that a range of one run touches, in stretches that the lent memory has room for. */
  *#stretches(address: number, length: number): Generator<Stretch> {
    const { pages, blockSize } = this.#file;
    const end = Math.ceil((address + length) / blockSize);
    const most = Math.floor(MAX_SPAN / blockSize);
    for (let firstPage = Math.floor(address / blockSize); firstPage < end; firstPage += most) {
      yield { firstPage, count: Math.min(most, end - firstPage), rank: pages.rank(firstPage) };
    }
  }

  /** The part of the caller's memory that a stretch belongs in, where it has room for all of it and is shared. */
  #roomIn(target: Buffer, address: number, { firstPage, count }: Stretch): Uint8Array<SharedArrayBuffer> | undefined {
    const { blockSize } = this.#file;
    const from = firstPage * blockSize - address;
    const { buffer, byteOffset } = target;
    if (!(buffer instanceof SharedArrayBuffer) || from < 0 || from + count * blockSize > target.length)
      return undefined;
    return new Uint8Array(buffer, byteOffset + from, count * blockSize);
  }

  /** Puts the part of a stretch that is wanted into the caller's memory. */
  #give({ firstPage, count }: Stretch, room: Uint8Array, to: { address: number; target: Buffer }): void {
    const { blockSize } = this.#file;
    const from = firstPage * blockSize - to.address;
    const end = Math.min(to.target.length - from, count * blockSize);
    to.target.set(room.subarray(Math.max(0, -from), end), Math.max(0, from));
  }

  async #readStretch(stretch: Stretch, room: Uint8Array<SharedArrayBuffer>): Promise<void> {
    const { source } = this.#file;
    const descriptors = this.#descriptors(stretch);
    await source.read(descriptors.at, descriptors.bytes);
    for (const span of spans(this.#wanted(stretch, descriptors.bytes, room).wanted)) {
      await this.#memory.lend(async (data) => {
        await source.read(span.offset, data.subarray(0, span.size));
        await this.#decode(span, data, room);
      });
    }
  }

  #descriptors({ rank, count }: Stretch): { at: number; bytes: Buffer } {
    return { at: this.#file.pages.descriptorAt(rank), bytes: Buffer.allocUnsafe(count * PageDescriptor.size) };
  }

  /** The pages whose bytes are needed; those that are zero, and those that are bad, become zeros. */
  #wanted(stretch: Stretch, descriptors: Buffer, room: Uint8Array): { wanted: Wanted[]; bad: number } {
    const { pages, blockSize } = this.#file;
    const wanted: Wanted[] = [];
    let bad = 0;
    for (let i = 0; i < stretch.count; i++) {
      const to = i * blockSize;
      const w: Wanted = { page: stretch.firstPage + i, to, offset: 0, size: 0, flags: 0 };
      parseDescriptor(descriptors, i * PageDescriptor.size, w);
      const isZero = w.flags === 0 && w.offset === this.#zeroAt;
      if (!isZero && this.#rules.problem(pages.descriptorAt(stretch.rank + i), w) === undefined) {
        wanted.push(w);
        continue;
      }
      room.fill(0, to, to + blockSize);
      if (isZero) continue;
      // It was good when the file was opened.
      this.#report(w.page);
      bad++;
    }
    return { wanted, bad };
  }

  async #decode(span: Span, data: Uint8Array<SharedArrayBuffer>, room: Uint8Array<SharedArrayBuffer>): Promise<void> {
    const { blockSize } = this.#file;
    const compressed: (PageJob & { page: number })[] = [];
    for (const { flags, offset, size, to, page } of span.pages) {
      const from = offset - span.offset;
      if (flags === 0) room.set(data.subarray(from, from + size), to);
      else compressed.push({ flags, from, size, to, page });
    }
    if (compressed.length === 0) return;
    const jobs = PageJobs.of({ source: data, target: room, pageSize: blockSize }, compressed);
    await this.#decoder.decode(jobs);
    compressed.forEach(({ page }, i) => {
      if (!jobs.isGood(i)) this.#report(page);
    });
  }

  #report(page: number): void {
    this.#damaged++;
    const physical = hex(page * this.#file.blockSize);
    if (this.#damaged <= NAMED_PAGES) {
      const message = `the page at physical ${physical} is damaged (its data does not decompress to a page)`;
      this.#diagnostics.add('loss', 'page-damaged', message, { physical });
    } else {
      this.#diagnostics.add('loss', 'pages-damaged', 'further pages are damaged too');
    }
  }
}

const dataOf = (page: PageData, span: Span, data: Buffer): Buffer =>
  data.subarray(page.offset - span.offset, page.offset - span.offset + page.size);

/** QEMU's first page of data is a zero page that all zero pages share. Its offset, if it is there. */
function zeroPage({ source, pages, blockSize }: PagedFile): number | undefined {
  const at = pages.descriptorAt(pages.count);
  if (at + blockSize > source.size) return undefined;
  if (source instanceof FlattenedSource && !source.covers(at, blockSize)) return undefined;
  const page = readUpTo(source, at, blockSize);
  return page.equals(Buffer.alloc(blockSize)) ? at : undefined;
}

/** Groups pages whose data lies near together and in order, as it does in QEMU's files. */
function* spans(wanted: readonly Wanted[]): Generator<Span> {
  let span: Span | undefined;
  for (const w of wanted) {
    if (span) {
      const end = span.offset + span.size;
      if (w.offset >= end && w.offset - end <= MAX_GAP && w.offset + w.size - span.offset <= MAX_SPAN) {
        span.size = w.offset + w.size - span.offset;
        span.pages.push(w);
        continue;
      }
      yield span;
    }
    span = { offset: w.offset, size: w.size, pages: [w] };
  }
  if (span) yield span;
}
