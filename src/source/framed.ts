/** Compressed files in parts that can be unpacked by themselves: their contents are read at random. */
import { bytes, hex, MIB, PAGE_SIZE } from '../core/units.ts';
import { type ByteSource, checkRange, type DamagedPages } from './source.ts';

/** Bytes of the file. */
export interface StoredFrame {
  offset: number;
  size: number;
}

/** Where a file's frames are, and how to unpack one. Nothing in it is taken from the file unchecked. */
export interface FrameIndex {
  /** `gzip`, as the container's. */
  readonly container: string;
  /** Bytes of all contents. */
  readonly size: number;
  readonly count: number;
  /** The number of the frame that has a byte of the contents. */
  frameAt(offset: number): number;
  /** Where a frame's contents begin; at `count` the size of all. */
  contentsAt(frame: number): number;
  stored(frame: number): StoredFrame;
  /** A frame's contents, compared with its checksum; undefined if it is damaged. */
  unpackSync(frame: Buffer, size: number): Buffer | undefined;
  /** As `unpackSync`, in another thread where Node can. */
  unpack(frame: Buffer, size: number): Promise<Buffer | undefined>;
}

/** Frames of larger contents are not worth unpacking for a page: the file is read as a stream. */
export const MAX_FRAME = 8 * MIB;

/** Contents that are kept. */
const CACHE_BYTES = 8 * MIB;

/** Contents that are unpacked at once. */
const MAX_AT_ONCE = 4 * MIB;

/** Frames that are unpacked at once where their contents are not wanted. */
const LANES = 4;

/** Damaged frames that are named each. */
const NAMED_FRAMES = 10;

/** The contents of a compressed file at random. Those of a damaged frame are zeros, and are reported. */
export class FramedSource implements ByteSource {
  readonly name: string;
  readonly size: number;
  readonly fd = undefined;
  readonly zerosAreCheap = true;
  readonly damagedPages: DamagedPages;
  readonly #file: ByteSource;
  readonly #index: FrameIndex;
  /** The least recently used one first. */
  readonly #cache = new Map<number, Buffer>();
  #cached = 0;
  readonly #pending = new Map<number, Promise<Buffer>>();
  readonly #damaged = new Set<number>();
  /** 1: it was unpacked before. */
  readonly #seen: Uint8Array;
  readonly #messages: string[] = [];
  #report: ((message: string) => void) | undefined;

  /**
   * Takes over the file.
   *
   * @param name of the contents, for messages
   */
  constructor(file: ByteSource, index: FrameIndex, name: string) {
    this.#file = file;
    this.#index = index;
    this.name = name;
    this.size = index.size;
    this.#seen = new Uint8Array(index.count);
    const damaged = this.#damaged;
    this.damagedPages = {
      get size() {
        return damaged.size;
      },
      has: (page) => this.#touchesDamage(page),
    };
  }

  /** What damage was met so far. */
  get damage(): readonly string[] {
    return this.#messages;
  }

