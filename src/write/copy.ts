/** Writes a plan by copying: to a temporary file beside the output, which gets its name when it is complete. */
import { randomBytes } from 'node:crypto';
import { constants, fstatSync } from 'node:fs';
import { type FileHandle, link, lstat, open, realpath, rename, stat, statfs, unlink } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { alignUp } from '../core/bits.ts';
import { Elf2dmpError, ioError } from '../core/errors.ts';
import { bytes } from '../core/units.ts';
import type { MemoryImage } from '../memory/image.ts';
import { HoleMap } from '../files/holes.ts';
import { BATCH_BYTES, batchesOf, readPieces } from './batches.ts';
import type { SparseChoice } from '../dump/choices.ts';
import { cloneRange } from '../files/clone-range.ts';
import type { DumpPlan } from '../plan/plan.ts';
import { type Span, withoutHoles, withoutZeros } from './sparse.ts';

export interface EmitOptions {
  /** Default `auto`. */
  sparse?: SparseChoice | undefined;
  /** Replace an existing file. */
  force?: boolean | undefined;
  signal?: AbortSignal | undefined;
  /** Called with bytes written so far and in all. */
  onProgress?: ((done: number, total: number) => void) | undefined;
  /** Called when everything was read and written, before it gets the output's name; may throw to refuse it. */
  beforePublish?: (() => void) | undefined;
}

/** Requests in flight: measured in benchmarks/, more give nothing on two cores. */
const IN_FLIGHT = 4;

/** Refuses what can't become the output, before any work is done. Returns the path with links resolved. */
export async function checkOutput(output: string, input: string, force: boolean): Promise<string> {
  const directory = dirname(output);
  let resolved: string;
  try {
    resolved = join(await realpath(directory), basename(output));
  } catch (cause) {
    throw ioError('use the output directory', directory, cause);
  }
  const existing = await lstat(resolved).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined;
    throw ioError('use', output, error);
  });
  if (!existing) return resolved;
  if (existing.isDirectory() || !existing.isFile()) {
    throw new Elf2dmpError({
      code: 'output-not-a-file',
      kind: 'io-permanent',
      message: existing.isDirectory() ? 'the output is a directory' : 'the output exists and is not a regular file',
      file: output,
      hint: 'name a new file for the dump',
    });
  }
  // fstat(0) for standard input: `elf2dmp - FILE < FILE`.
  const source = input === '-' ? fstatSync(0) : await stat(input).catch(() => undefined);
  if (source && source.dev === existing.dev && source.ino === existing.ino) {
    throw new Elf2dmpError({
      code: 'output-is-input',
      kind: 'usage',
      message: 'the output is the input',
      file: output,
      hint: 'name another file for the dump',
    });
  }
  if (!force) throw outputExists(output);
  return resolved;
}

const outputExists = (output: string) =>
  new Elf2dmpError({
    code: 'output-exists',
    kind: 'io-permanent',
    message: 'the output exists already and was left as it is',
    file: output,
    hint: 'give --force to replace it, or name another file',
  });

/**
 * Writes the dump. Nothing appears under the output's name before it is complete and on disk; on any
 * failure the temporary file is removed and an existing output is as it was.
 *
 * @param output as `checkOutput` returned it
 */
export async function emitCopy(
  plan: DumpPlan,
  image: MemoryImage,
  output: string,
  options: EmitOptions = {},
): Promise<void> {
  const needed = spaceNeeded(plan, image, options.sparse);
  if (needed !== undefined) await checkSpace(output, needed);
  await writeThenPublish(output, options, (file, name) => copyAll(plan, image, file, name, options));
}

