/** The bytes of a pipe, or of whatever can be read once only. */
import { close as closeCallback, read as readCallback } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { KIB, MIB } from '../core/units.ts';

const readSome = promisify(readCallback);
const closeFile = promisify(closeCallback);

/** Enough to recognise a format; a slow writer is not waited for longer than that. */
const FIRST = 64 * KIB;
const CHUNK = MIB;

/** How long to wait where whoever has the other end made it non-blocking. */
const RETRY_MS = 5;

/** Whole MiB of a stream, but for its end and a first piece of 64 KiB. */
export class PipeChunks implements AsyncIterable<Buffer> {
  /** Set by consumers that are done with a chunk when they ask for the next: then they share memory. */
  reuse = false;
  readonly #fd: number;

  /** @param fd closed at the end, unless it is standard input */
  constructor(fd: number) {
    this.#fd = fd;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Buffer> {
    let shared: Buffer | undefined;
    try {
      for (let read = 0; ; ) {
        if (this.reuse) shared ??= Buffer.allocUnsafeSlow(CHUNK);
        const chunk = (shared ?? Buffer.allocUnsafeSlow(CHUNK)).subarray(0, wanted(read));
        const filled = await this.#fill(chunk);
        if (filled > 0) yield chunk.subarray(0, filled);
        if (filled < chunk.length) return;
        read += filled;
      }
    } finally {
      if (this.#fd !== 0) await closeFile(this.#fd);
    }
  }

  async #fill(target: Buffer): Promise<number> {
    let filled = 0;
    while (filled < target.length) {
      const count = await this.#read(target, filled);
      if (count === 0) break;
      filled += count;
    }
    return filled;
  }

  async #read(target: Buffer, from: number): Promise<number> {
    for (;;) {
      try {
        return (await readSome(this.#fd, target, from, target.length - from, null)).bytesRead;
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error;
        await sleep(RETRY_MS);
      }
    }
  }
}

/** First a little, then what is missing of a whole chunk. */
function wanted(read: number): number {
  if (read === 0) return FIRST;
  return read < CHUNK ? CHUNK - read : CHUNK;
}