  /** Calls `report` for damage that was met already, and from now on when it is met. */
  onDamage(report: (message: string) => void): void {
    this.#report = report;
    for (const message of this.#messages) report(message);
  }

  readSync(offset: number, target: Uint8Array): void {
    checkRange(this, offset, target.length);
    const index = this.#index;
    for (const frame of this.#frames(offset, target.length)) {
      let contents = this.#known(frame);
      if (!contents) {
        const stored = index.stored(frame);
        const bytes = Buffer.allocUnsafe(stored.size);
        this.#file.readSync(stored.offset, bytes);
        contents = this.#take(frame, index.unpackSync(bytes, this.#sizeOf(frame)));
      }
      this.#give(frame, contents, { offset, target });
    }
  }

  async read(offset: number, target: Uint8Array): Promise<void> {
    checkRange(this, offset, target.length);
    let work: Promise<void>[] = [];
    let atOnce = 0;
    for (const frame of this.#frames(offset, target.length)) {
      work.push(this.#load(frame).then((contents) => this.#give(frame, contents, { offset, target })));
      atOnce += this.#sizeOf(frame);
      if (atOnce < MAX_AT_ONCE) continue;
      await settle(work);
      work = [];
      atOnce = 0;
    }
    await settle(work);
  }

  /** Unpacks every frame that was not read yet, to see whether it is damaged. Throws as `read`. */
  async unpackRest(signal?: AbortSignal): Promise<void> {
    let next = 0;
    const lane = async () => {
      while (next < this.#index.count) {
        const frame = next++;
        if (this.#seen[frame] === 1 || this.#sizeOf(frame) === 0) continue;
        signal?.throwIfAborted();
        await this.#load(frame);
      }
    };
    await settle(Array.from({ length: LANES }, () => lane()));
  }

  close(): void {
    this.#file.close();
  }

  #sizeOf(frame: number): number {
    return this.#index.contentsAt(frame + 1) - this.#index.contentsAt(frame);
  }

  /** Frames with contents of a range. */
  *#frames(offset: number, length: number): Generator<number> {
    if (length === 0) return;
    const index = this.#index;
    for (let frame = index.frameAt(offset); index.contentsAt(frame) < offset + length; frame++) {
      // Frames may be empty.
      if (this.#sizeOf(frame) > 0) yield frame;
      if (frame === index.count - 1) return;
    }
  }

  /** Once, however many want it. */
  #load(frame: number): Promise<Buffer> {
    const known = this.#known(frame);
    if (known) return Promise.resolve(known);
    const pending = this.#pending.get(frame);
    if (pending) return pending;
    const loading = this.#unpack(frame).finally(() => this.#pending.delete(frame));
    this.#pending.set(frame, loading);
    return loading;
  }

  async #unpack(frame: number): Promise<Buffer> {
    const stored = this.#index.stored(frame);
    const bytes = Buffer.allocUnsafe(stored.size);
    await this.#file.read(stored.offset, bytes);
    return this.#take(frame, await this.#index.unpack(bytes, this.#sizeOf(frame)));
  }

  #known(frame: number): Buffer | undefined {
    const contents = this.#cache.get(frame);
    if (!contents) return undefined;
    this.#cache.delete(frame);
    this.#cache.set(frame, contents);
    return contents;
  }

  /** Keeps what came out of a frame; zeros where that is not what it should be. */
  #take(frame: number, unpacked: Buffer | undefined): Buffer {
    const size = this.#sizeOf(frame);
    const isSound = unpacked?.length === size;
    this.#seen[frame] = 1;
    if (!isSound) this.#lose(frame, size);
    const contents = isSound ? unpacked : Buffer.alloc(size);
    const before = this.#cache.get(frame);
    if (before) return before;
    this.#cache.set(frame, contents);
    this.#cached += size;
    for (const [oldest, { length }] of this.#cache) {
      if (this.#cached <= CACHE_BYTES) break;
      this.#cache.delete(oldest);
      this.#cached -= length;
    }
    return contents;
  }

  #give(frame: number, contents: Buffer, { offset, target }: { offset: number; target: Uint8Array }): void {
    const from = this.#index.contentsAt(frame) - offset;
    const end = Math.min(contents.length, target.length - from);
    target.set(contents.subarray(Math.max(0, -from), end), Math.max(0, from));
  }

  #lose(frame: number, size: number): void {
    if (this.#damaged.has(frame)) return;
    this.#damaged.add(frame);
    const { container } = this.#index;
    if (this.#damaged.size <= NAMED_FRAMES) {
      const [at, from] = [hex(this.#index.stored(frame).offset), hex(this.#index.contentsAt(frame))];
      this.#say(
        `the ${container} file is damaged at byte ${at}: ${bytes(size)} of its contents from byte ${from} on are zeros`,
      );
    } else this.#say(`further parts of the ${container} file are damaged: their contents are zeros`);
  }

  #say(message: string): void {
    if (this.#messages.at(-1) === message) return;
    this.#messages.push(message);
    this.#report?.(message);
  }

  #touchesDamage(page: number): boolean {
    for (const frame of this.#frames(page, Math.min(PAGE_SIZE, this.size - page))) {
      if (this.#damaged.has(frame)) return true;
    }
    return false;
  }
}

/** Waits for all, so that nothing writes to a target that its owner has back; then throws the first failure. */
async function settle(work: readonly Promise<void>[]): Promise<void> {
  const results = await Promise.allSettled(work);
  const failed = results.find((result): result is PromiseRejectedResult => result.status === 'rejected');
  if (failed) throw failed.reason;
}
