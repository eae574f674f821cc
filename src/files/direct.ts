/**
 * Writing past the page cache (O_DIRECT): the bytes are not copied once more, nothing waits for the last sync, and what
 * others have in the cache stays there. benchmarks/copying.md has the figures.
 */
import { constants } from 'node:fs';
import { type FileHandle, open, statfs } from 'node:fs/promises';
import { fallocateOf, type Libc, loadLibc } from './libc.ts';
import { writeAll } from './publish.ts';

/** Places, sizes and memory are multiples of it: enough for every disk's blocks. */
const UNIT = 4096;

/** statfs(2): ext4 and XFS, where it was measured. Others take it too, but may be slower, or copy all the same. */
const FILE_SYSTEMS: readonly number[] = [0xef53, 0x58465342];

/** A file that is being written, and its second descriptor. */
export class DirectFile {
  readonly #file: FileHandle;
  readonly #name: string;
  readonly #direct: FileHandle;
  readonly #libc: Libc;
  #works = true;

  private constructor(files: { file: FileHandle; direct: FileHandle }, name: string, libc: Libc) {
    this.#file = files.file;
    this.#direct = files.direct;
    this.#name = name;
    this.#libc = libc;
  }

  /**
   * A file that is to have `size` bytes, whose blocks are taken at once: then writes need not wait for each other.
   * undefined where it can't be done, or need not be faster.
   *
   * @param sparse what is not written stays a hole: blocks are taken by writing
   */
  static async of(
    file: FileHandle,
    name: string,
    size: number,
    { sparse = false }: { sparse?: boolean } = {},
  ): Promise<DirectFile | undefined> {
    const libc = await loadLibc();
    if (typeof libc === 'string') return undefined;
    const path = `/proc/self/fd/${file.fd}`;
    const system = await statfs(path).catch(() => undefined);
    if (!system || !FILE_SYSTEMS.includes(system.type)) return undefined;
    const direct = await open(path, constants.O_WRONLY | constants.O_DIRECT).catch(() => undefined);
    // Where there is no room, writing says so.
    if (direct && !sparse) await takeBlocks(libc, file.fd, size);
    return direct && new DirectFile({ file, direct }, name, libc);
  }

  /**
   * Writes all of `bytes`, which begin where memory of `memory` does; through the page cache what can't go past it.
   * Throws `Elf2dmpError`.
   */
  async write(bytes: Buffer, position: number): Promise<void> {
    const taken = await this.#writeDirect(bytes, position);
    await writeAll(this.#file, this.#name, bytes.subarray(taken), position + taken);
  }

  /** Memory that the disk can be written from, and that all threads see. */
  memory(size: number): Buffer<SharedArrayBuffer> {
    const memory = new SharedArrayBuffer(size + UNIT);
    return Buffer.from(memory, this.#aligned(memory), size);
  }

  /** As `memory`, for one thread: bytes are copied into it many times faster where they come from odd places. */
  ownMemory(size: number): Buffer {
    const memory = new ArrayBuffer(size + UNIT);
    return Buffer.from(memory, this.#aligned(memory), size);
  }

  #aligned(memory: ArrayBufferLike): number {
    const within = Number(this.#libc.addressOf(new Uint8Array(memory)) % BigInt(UNIT));
    return (UNIT - within) % UNIT;
  }

  /** How many bytes it took, from the first on: whatever is wrong, the usual way says it. */
  async #writeDirect(bytes: Buffer, position: number): Promise<number> {
    if (!this.#works || position % UNIT !== 0 || bytes.length % UNIT !== 0) return 0;
    try {
      const { bytesWritten } = await this.#direct.write(bytes, 0, bytes.length, position);
      if (bytesWritten % UNIT === 0) return bytesWritten;
    } catch {
      // As below.
    }
    this.#works = false;
    return 0;
  }

  /** Closes the second descriptor. */
  async close(): Promise<void> {
    await this.#direct.close();
  }
}

/** True where the blocks were taken. */
function takeBlocks(libc: Libc, fd: number, size: number): Promise<boolean> {
  return new Promise((resolve) => {
    fallocateOf(libc).async(fd, 0, 0, size, (_: unknown, result: number) => resolve(result === 0));
  });
}
