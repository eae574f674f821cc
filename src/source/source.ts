/** Random access to the bytes of an input. Nothing here can write to it. */

/** Random access to an input's bytes, sync for headers and async for bulk. */
export interface ByteSource {
  /** For messages. */
  readonly name: string;
  /** Bytes, as it was when opened. */
  readonly size: number;
  /** The open file, where the bytes are those of a file; undefined where they are made from something else. */
  readonly fd: number | undefined;
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
