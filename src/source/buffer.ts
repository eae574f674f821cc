import { type ByteSource, checkRange } from './source.ts';

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
    checkRange(this, offset, target.length);
    this.#bytes.copy(target, 0, offset, offset + target.length);
  }

  async read(offset: number, target: Uint8Array): Promise<void> {
    this.readSync(offset, target);
  }

  close(): void {}
}
