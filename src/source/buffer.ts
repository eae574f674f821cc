import type { ByteSource } from './source.ts';

/** Bytes in memory. */
export class BufferSource implements ByteSource {
  readonly name: string;
  readonly fd = undefined;
  readonly #bytes: Buffer;

  constructor(bytes: Buffer, name = 'buffer') {
    this.#bytes = bytes;
    this.name = name;
  }

  get size(): number {
    return this.#bytes.length;
  }

  readSync(offset: number, target: Uint8Array): void {
    if (offset < 0 || offset + target.length > this.size) {
      throw new RangeError(`${this.name}: read of ${target.length} bytes at ${offset}, beyond the size ${this.size}`);
    }
    this.#bytes.copy(target, 0, offset, offset + target.length);
  }

  async read(offset: number, target: Uint8Array): Promise<void> {
    this.readSync(offset, target);
  }

  close(): void {}
}
