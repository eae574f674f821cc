/**
 * Writes a dump while its input comes: pages go straight to their place in the file that becomes the dump, and header
 * and patches follow when Windows has been found in them.
 */
import { readSync, writeSync } from 'node:fs';
import { Elf2dmpError, ioError } from '../core/errors.ts';
import { hex, MIB } from '../core/units.ts';
import { DirectFile } from '../files/direct.ts';
import { type BegunFile, checkSpace, type Publication, writeAll } from '../files/publish.ts';
import { WriteBack } from '../files/write-back.ts';
import type { MemoryImage } from '../memory/image.ts';
import { firstOverlap, type Range, sum, without } from '../memory/runs.ts';
import type { DumpTypeChoice, SparseChoice } from '../options/choices.ts';
import { chooseType } from '../plan/dump-type.ts';
import { type DumpLayout, type DumpPlan, layOutDump, positionOf } from '../plan/plan.ts';
import type { Foreseen } from '../readers/foresee.ts';
import { PROBE_SIZE } from '../readers/reader.ts';
import { Arrangement, type Kept, type Part } from '../source/arranged.ts';
import { DIRECT_FROM } from './copy.ts';
import type { EmitOptions } from './options.ts';
import { MIN_HOLE, withoutZeros } from './sparse.ts';

/** Memory that the input has and the dump has not, such as incomplete pages, is kept up to this much. */
const MAX_LEFT_OUT = MIB;

/** Of the dump. */
interface OnePassChoices extends Pick<EmitOptions, 'sparse' | 'force' | 'isReadNext'> {
  /** Default `auto`. */
  type?: DumpTypeChoice | undefined;
}

/** A dump that is begun before it can be planned. */
export class OnePass {
  readonly #together: Publication;
  readonly #output: string;
  readonly #type: DumpTypeChoice;
  readonly #sparse: SparseChoice;
  readonly #force: boolean | undefined;
  readonly #isReadNext: boolean | undefined;
  #begun: { arrangement: Arrangement; file: BegunFile } | undefined;

  /** @param output as `checkOutput` returned it */
  constructor(together: Publication, output: string, { type = 'auto', sparse = 'auto', ...others }: OnePassChoices) {
    this.#force = others.force;
    this.#isReadNext = others.isReadNext;
    this.#together = together;
    this.#output = output;
    this.#type = type;
    this.#sparse = sparse;
  }