/** Runs `write` on a new temporary file beside the output, which gets the output's name when it is on disk. */
export async function writeThenPublish(
  output: string,
  options: EmitOptions,
  write: (file: FileHandle, name: string) => Promise<void>,
): Promise<void> {
  const temporary = `${output}.${randomBytes(6).toString('hex')}.part`;
  const file = await open(
    temporary,
    constants.O_RDWR | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW,
    0o600,
  ).catch((cause) => {
    throw ioError('create', temporary, cause);
  });
  let kept = false;
  try {
    try {
      await write(file, temporary);
      await file.sync().catch((cause) => {
        throw ioError('write to disk', temporary, cause);
      });
    } finally {
      await file.close();
    }
    options.signal?.throwIfAborted();
    options.beforePublish?.();
    await publish(temporary, output, options.force ?? false);
    kept = true;
  } finally {
    if (!kept) await unlink(temporary).catch(() => undefined);
  }
}

/**
 * Writes a small file as a dump is written: whole or not at all, and never over another one without `force`.
 *
 * @param output as `checkOutput` returned it
 */
export async function writeNewFile(output: string, content: Buffer, options: EmitOptions = {}): Promise<void> {
  await writeThenPublish(output, options, (file, name) => writeAll(file, name, content, 0));
}

/** The part of the input that becomes the dump's pages as it lies there. */
export interface SharedPages {
  /** Opened for reading. */
  fd: number;
  /** File offset of the first page in the input. */
  offset: number;
  /** The file system's block size: what can be shared begins and ends at its multiples. */
  block: number;
}

/** FirstPage of a dump that shares its pages: in the same place within a block as in the input. */
export const sharedFirstPage =
  ({ offset, block }: SharedPages) =>
  (prefix: number): number =>
    alignUp(prefix, block) + (offset % block);

/**
 * As `emitCopy`, but the pages share the input's blocks.
 *
 * @returns undefined, or the reason why it can't be done here; then nothing was written
 */
export async function emitReflink(
  plan: DumpPlan,
  shared: SharedPages,
  output: string,
  options: EmitOptions = {},
): Promise<string | undefined> {
  let obstacle: string | undefined;
  try {
    await writeThenPublish(output, options, async (file, name) => {
      const within = shared.offset % shared.block;
      obstacle = await cloneRange(
        { fd: shared.fd, offset: shared.offset - within, length: 0 },
        { fd: file.fd, offset: plan.firstPage - within },
      );
      if (obstacle) throw new NotShared();
      await writeAll(file, name, plan.prefix, 0);
      for (const patch of plan.patches) await writeAll(file, name, patch.bytes, positionOf(plan, patch.physical));
      // What lies behind the pages in the input is no part of the dump.
      await file.truncate(plan.size).catch((cause) => {
        throw ioError('truncate', name, cause);
      });
    });
  } catch (error) {
    if (!(error instanceof NotShared)) throw error;
  }
  return obstacle;
}

class NotShared extends Error {}

/** File offset of a physical address that the plan keeps. */
export function positionOf(plan: DumpPlan, physical: number): number {
  let position = plan.firstPage;
  for (const { start, size } of plan.extents) {
    if (physical >= start && physical < start + size) return position + physical - start;
    position += size;
  }
  throw new RangeError(`physical 0x${physical.toString(16)} is not in the plan`);
}

export async function writeAll(file: FileHandle, name: string, bytes: Buffer, position: number): Promise<void> {
  for (let at = 0; at < bytes.length; ) {
    const { bytesWritten } = await file.write(bytes, at, bytes.length - at, position + at).catch((cause) => {
      throw ioError('write', name, cause);
    });
    at += bytesWritten;
  }
}

/** Bytes on disk, at most; undefined where only writing tells. */
function spaceNeeded(plan: DumpPlan, image: MemoryImage, sparse: SparseChoice = 'auto'): number | undefined {
  if (sparse === 'always') return undefined;
  if (sparse === 'never' || image.fd === undefined) return plan.size;
  return Math.min(plan.size, plan.firstPage + fstatSync(image.fd).blocks * 512);
}

export async function checkSpace(output: string, size: number): Promise<void> {
  const fs = await statfs(dirname(output)).catch(() => undefined);
  if (!fs || fs.blocks === 0) return;
  const free = fs.bavail * fs.bsize;
  if (free >= size) return;
  throw new Elf2dmpError({
    code: 'no-space',
    kind: 'io-transient',
    message: `the dump needs ${bytes(size)}, but its file system has ${bytes(free)} free`,
    file: output,
    hint: 'free space or name an output on another file system; nothing was written',
  });
}

