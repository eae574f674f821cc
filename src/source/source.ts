/** Random access to the bytes of an input. Nothing here can write to it. */

/** Which 4 KiB of a source are damaged, by their offset. */
export type DamagedPages = Pick<ReadonlySet<number>, 'has' | 'size'>;

/** Random access to an input's bytes, sync for headers and async for bulk. */
export interface ByteSource {
  /** For messages. */
  readonly name: string;
  /** Bytes, as it was when opened. */
  readonly size: number;
  /** The open file, where the bytes are those of a file; undefined where they are made from something else. */
  readonly fd: number | undefined;
  /** Where bytes came as zeros because they are damaged, as far as they were read. Default: none. */
  readonly damagedPages?: DamagedPages;
  /** Long runs of zeros take no room in the input: a copy leaves them out as holes. Default: its file says which. */
  readonly zerosAreCheap?: true;
  /**
   * Fills `target` from byte `offset` on. Throws `Elf2dmpError` when the range goes beyond `size`, on
   * an I/O error, and when the file has become shorter since it was opened.
   */
  readSync(offset: number, target: Uint8Array): void;
  /** As `readSync`. */
  read(offset: number, target: Uint8Array): Promise<void>;
  /** May be called again. */
  close(): void;
}

/** As many bytes as there are from `offset` on, at most `length`. */
export function readUpTo(source: ByteSource, offset: number, length: number): Buffer {
  const available = Math.max(0, Math.min(length, source.size - offset));
  const buffer = Buffer.alloc(available);
  if (available > 0) source.readSync(offset, buffer);
  return buffer;
}

/** Throws a RangeError for a read beyond a source's end, which its caller should have known. */
export function checkRange({ name, size }: Pick<ByteSource, 'name' | 'size'>, offset: number, length: number): void {
  if (offset >= 0 && offset + length <= size) return;
  throw new RangeError(`${name}: read of ${length} bytes at ${offset}, beyond the size ${size}`);
}