  /** Begins the dump of a stream; undefined where its pages have no place in it yet. Throws `Elf2dmpError`. */
  readonly arrange = async ({ image, headSize, promise }: Foreseen): Promise<Arrangement | undefined> => {
    const layout = foreseenLayout(image, this.#type);
    const places = layout && placesOf(image, layout, headSize);
    if (!places) return undefined;
    // Nothing says how much raw memory there is; holes may make the dump smaller than it is.
    if (this.#sparse === 'never' && image.format !== 'raw') await checkSpace(this.#output, layout.size);
    const file = await this.#together.begin(this.#output, { force: this.#force });
    const writeBack = await WriteBack.of(file.handle, this.#output);
    const direct = promise && (await this.#direct(file, layout.size));
    let unsettled = 0;
    let furthest = 0;
    const arrangement = new Arrangement(
      {
        path: file.path,
        holes: this.#sparse !== 'never',
        write: async (bytes, position) => {
          for (const part of this.#parts(bytes, position)) {
            await writeAll(file.handle, this.#output, part.bytes, position + part.at);
          }
          await writeBack.wrote(bytes.length);
        },
        memory: (size) => direct?.ownMemory(size) ?? Buffer.allocUnsafeSlow(size),
        overwrite: async (bytes, position) => {
          // What comes again may do so many times: it is changed where that is fast, and then written once.
          const isNew = position >= furthest;
          furthest = Math.max(furthest, position + bytes.length);
          if (direct && isNew) return direct.write(bytes, position);
          unsettled += bytes.length;
          await writeAll(file.handle, this.#output, bytes, position);
        },
        writeNow: (bytes, position) => {
          writeAllNow(file, this.#output, bytes, position);
          unsettled += bytes.length;
        },
        readNow: (target, position) => readNow(file, target, position),
        settle: async () => {
          await writeBack.wrote(unsettled);
          unsettled = 0;
        },
        end: async (size) => {
          await writeBack.end();
          await this.#truncate(file, size);
        },
        close: async () => direct?.close(),
      },
      places.parts,
      places.kept,
    );
    this.#begun = { arrangement, file };
    return arrangement;
  };

  /**
   * Makes what has been written the planned dump. False if the stream was not what its first bytes promised, or there
   * was none: then the dump has to be written as others are. Throws `Elf2dmpError`.
   */
  async finish(plan: DumpPlan, image: MemoryImage, options: EmitOptions): Promise<boolean> {
    if (!this.#begun) return false;
    const { arrangement, file } = this.#begun;
    const lost = holds(arrangement, plan, image) ? lostWith(plan, image) : undefined;
    if (!lost) {
      await file.abandon();
      return false;
    }
    arrangement.keep(lost);
    await writeAll(file.handle, this.#output, plan.prefix, 0);
    for (const { physical, bytes } of plan.patches) {
      await writeAll(file.handle, this.#output, bytes, positionOf(plan, physical));
    }
    await this.#truncate(file, plan.size);
    options.onProgress?.(plan.size, plan.size);
    await file.finish(options);
    return true;
  }

  /** The file past the page cache; it gets its size, so that writes need not wait for it to grow. */
  async #direct(file: BegunFile, size: number): Promise<DirectFile | undefined> {
    if (this.#isReadNext || size < DIRECT_FROM) return undefined;
    const direct = await DirectFile.of(file.handle, this.#output, size, { sparse: true });
    if (direct) await this.#truncate(file, size);
    return direct;
  }

  /** What of bytes is written where nothing was yet. */
  #parts(bytes: Buffer, position: number): Iterable<{ at: number; bytes: Buffer }> {
    if (this.#sparse === 'always') return withoutZeros(bytes, position);
    const zeros = bytes.length >= MIN_HOLE && bytes.equals(ZEROS.subarray(0, bytes.length));
    return zeros && this.#sparse !== 'never' ? [] : [{ at: 0, bytes }];
  }

  #truncate({ handle }: BegunFile, size: number): Promise<void> {
    return handle.truncate(size).catch((cause) => {
      throw ioError('write', this.#output, cause);
    });
  }
}

const ZEROS = Buffer.alloc(MIB);

function writeAllNow({ handle }: BegunFile, name: string, bytes: Buffer, position: number): void {
  for (let at = 0; at < bytes.length; ) {
    try {
      at += writeSync(handle.fd, bytes, at, bytes.length - at, position + at);
    } catch (cause) {
      throw ioError('write', name, cause);
    }
  }
}

function readNow({ handle, path }: BegunFile, target: Buffer, position: number): void {
  let at = 0;
  try {
    for (let count = -1; at < target.length && count !== 0; at += count) {
      count = readSync(handle.fd, target, at, target.length - at, position + at);
    }
  } catch (cause) {
    throw ioError(`read at offset ${hex(position)}`, path, cause);
  }
  target.fill(0, at);
}

/** Where the pages will lie; undefined where that depends on what is in them, or no such dump is possible. */
function foreseenLayout(image: MemoryImage, choice: DumpTypeChoice): DumpLayout | undefined {
  const { type } = chooseType(image, choice);
  if (image.triage || type === 'triage') return undefined;
  try {
    const layout = layOutDump(image, { type });
    // How much raw memory there is shows at its end only, and a page map is as long as that.
    return image.format === 'raw' && layout.type !== 'full' ? undefined : layout;
  } catch (error) {
    // It is told when the whole input has been seen.
    if (error instanceof Elf2dmpError) return undefined;
    throw error;
  }
}

/** What of a stream goes where; undefined where its bytes have no single place. */
function placesOf(
  image: MemoryImage,
  { extents, firstPage }: DumpLayout,
  headSize: number,
): { parts: Part[]; kept: { offset: number; size: number }[] } | undefined {
  const parts: Part[] = [];
  let position = firstPage;
  for (const { start, size } of extents) {
    for (const { from, to, fileOffset } of image.sourcePieces(start, size)) {
      addPart(parts, { offset: fileOffset, size: to - from, position: position + from - start });
    }
    position += size;
  }
  const leftOut = without(image.runs, extents);
  if (sum(leftOut) > MAX_LEFT_OUT) return undefined;
  const inMemory: Range[] = [];
  for (const { start, size } of leftOut) {
    for (const { from, to, fileOffset } of image.sourcePieces(start, size)) {
      inMemory.push({ start: fileOffset, size: to - from });
    }
  }
  parts.sort((a, b) => a.offset - b.offset);
  const memory = [...parts.map(({ offset, size }) => ({ start: offset, size })), ...inMemory].sort(byStart);
  // Headers among the pages, or one page for several addresses.
  if (firstOverlap(memory) || (memory[0]?.start ?? 0) < headSize) return undefined;
  const head = without([{ start: 0, size: Math.max(headSize, PROBE_SIZE) }], memory);
  const kept = [...head, ...inMemory].sort(byStart).map(({ start, size }) => ({ offset: start, size }));
  return { parts, kept };
}

const byStart = (a: Range, b: Range): number => a.start - b.start;

function addPart(parts: Part[], part: Part): void {
  const last = parts.at(-1);
  const continues = last && last.offset + last.size === part.offset && last.position + last.size === part.position;
  if (continues) last.size += part.size;
  else parts.push(part);
}

/** Whether all pages of a plan lie where it has them. */
function holds(arrangement: Arrangement, plan: DumpPlan, image: MemoryImage): boolean {
  let position = plan.firstPage;
  for (const { start, size } of plan.extents) {
    for (const { from, to, fileOffset } of image.sourcePieces(start, size)) {
      for (let at = from; at < to; ) {
        const place = arrangement.placeOf(fileOffset + at - from);
        if (place?.position !== position + at - start) return false;
        at += place.size;
      }
    }
    position += size;
  }
  return true;
}

/** What of the stream the file loses when it becomes the dump; undefined for too much. */
function lostWith(plan: DumpPlan, image: MemoryImage): Kept[] | undefined {
  const leftOut = without(image.runs, plan.extents);
  if (sum(leftOut) > MAX_LEFT_OUT) return undefined;
  const lost: Kept[] = [];
  for (const { physical, original } of plan.patches) {
    for (const { from, to, fileOffset } of image.sourcePieces(physical, original.length)) {
      lost.push({ offset: fileOffset, bytes: original.subarray(from - physical, to - physical) });
    }
  }
  for (const { start, size } of leftOut) {
    for (const { from, to, fileOffset } of image.sourcePieces(start, size)) {
      const bytes = Buffer.alloc(to - from);
      if (image.readSync(from, bytes)) lost.push({ offset: fileOffset, bytes });
    }
  }
  return lost;
}