async function copyAll(
  plan: DumpPlan,
  image: MemoryImage,
  file: FileHandle,
  name: string,
  options: EmitOptions,
): Promise<void> {
  const { signal, onProgress } = options;
  await writeAll(file, name, plan.prefix, 0);
  let done = plan.firstPage;
  const { sparse = 'auto' } = options;
  const holes = sparse === 'never' || image.fd === undefined ? undefined : await HoleMap.open(image.fd);
  const batches = batchesOf(plan);
  const lane = async () => {
    const buffer = Buffer.allocUnsafeSlow(BATCH_BYTES);
    const scratch = Buffer.allocUnsafeSlow(BATCH_BYTES);
    for (const { size, position, pieces } of batches) {
      signal?.throwIfAborted();
      const [{ physical } = { physical: 0 }] = pieces;
      // Pieces that share a batch are too short for holes.
      const parts =
        holes && pieces.length === 1
          ? withoutHoles(physical, physical + size, holesIn(image, holes, physical, size), plan.patches).map(
              (span) => ({
                start: position + span.from - physical,
                size: span.to - span.from,
                pieces: [{ physical: span.from, size: span.to - span.from }],
              }),
            )
          : [{ start: position, size, pieces }];
      for (const part of parts) {
        const piece = buffer.subarray(0, part.size);
        await readPieces(image, part.pieces, plan.patches, piece, scratch);
        if (sparse === 'always') {
          for (const { at, bytes } of withoutZeros(piece, part.start))
            await writeAll(file, name, bytes, part.start + at);
        } else await writeAll(file, name, piece, part.start);
      }
      done += size;
      onProgress?.(done, plan.size);
    }
  };
  // The lanes share one iterator; when one fails the others stop at their next chunk.
  const lanes = Array.from({ length: IN_FLIGHT }, () => lane());
  const results = await Promise.allSettled(lanes);
  const failed = results.find((r): r is PromiseRejectedResult => r.status === 'rejected');
  if (failed) throw failed.reason;
  // Where it ends with a hole.
  await file.truncate(plan.size).catch((cause) => {
    throw ioError('write', name, cause);
  });
}

/** Physical addresses whose bytes are in holes of the input's file. */
function* holesIn(image: MemoryImage, holes: HoleMap, physical: number, size: number): Generator<Span> {
  for (const { from, to, fileOffset } of image.filePieces(physical, size)) {
    for (const hole of holes.within(fileOffset, fileOffset + to - from)) {
      yield { from: from + hole.from - fileOffset, to: from + hole.to - fileOffset };
    }
  }
}

/** Gives the complete file its name. Without `force`, never over a file that appeared meanwhile. */
async function publish(temporary: string, output: string, force: boolean): Promise<void> {
  try {
    if (force) {
      await rename(temporary, output);
    } else {
      try {
        await link(temporary, output);
        await unlink(temporary);
      } catch (error) {
        const { code } = error as NodeJS.ErrnoException;
        if (code === 'EEXIST') throw outputExists(output);
        // File systems without hard links (FAT, some network ones).
        if (code !== 'EPERM' && code !== 'ENOTSUP' && code !== 'EOPNOTSUPP' && code !== 'ENOSYS' && code !== 'EMLINK')
          throw error;
        if (await lstat(output).catch(() => undefined)) throw outputExists(output);
        await rename(temporary, output);
      }
    }
  } catch (error) {
    if (error instanceof Elf2dmpError) throw error;
    throw ioError('rename the finished dump to', output, error);
  }
  // The name has to survive a crash too; some file systems can't sync a directory.
  const directory = await open(dirname(output), constants.O_RDONLY).catch(() => undefined);
  await directory?.sync().catch(() => undefined);
  await directory?.close();
}
