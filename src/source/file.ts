import { closeSync, constants, fstatSync, openSync, read as readCallback, readSync } from 'node:fs';
import { promisify } from 'node:util';
import { Elf2dmpError, ioError } from '../core/errors.ts';
import { type ByteSource, checkRange } from './source.ts';

const readAsync = promisify(readCallback);

/** A regular file, opened read-only. */
export class FileSource implements ByteSource {
  readonly name: string;
  readonly size: number;
  readonly fd: number;
  #closed = false;

  private constructor(name: string, fd: number, size: number) {
    this.name = name;
    this.fd = fd;
    this.size = size;
  }

  static open(path: string): FileSource {
    let fd: number;
    try {
      // Non-blocking, or opening a pipe would wait for a writer.
      fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    } catch (cause) {
      throw ioError('open', path, cause);
    }
    try {
      const stat = fstatSync(fd);
      if (!stat.isFile()) {
        throw new Elf2dmpError({
          code: 'io-not-a-file',
          kind: 'io-permanent',
          message: `not a regular file (${stat.isDirectory() ? 'a directory' : 'a device, pipe or socket'})`,
          file: path,
          hint: 'name the dump file itself',
        });
      }
      return new FileSource(path, fd, stat.size);
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  }

  /** Takes over an open regular file. */
  static adopt(fd: number, name: string): FileSource {
    return new FileSource(name, fd, fstatSync(fd).size);
  }

  readSync(offset: number, target: Uint8Array): void {
    checkRange(this, offset, target.length);
    for (let done = 0; done < target.length; ) {
      let count: number;
      try {
        count = readSync(this.fd, target, done, target.length - done, offset + done);
      } catch (cause) {
        throw ioError(`read at offset 0x${(offset + done).toString(16)}`, this.name, cause);
      }
      if (count === 0) throw this.#shrunk(offset + done);
      done += count;
    }
  }

  async read(offset: number, target: Uint8Array): Promise<void> {
    checkRange(this, offset, target.length);
    for (let done = 0; done < target.length; ) {
      let count: number;
      try {
        ({ bytesRead: count } = await readAsync(this.fd, target, done, target.length - done, offset + done));
      } catch (cause) {
        throw ioError(`read at offset 0x${(offset + done).toString(16)}`, this.name, cause);
      }
      if (count === 0) throw this.#shrunk(offset + done);
      done += count;
    }
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    closeSync(this.fd);
  }

  #shrunk(offset: number): Elf2dmpError {
    return new Elf2dmpError({
      code: 'input-changed',
      kind: 'io-transient',
      message: 'the file became shorter while it was read',
      file: this.name,
      offset,
      expected: `${this.size} bytes`,
      actual: 'its end',
      hint: 'is it still being written? wait until the dump is complete, then convert again',
    });
  }
}
