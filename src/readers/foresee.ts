/** What a stream's first bytes say of all that follows. */
import { Elf2dmpError } from '../core/errors.ts';
import { MIB, PHYSICAL_ADDRESS_LIMIT } from '../core/units.ts';
import type { MemoryImage } from '../memory/image.ts';
import type { ByteSource } from '../source/source.ts';
import { type Promised, promised } from './qevm/arriving.ts';
import { isQcow2 } from './qevm/qcow2.ts';
import { openRaw } from './raw.ts';
import { readerFor, type SourceFormat } from './registry.ts';

/** A stream, of which only the first bytes are looked at. */
export interface StreamHead {
  /** At least this many first bytes, or all there are. */
  upTo(size: number): Promise<Buffer>;
}

/** What a stream will hold if it is whole. */
export interface Foreseen {
  /** Its runs lie in the stream; reading them fails. */
  image: MemoryImage;
  /** Bytes of the stream, from its start on, that the headers take. */
  headSize: number;
  /** A migration stream, whose pages are to be placed one by one: offsets are those in the space of all its blocks. */
  promise?: Promised;
}

/** Headers of more runs and CPUs than any machine has. */
const MAX_HEAD = 32 * MIB;

/** Longer than any stream. */
const ENDLESS = PHYSICAL_ADDRESS_LIMIT;

/** undefined for formats whose first bytes do not say where all of the memory comes, and for damaged ones. */
export async function foresee(stream: StreamHead, format: SourceFormat): Promise<Foreseen | undefined> {
  let head = await stream.upTo(0);
  if (isRaw(head, format)) return foreseeRaw(head, format);
  if (isMigrationStream(head, format)) return foreseeStream(stream, head);
  const reader = readerFor(head, format);
  if (!reader?.headersFirst) return undefined;
  for (;;) {
    const source = new HeadSource(head);
    try {
      return { image: reader.open(source), headSize: source.end };
    } catch (error) {
      if (error instanceof Elf2dmpError || !source.lacks || source.end > MAX_HEAD) return undefined;
      const longer = await stream.upTo(Math.min(MAX_HEAD, Math.max(source.end, 2 * head.length)));
      if (longer.length < source.end) return undefined;
      head = longer;
    }
  }
}

const isRaw = (head: Buffer, { format, runs, snapshot, crashDumps }: SourceFormat): boolean =>
  snapshot === undefined &&
  (format === 'raw' || (!isQcow2(head) && (runs !== undefined || readerFor(head, { crashDumps }) === undefined)));

/** Whether first bytes are those of a migration stream that holds its own memory. */
export const isMigrationStream = (head: Buffer, format: SourceFormat): boolean => {
  const name = readerFor(head, format)?.format;
  return format.snapshot === undefined && format.ramFile === undefined && (name === 'qevm' || name === 'libvirt-save');
};

async function foreseeStream(stream: StreamHead, first: Buffer): Promise<Foreseen | undefined> {
  for (let head = first; ; ) {
    const promise = promised(head);
    if (promise === undefined) return undefined;
    if (promise !== 'more') return { image: promise.image, headSize: promise.tables, promise };
    const longer = head.length < MAX_HEAD ? await stream.upTo(2 * head.length) : head;
    if (longer.length === head.length) return undefined;
    head = longer;
  }
}

/** Every layout of raw memory has its pages in ascending order, unless the caller says otherwise. */
function foreseeRaw(head: Buffer, { runs = [] }: SourceFormat): Foreseen | undefined {
  const descends = runs.some(({ start }, i) => i > 0 && start < runs[i - 1]!.start);
  return descends ? undefined : { image: openRaw(new HeadSource(head), [{ start: 0, size: undefined }]), headSize: 0 };
}

/** The start of a stream that is not read any further. */
class HeadSource implements ByteSource {
  readonly name = 'stream';
  readonly fd = undefined;
  readonly size = ENDLESS;
  /** Where the furthest read ended. */
  end = 0;
  readonly #head: Buffer;

  constructor(head: Buffer) {
    this.#head = head;
  }

  /** Whether a read needed more than there is. */
  get lacks(): boolean {
    return this.end > this.#head.length;
  }

  readSync(offset: number, target: Uint8Array): void {
    this.end = Math.max(this.end, offset + target.length);
    if (this.lacks) throw new RangeError('beyond the start of the stream');
    this.#head.copy(target, 0, offset, offset + target.length);
  }

  async read(offset: number, target: Uint8Array): Promise<void> {
    this.readSync(offset, target);
  }

  close(): void {}
}
