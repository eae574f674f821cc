/** Streams as files: a stream that can be read only once goes to a temporary file without a name. */
import { randomBytes } from 'node:crypto';
import { closeSync, ftruncate as ftruncateCallback, openSync, unlinkSync, write as writeCallback } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { Elf2dmpError, ioError } from '../core/errors.ts';
import { MIB } from '../core/units.ts';
import { ContainerDamage } from './chunks.ts';
import { FileSource } from './file.ts';

const write = promisify(writeCallback);
const ftruncate = promisify(ftruncateCallback);

/** Also the least run of zeros that is left out: a hole is cheaper than writing it. */
const CHUNK = MIB;
const ZEROS = Buffer.alloc(CHUNK);

/** Standard input as a file on disk, removed on `close`. */
export interface Spooled {
  source: FileSource;
  /** Why the stream's rest is missing or doubtful. */
  damage: ContainerDamage | undefined;
}

/**
 * Writes a stream to a file in `directory` that has no name any more, so nothing stays behind however
 * the process ends. Damage of a container ends the stream; what came before is kept.
 *
 * @param name of the result, for messages
 */
export async function spool(
  chunks: AsyncIterable<Buffer>,
  directory: string,
  name: string,
  signal?: AbortSignal,
): Promise<Spooled> {
  const path = join(directory, `elf2dmp-${randomBytes(6).toString('hex')}.spool`);
  let fd: number;
  try {
    fd = openSync(path, 'wx+', 0o600);
  } catch (cause) {
    throw ioError('create a temporary file', path, cause);
  }
  try {
    unlinkSync(path);
    let size = 0;
    const put = async (bytes: Buffer) => {
      signal?.throwIfAborted();
      if (!bytes.equals(ZEROS.subarray(0, bytes.length))) await writeAll(fd, path, bytes, size);
      size += bytes.length;
    };
    const damage = await inChunks(chunks, put);
    await ftruncate(fd, size).catch((cause) => {
      throw ioError('write', path, cause);
    });
    return { source: FileSource.adopt(fd, name), damage };
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

/**
 * Passes a stream on in chunks of 1 MiB, the last may be shorter; each is only valid until `put` is done with it. Damage of
 * a container ends the stream and is returned.
 */
export async function inChunks(
  chunks: AsyncIterable<Buffer>,
  put: (bytes: Buffer) => Promise<void>,
): Promise<ContainerDamage | undefined> {
  let chunk: Buffer | undefined;
  let filled = 0;
  let damage: ContainerDamage | undefined;
  try {
    for await (const bytes of chunks) {
      if (filled === 0 && bytes.length === CHUNK) {
        await put(bytes);
        continue;
      }
      chunk ??= Buffer.allocUnsafeSlow(CHUNK);
      for (let at = 0; at < bytes.length; ) {
        const count = bytes.copy(chunk, filled, at);
        at += count;
        filled += count;
        if (filled === CHUNK) {
          await put(chunk);
          filled = 0;
        }
      }
    }
  } catch (error) {
    if (!(error instanceof ContainerDamage)) throw error;
    damage = error;
  }
  if (chunk && filled > 0) await put(chunk.subarray(0, filled));
  return damage;
}

async function writeAll(fd: number, path: string, bytes: Buffer, position: number): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    try {
      done += (await write(fd, bytes, done, bytes.length - done, position + done)).bytesWritten;
    } catch (cause) {
      const error = ioError('write a temporary file', path, cause);
      if (error.code !== 'io-enospc') throw error;
      throw new Elf2dmpError({
        ...error.details,
        hint: 'free space, or name a directory on another file system with --spool; nothing was left behind',
      });
    }
  }
}
