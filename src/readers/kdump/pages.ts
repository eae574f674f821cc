import type { Diagnostics } from '../../core/errors.ts';
import { hex } from '../../core/units.ts';
import { PageDescriptor } from '../../formats/kdump.ts';
import type { RunReader } from '../../memory/image.ts';
import { type ByteSource, readUpTo } from '../../source/source.ts';
import { DescriptorRules, type PageData, type PageIndex, parseDescriptors } from './descriptors.ts';
import { FlattenedSource } from './flattened.ts';
import { MAX_GAP, MAX_SPAN, NAMED_PAGES } from './limits.ts';
import { decodePage, PageDecoder, type PageJob } from './page-decoder.ts';

/** A page, and the part of it that is wanted. */
export interface Wanted extends PageData {
  page: number;
  /** Bytes of the target for it; `from` in the page. */
  target: Buffer;
  from: number;
}
export function pageReader(source: ByteSource, pages: PageIndex, blockSize: number, diagnostics: Diagnostics) {
  const rules = new DescriptorRules(source, pages, blockSize);
  const decoder = new PageDecoder(blockSize);
  const zeroAt = zeroPage(source, pages.descriptorAt(pages.count), blockSize);
  let damaged = 0;
  const report = (page: number): void => {
    damaged++;
    const physical = hex(page * blockSize);
    if (damaged <= NAMED_PAGES) {
      const message = `the page at physical ${physical} is damaged (its data does not decompress to a page)`;
      diagnostics.add('loss', 'page-damaged', message, { physical });
    } else {
      diagnostics.add('loss', 'pages-damaged', 'further pages are damaged too');
    }
  };

  /** What is to be read for a range: descriptors' numbers, which go on within a run. */
  const locate = (address: number, length: number) => {
    const firstPage = Math.floor(address / blockSize);
    const count = Math.floor((address + length - 1) / blockSize) - firstPage + 1;
    return { firstPage, count, rank: pages.rank(firstPage) };
  };
  /** The pages whose bytes are needed; fills those that are zero and those that are bad. */
  const want = (address: number, target: Buffer, at: ReturnType<typeof locate>, descriptors: Buffer) => {
    const wanted: Wanted[] = [];
    let sound = true;
    for (let i = 0; i < at.count; i++) {
      const page = at.firstPage + i;
      const start = page * blockSize - address;
      const part = target.subarray(Math.max(0, start), Math.min(target.length, start + blockSize));
      const w: Wanted = { page, target: part, from: Math.max(0, -start), offset: 0, size: 0, flags: 0 };
      parseDescriptors(descriptors, i * PageDescriptor.size, w);
      if (w.flags === 0 && w.offset === zeroAt) part.fill(0);
      else if (rules.problem(pages.descriptorAt(at.rank + i), w) === undefined) wanted.push(w);
      else {
        // It was good when the file was opened.
        part.fill(0);
        report(page);
        sound = false;
      }
    }
    return { wanted, sound };
  };

  const reader: RunReader = {
    readSync(run, offset, target) {
      const address = run.start + offset;
      if (target.length === 0) return true;
      const at = locate(address, target.length);
      const descriptors = Buffer.allocUnsafe(at.count * PageDescriptor.size);
      source.readSync(pages.descriptorAt(at.rank), descriptors);
      let { wanted, sound } = want(address, target, at, descriptors);
      for (const span of spans(wanted)) {
        const data = Buffer.allocUnsafe(span.size);
        source.readSync(span.offset, data);
        for (const w of span.pages) {
          const compressed = data.subarray(w.offset - span.offset, w.offset - span.offset + w.size);
          const whole = w.target.length === blockSize ? w.target : Buffer.allocUnsafe(blockSize);
          if (decodePage(w.flags, compressed, whole)) {
            if (whole !== w.target) whole.copy(w.target, 0, w.from);
          } else {
            w.target.fill(0);
            report(w.page);
            sound = false;
          }
        }
      }
      return sound;
    },
    async read(run, offset, target) {
      const address = run.start + offset;
      if (target.length === 0) return;
      const at = locate(address, target.length);
      const descriptors = Buffer.allocUnsafe(at.count * PageDescriptor.size);
      await source.read(pages.descriptorAt(at.rank), descriptors);
      for (const span of spans(want(address, target, at, descriptors).wanted)) {
        const data = Buffer.allocUnsafe(span.size);
        await source.read(span.offset, data);
        const jobs: (PageJob & { wanted: Wanted })[] = [];
        for (const w of span.pages) {
          const bytes = data.subarray(w.offset - span.offset, w.offset - span.offset + w.size);
          if (w.flags === 0) bytes.copy(w.target, 0, w.from);
          else {
            const whole = w.target.length === blockSize ? w.target : Buffer.allocUnsafe(blockSize);
            jobs.push({ flags: w.flags, source: bytes, target: whole, wanted: w });
          }
        }
        if (jobs.length === 0) continue;
        await decoder.decode(jobs);
        for (const { good, target: whole, wanted: w } of jobs) {
          if (whole !== w.target) w.target.set(whole.subarray(w.from, w.from + w.target.length));
          if (!good) report(w.page);
        }
      }
    },
  };
  return {
    reader,
    close: () => {
      decoder.close();
      source.close();
    },
  };
}

/** QEMU's first page of data is a zero page that all zero pages share. Its offset, if it is there. */
export function zeroPage(source: ByteSource, at: number, blockSize: number): number | undefined {
  if (at + blockSize > source.size) return undefined;
  if (source instanceof FlattenedSource && !source.covers(at, blockSize)) return undefined;
  const page = readUpTo(source, at, blockSize);
  return page.equals(Buffer.alloc(blockSize)) ? at : undefined;
}

/** Groups pages whose data lies near together and in order, as it does in QEMU's files. */
export function* spans(wanted: readonly Wanted[]): Generator<{ offset: number; size: number; pages: Wanted[] }> {
  let span: { offset: number; size: number; pages: Wanted[] } | undefined;
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
