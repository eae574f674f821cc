/** Reads pages: finds their descriptors, reads data that lies together at once, and has it decompressed. */
import type { Diagnostics } from '../../core/errors.ts';
import { hex, KIB, MIB } from '../../core/units.ts';
import { PageDescriptor } from '../../formats/kdump.ts';
import type { RunReader } from '../../memory/image.ts';
import type { PhysicalRun } from '../../memory/runs.ts';
import { readUpTo } from '../../source/source.ts';
import { DescriptorRules, type PageData, type PagedFile, parseDescriptor } from './descriptors.ts';
import { FlattenedSource } from './flattened.ts';
import { decodePage, PageDecoder, type PageJob } from './page-decoder.ts';

/** Blocks whose bytes are read from the file together. */
const MAX_SPAN = MIB;

/** Bytes between two pages' data that are read and thrown away rather than asked for separately. */
const MAX_GAP = 16 * KIB;

/** Damaged pages that are named each. */
const NAMED_PAGES = 10;

/** A page, and the part of it that is wanted. */
interface Wanted extends PageData {
  page: number;
  /** Bytes of the target for it; `from` in the page. */
  target: Buffer;
  from: number;
}

/** Pages whose data is read with one request. */
interface Span {
  offset: number;
  size: number;
  pages: Wanted[];
}

/** A range of memory, and the descriptors of its pages, whose numbers go on within a run. */
interface Request {
  address: number;
  firstPage: number;
  /** Number of the first page's descriptor. */
  rank: number;
  count: number;
  /** To be filled. */
  descriptors: Buffer;
}

/** Reads the pages of one file. Damaged ones become zeros and are reported. */
export class PageReader implements RunReader {
  readonly #file: PagedFile;
  readonly #diagnostics: Diagnostics;
  readonly #rules: DescriptorRules;
  readonly #decoder: PageDecoder;
  /** File offset of the page that all zero pages share. */
  readonly #zeroAt: number | undefined;
  #damaged = 0;

  constructor(file: PagedFile, diagnostics: Diagnostics) {
    this.#file = file;
    this.#diagnostics = diagnostics;
    this.#rules = new DescriptorRules(file);
    this.#decoder = new PageDecoder(file.blockSize);
    this.#zeroAt = zeroPage(file);
  }

  readSync(run: PhysicalRun, offset: number, target: Buffer): boolean {
    if (target.length === 0) return true;
    const { source, pages } = this.#file;
    const request = this.#request(run.start + offset, target.length);
    source.readSync(pages.descriptorAt(request.rank), request.descriptors);
    let { wanted, sound } = this.#wanted(request, target);
    for (const span of spans(wanted)) {
      const data = Buffer.allocUnsafe(span.size);
      source.readSync(span.offset, data);
      for (const page of span.pages) sound = this.#decodeSync(page, dataOf(page, span, data)) && sound;
    }
    return sound;
  }

  async read(run: PhysicalRun, offset: number, target: Buffer): Promise<void> {
    if (target.length === 0) return;
    const { source, pages } = this.#file;
    const request = this.#request(run.start + offset, target.length);
    await source.read(pages.descriptorAt(request.rank), request.descriptors);
    for (const span of spans(this.#wanted(request, target).wanted)) {
      const data = Buffer.allocUnsafe(span.size);
      await source.read(span.offset, data);
      await this.#decode(span, data);
    }
  }

  close(): void {
    this.#decoder.close();
    this.#file.source.close();
  }

  #request(address: number, length: number): Request {
    const { pages, blockSize } = this.#file;
    const firstPage = Math.floor(address / blockSize);
    const count = Math.floor((address + length - 1) / blockSize) - firstPage + 1;
    const descriptors = Buffer.allocUnsafe(count * PageDescriptor.size);
    return { address, firstPage, rank: pages.rank(firstPage), count, descriptors };
  }

  /** The pages whose bytes are needed; fills those that are zero and those that are bad. */
  #wanted(request: Request, target: Buffer): { wanted: Wanted[]; sound: boolean } {
    const { pages, blockSize } = this.#file;
    const wanted: Wanted[] = [];
    let sound = true;
    for (let i = 0; i < request.count; i++) {
      const page = request.firstPage + i;
      const start = page * blockSize - request.address;
      const part = target.subarray(Math.max(0, start), Math.min(target.length, start + blockSize));
      const w: Wanted = { page, target: part, from: Math.max(0, -start), offset: 0, size: 0, flags: 0 };
      parseDescriptor(request.descriptors, i * PageDescriptor.size, w);
      if (w.flags === 0 && w.offset === this.#zeroAt) part.fill(0);
      else if (this.#rules.problem(pages.descriptorAt(request.rank + i), w) === undefined) wanted.push(w);
      else {
        // It was good when the file was opened.
        part.fill(0);
        this.#report(page);
        sound = false;
      }
    }
    return { wanted, sound };
  }

  /** Room for a whole page: the target itself where all of it is wanted. */
  #room({ target }: Wanted): Buffer {
    return target.length === this.#file.blockSize ? target : Buffer.allocUnsafe(this.#file.blockSize);
  }

  #decodeSync(wanted: Wanted, data: Buffer): boolean {
    const { flags, target, from, page } = wanted;
    const whole = this.#room(wanted);
    if (!decodePage(flags, data, whole)) {
      target.fill(0);
      this.#report(page);
      return false;
    }
    if (whole !== target) whole.copy(target, 0, from);
    return true;
  }

  async #decode(span: Span, data: Buffer): Promise<void> {
    const jobs: (PageJob & { wanted: Wanted })[] = [];
    for (const wanted of span.pages) {
      const source = dataOf(wanted, span, data);
      if (wanted.flags === 0) source.copy(wanted.target, 0, wanted.from);
      else jobs.push({ flags: wanted.flags, source, target: this.#room(wanted), wanted });
    }
    if (jobs.length === 0) return;
    await this.#decoder.decode(jobs);
    for (const { good, target: whole, wanted } of jobs) {
      const { target, from, page } = wanted;
      if (whole !== target) target.set(whole.subarray(from, from + target.length));
      if (!good) this.#report(page);
    }
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
