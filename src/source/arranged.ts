/**
 * A stream whose bytes are put into another order while it comes: what becomes a dump's pages goes where the dump has
 * it, and what else matters is kept in memory. It still reads as the stream.
 */
import { firstIndex } from '../core/sorted.ts';
import type { ContainerDamage } from './chunks.ts';
import { FileSource } from './file.ts';
import type { ByteSource } from './source.ts';
import { inChunks } from './spool.ts';

/** Bytes of a stream that go to a file. */
export interface Part {
  /** In the stream. */
  offset: number;
  size: number;
  /** In the file. */
  position: number;
}

/** Bytes of a stream in memory. */
export interface Kept {
  /** In the stream. */
  offset: number;
  bytes: Buffer;
}

/** A file that a stream's bytes go to. */
export interface ArrangedFile {
  path: string;
  /** Writes where nothing was written yet. Throws `Elf2dmpError`. */
  write(bytes: Buffer, position: number): Promise<void>;
  /** Memory that `overwrite` is fastest from. */
  memory(size: number): Buffer;
  /** Writes over whatever is there. Throws `Elf2dmpError`. */
  overwrite(bytes: Buffer, position: number): Promise<void>;
  /** Writes at once, over whatever is there: for many small pieces. Throws `Elf2dmpError`. */
  writeNow(bytes: Buffer, position: number): void;
  /** Fills `target`, with zeros where nothing was written. Throws `Elf2dmpError`. */
  readNow(target: Buffer, position: number): void;
  /** Waits while the disk is too far behind what was written. Throws `Elf2dmpError`. */
  settle(): Promise<void>;
  /** Whether what was not written is zeros as it should be. */
  readonly holes: boolean;
  /** Called when the stream has ended: the file has to have `size` bytes. Throws `Elf2dmpError`. */
  end(size: number): Promise<void>;
  /** Lets go of what `overwrite` took; called in the end, whatever happened, and then nothing is written any more. */
  close(): Promise<void>;
}

/** Where a stream's bytes go; those that are neither in parts nor kept are dropped. */
export class Arrangement {
  readonly file: ArrangedFile;
  readonly #parts: readonly Part[];
  /** Sorted, disjoint. */
  #kept: readonly Kept[];

  /**
   * @param parts sorted by offset, disjoint
   * @param kept ranges of the stream that stay in memory: sorted by offset, disjoint, and apart from the parts
   */
  constructor(file: ArrangedFile, parts: readonly Part[], kept: readonly { offset: number; size: number }[]) {
    this.file = file;
    this.#parts = parts;
    this.#kept = kept.map(({ offset, size }) => ({ offset, bytes: Buffer.alloc(size) }));
  }

  /** Where in the file a byte of the stream is, and how many bytes from it on; undefined if it does not go there. */
  placeOf(offset: number): { position: number; size: number } | undefined {
    const part = this.#parts[firstEnding(this.#parts, offset)];
    if (!part || part.offset > offset) return undefined;
    const within = offset - part.offset;
    return { position: part.position + within, size: part.size - within };
  }

  /** What is in memory, from the first byte at or after `offset` on. */
  keptFrom(offset: number): Kept | undefined {
    const next = this.#kept[firstEnding(this.#kept, offset)];
    if (!next || next.offset >= offset) return next;
    return { offset, bytes: next.bytes.subarray(offset - next.offset) };
  }

  /**
   * Keeps bytes of the stream that the file is about to lose.
   *
   * @param bytes disjoint, and apart from what is kept already
   */
  keep(bytes: readonly Kept[]): void {
    this.#kept = [...this.#kept, ...bytes].sort((a, b) => a.offset - b.offset);
  }

