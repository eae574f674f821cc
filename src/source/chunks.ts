/** Bytes that come in pieces. */

/** A compressed file that cannot be decompressed further. The bytes before the damage may be sound. */
export class ContainerDamage extends Error {
  readonly how: 'truncated' | 'damaged';

  constructor(how: 'truncated' | 'damaged', message: string) {
    super(message);
    this.how = how;
  }
}

/** Takes exact amounts from a stream. Callers must bound the length. */
export class ChunkReader {
  readonly #chunks: AsyncIterator<Buffer>;
  #left: Buffer = Buffer.alloc(0);

  constructor(chunks: AsyncIterable<Buffer>) {
    this.#chunks = chunks[Symbol.asyncIterator]();
  }

  /** Fewer bytes only at the end. */
  async upTo(length: number): Promise<Buffer> {
    const parts: Buffer[] = [];
    let missing = length;
    while (missing > 0) {
      if (this.#left.length === 0) {
        const { done, value } = await this.#chunks.next();
        if (done) break;
        this.#left = value;
        continue;
      }
      const part = this.#left.subarray(0, missing);
      this.#left = this.#left.subarray(part.length);
      parts.push(part);
      missing -= part.length;
    }
    return parts.length === 1 ? parts[0]! : Buffer.concat(parts);
  }

  /** At least one byte and at most `limit`, as they come; none at the end. */
  async some(limit: number): Promise<Buffer> {
    while (this.#left.length === 0) {
      const { done, value } = await this.#chunks.next();
      if (done) return this.#left;
      this.#left = value;
    }
    const part = this.#left.subarray(0, limit);
    this.#left = this.#left.subarray(part.length);
    return part;
  }

  /** Takes back what was read last. */
  unread(bytes: Buffer): void {
    this.#left = this.#left.length === 0 ? bytes : Buffer.concat([bytes, this.#left]);
  }

  /** Throws `ContainerDamage` at the end of the stream. */
  async exactly(length: number): Promise<Buffer> {
    const bytes = await this.upTo(length);
    if (bytes.length < length) throw new ContainerDamage('truncated', 'it ends in the middle');
    return bytes;
  }

  /** Passes over bytes without keeping them. */
  async skip(length: number): Promise<void> {
    for (let left = length; left > 0; ) left -= (await this.exactly(Math.min(left, 65_536))).length;
  }
}