  /** Takes the stream's next bytes. Returns where the file ends with them. Throws `Elf2dmpError`. */
  async put(bytes: Buffer, offset: number): Promise<number> {
    const end = offset + bytes.length;
    const kept = this.#kept;
    for (let i = firstEnding(kept, offset); i < kept.length && kept[i]!.offset < end; i++) {
      const one = kept[i]!;
      bytes.copy(one.bytes, Math.max(0, offset - one.offset), Math.max(0, one.offset - offset));
    }
    let fileEnd = 0;
    const parts = this.#parts;
    for (let i = firstEnding(parts, offset); i < parts.length && parts[i]!.offset < end; i++) {
      const part = parts[i]!;
      const from = Math.max(offset, part.offset);
      const to = Math.min(end, part.offset + part.size);
      const position = part.position + from - part.offset;
      await this.file.write(bytes.subarray(from - offset, to - offset), position);
      fileEnd = Math.max(fileEnd, position + to - from);
    }
    return fileEnd;
  }
}

/** A stream that was put into another order. Reads of what was dropped throw a RangeError. */
export class ArrangedSource implements ByteSource {
  readonly name: string;
  readonly size: number;
  readonly fd = undefined;
  readonly #arrangement: Arrangement;
  readonly #file: FileSource;

  /** @param size of the stream, which has been written */
  constructor(name: string, size: number, arrangement: Arrangement) {
    this.name = name;
    this.size = size;
    this.#arrangement = arrangement;
    this.#file = FileSource.open(arrangement.file.path);
  }

  /**
   * Writes a stream as it comes. Damage of a container ends it; what came before is used.
   *
   * @param name of the result, for messages
   */
  static async write(
    chunks: AsyncIterable<Buffer>,
    arrangement: Arrangement,
    name: string,
    signal?: AbortSignal,
  ): Promise<{ source: ArrangedSource; damage: ContainerDamage | undefined }> {
    let read = 0;
    let fileSize = 0;
    let damage: ContainerDamage | undefined;
    try {
      damage = await inChunks(chunks, async (bytes) => {
        signal?.throwIfAborted();
        fileSize = Math.max(fileSize, await arrangement.put(bytes, read));
        read += bytes.length;
      });
      await arrangement.file.end(fileSize);
    } finally {
      await arrangement.file.close();
    }
    return { source: new ArrangedSource(name, read, arrangement), damage };
  }

  readSync(offset: number, target: Uint8Array): void {
    for (const [position, piece] of this.#pieces(offset, target)) this.#file.readSync(position, piece);
  }

  async read(offset: number, target: Uint8Array): Promise<void> {
    for (const [position, piece] of this.#pieces(offset, target)) await this.#file.read(position, piece);
  }

  close(): void {
    this.#file.close();
  }

  /** Copies what is in memory; the rest is to be read from the file. */
  *#pieces(offset: number, target: Uint8Array): Generator<[position: number, piece: Uint8Array]> {
    const end = offset + target.length;
    if (offset < 0 || end > this.size) throw this.#lacks(offset, target.length);
    for (let at = offset; at < end; ) {
      const kept = this.#arrangement.keptFrom(at);
      const rest = target.subarray(at - offset);
      if (kept?.offset === at) {
        const bytes = kept.bytes.subarray(0, end - at);
        rest.set(bytes);
        at += bytes.length;
        continue;
      }
      const place = this.#arrangement.placeOf(at);
      if (!place) throw this.#lacks(at, end - at);
      const length = Math.min(end - at, place.size, (kept?.offset ?? end) - at);
      yield [place.position, rest.subarray(0, length)];
      at += length;
    }
  }

  #lacks(offset: number, length: number): RangeError {
    return new RangeError(`${this.name}: read of ${length} bytes at ${offset}: they were not kept (size ${this.size})`);
  }
}

/** Index of the first of sorted ranges that ends after `offset`. */
function firstEnding(ranges: readonly (Part | Kept)[], offset: number): number {
  const endOf = (range: Part | Kept) => range.offset + ('bytes' in range ? range.bytes.length : range.size);
  return firstIndex(ranges.length, (i) => endOf(ranges[i]!) > offset);
}
