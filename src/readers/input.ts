/** Opens what people name as an input: a file, a compressed file, a pipe, standard input. */
import { fstatSync, openSync, readFileSync, statSync } from 'node:fs';
import { statfs } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { isatty } from 'node:tty';
import { Elf2dmpError, ioError } from '../core/errors.ts';
import { bytes, MIB } from '../core/units.ts';
import { InputWatch, lockForReading } from '../files/input-watch.ts';
import { enlargePipe } from '../files/pipe-size.ts';
import type { MemoryImage } from '../memory/image.ts';
import { STANDARD_STREAM } from '../options/choices.ts';
import { type InputBytes, nameOfBytes } from '../options/opened.ts';
import { type CallOptions, wrongValue } from '../options/values.ts';
import { ArrangedSource, type Arrangement } from '../source/arranged.ts';
import { BufferSource } from '../source/buffer.ts';
import type { ContainerDamage } from '../source/chunks.ts';
import { type Container, identifyContainer } from '../source/containers.ts';
import { FileSource } from '../source/file.ts';
import { FramedSource } from '../source/framed.ts';
import { PipeChunks } from '../source/pipe.ts';
import { type ByteSource, readUpTo } from '../source/source.ts';
import { spool } from '../source/spool.ts';
import { type Foreseen, foresee, isMigrationStream, type StreamHead } from './foresee.ts';
import { receive } from './qevm/arriving.ts';
import { readLibvirtHeader } from './qevm/libvirt.ts';
import { ESTIMATE_SIZE, type Estimate, PROBE_SIZE } from './reader.ts';
import { estimate, identify, openSource } from './registry.ts';

const CHUNK = 256 * 1024;

/** What the caller knows of an input, and how it follows a long copy. */
export interface OpenOptions extends CallOptions<'open'> {
  signal?: AbortSignal | undefined;
  /** Called before a stream is written to a temporary file. */
  onSpool?: ((spooling: Spooling) => void) | undefined;
  /** Called with bytes of the input read so far and in all (0: unknown) while it is written to a temporary file. */
  onSpooled?: ((done: number, total: number) => void) | undefined;
}

/** As `OpenOptions`, for callers that have a use for a stream's bytes while they come. */
export interface StreamOptions extends OpenOptions {
  /** Called with what a stream is going to hold: where its bytes shall go instead of a temporary file, if anywhere. */
  arrange?: ((foreseen: Foreseen) => Promise<Arrangement | undefined>) | undefined;
}

/** A temporary file that is about to be written. */
export interface Spooling {
  /** What becomes it. */
  name: string;
  container: string | undefined;
  directory: string;
  /** Bytes that are free there. */
  free: number;
  estimate: Estimate | undefined;
}

/** Throws `Elf2dmpError` when there is no such input. */
export function checkInput(path: string | InputBytes): void {
  if (typeof path !== 'string' || path === STANDARD_STREAM) return;
  try {
    statSync(path);
  } catch (cause) {
    throw ioError('open', path, cause);
  }
}

/**
 * Opens an input. A pipe, standard input and a compressed file are written to a temporary file first, or where the
 * caller wants them, since a dump's header depends on what comes at its end. Throws `Elf2dmpError`. The image has to be closed.
 *
 * @param path a file's, or `-` for standard input; or the input's bytes
 */
export async function openInput(path: string | InputBytes, options: StreamOptions = {}): Promise<MemoryImage> {
  if (typeof path !== 'string') return openBytes(path, options);
  const opened = openPath(path);
  if (opened instanceof FileSource) {
    const watch = await watched(opened, path);
    const at = containerIn(opened, options);
    const framed = at === 0 ? await framedIn(opened, options) : undefined;
    if (framed) return withCheck(openFramed(framed, options), () => watch.check());
    const whole = at === undefined ? await streamThrough(opened, options) : undefined;
    if (at === undefined && !whole) return watchedImage(openSource(opened, options), watch, options);
    try {
      const image = whole
        ? (await writeArranged(whole, options)).open()
        : await openStream(chunksOf(opened, at!), opened.name, opened.size - at!, options);
      try {
        await watch.check();
      } catch (error) {
        image.close();
        throw error;
      }
      // From now on its copy is read; but a hash is of the file.
      return withCheck(image, () => watch.check());
    } finally {
      opened.close();
    }
  }
  const { fd, name } = opened;
  await enlargePipe(fd, MIB);
  return openStream(new PipeChunks(fd), name, 0, options);
}

async function openBytes(input: InputBytes, options: StreamOptions): Promise<MemoryImage> {
  const name = nameOfBytes(input);
  if (!(input instanceof Uint8Array)) return openStream(buffersOf(input, name), name, 0, options);
  const source = new BufferSource(Buffer.from(input.buffer, input.byteOffset, input.byteLength), name);
  const at = containerIn(source, options);
  if (at === undefined) return openSource(source, options);
  const framed = at === 0 ? await framedIn(source, options) : undefined;
  if (framed) return openFramed(framed, options);
  return openStream(chunksOf(source, at), name, source.size - at, options);
}

async function* buffersOf(chunks: AsyncIterable<Uint8Array>, name: string): AsyncGenerator<Buffer> {
  for await (const chunk of chunks as AsyncIterable<unknown>) {
    if (!(chunk instanceof Uint8Array)) throw wrongValue(name, 'chunks of bytes', typeof chunk);
    yield Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
  }
}

/** Locks a file and remembers what it is like. Closes it if that fails. */
async function watched(file: FileSource, path: string): Promise<InputWatch> {
  try {
    await lockForReading(file.fd, file.name);
    return new InputWatch(file.fd, file.name, path === STANDARD_STREAM ? undefined : path);
  } catch (error) {
    file.close();
    throw error;
  }
}

/** Raw memory may be that of a running guest, whose writes leave no trace: then who could write counts as a change. */
function watchedImage(image: MemoryImage, watch: InputWatch, { liveInput = false }: OpenOptions): MemoryImage {
  const isRaw = image.format === 'raw';
  if (isRaw && !liveInput) {
    const [writer] = watch.writers();
    if (writer !== undefined) {
      image.close();
      throw new Elf2dmpError({
        code: 'input-live',
        kind: 'io-transient',
        message: `the memory is open for writing in ${writer}, and may change while it is read`,
        file: image.file,
        hint: 'stop the guest or make a dump of it; or give --live-input, which makes a change a loss',
      });
    }
  }
  const lose = (message: string) => {
    for (const each of new Set([image, ...image.alternatives])) each.diagnostics.add('loss', 'input-changed', message);
  };
  const check = async () => {
    if (!isRaw || !liveInput) return watch.check();
    const [writer] = watch.writers();
    const change = await watch.change();
    if (change !== undefined) lose(`the memory changed while it was read: ${change}`);
    else if (writer !== undefined)
      lose(`the memory may have changed while it was read: it is open for writing in ${writer}`);
  };
  return withCheck(image, check);
}

function withCheck(image: MemoryImage, check: () => Promise<void>): MemoryImage {
  for (const each of [image, ...image.alternatives]) each.checkUnchanged = check;
  return image;
}

/** A compressed file whose parts can be unpacked by themselves; undefined for others, which are streams. */
async function framedIn(
  file: ByteSource,
  { zstdWindow, signal, ...format }: OpenOptions,
): Promise<FramedSource | undefined> {
  try {
    const container = identifyContainer(readUpTo(file, 0, PROBE_SIZE));
    const windowLimit = zstdWindow && zstdWindow * MIB;
    const index = await container?.index?.(file, { windowLimit, signal });
    if (!index) return undefined;
    const source = new FramedSource(file, index, decompressed(file.name));
    // A migration stream is read from its front to its end in any case.
    return isMigrationStream(readUpTo(source, 0, PROBE_SIZE), format) ? undefined : source;
  } catch (error) {
    file.close();
    throw error;
  }
}

/**
 * Opens a crash dump's bytes to be looked at as they are; a compressed one has to be such that its parts can be unpacked
 * by themselves. Throws `Elf2dmpError`.
 */
export async function openDumpFile(path: string, signal?: AbortSignal): Promise<ByteSource> {
  const file = FileSource.open(path);
  const container = identifyContainer(readUpTo(file, 0, PROBE_SIZE));
  if (!container) return file;
  const framed = await framedIn(file, { signal });
  if (framed) return framed;
  file.close();
  throw new Elf2dmpError({
    code: 'compressed-dump',
    kind: 'unsupported',
    message: `the dump is compressed as a whole (${container.name}): only one that --compress wrote is checked as it is`,
    file: path,
    hint: 'decompress it first',
  });
}

/** Opens the contents; where that fails and they are damaged, the damage is the reason. */
function openFramed(source: FramedSource, options: OpenOptions): MemoryImage {
  const damaged = (message: string, error?: unknown) =>
    new Elf2dmpError({
      code: 'container-damaged',
      kind: 'corrupt',
      message,
      file: source.name,
      attempts: error instanceof Elf2dmpError ? [error.message] : [],
      hint: ANOTHER_COPY,
    });
  // Its first bytes were looked at: what it is would be guessed from zeros.
  const [atStart] = source.damage;
  if (atStart !== undefined && options.format !== 'raw') {
    source.close();
    throw damaged(atStart);
  }
  let image: MemoryImage;
  try {
    image = openSource(source, options);
  } catch (error) {
    const [damage] = source.damage;
    throw damage === undefined ? error : damaged(damage, error);
  }
  source.onDamage((message) => {
    for (const each of new Set([image, ...image.alternatives])) {
      each.diagnostics.add('loss', 'container-damaged', message);
    }
  });
  return image;
}

/** What messages call the contents of a compressed input. */
const decompressed = (name: string): string => `${name} (decompressed)`;

const ANOTHER_COPY = 'is there another copy of it? its own program may get further';

/** Where in a file compressed contents begin; undefined where it can be read as it lies there. */
function containerIn(file: ByteSource, { format }: OpenOptions): number | undefined {
  try {
    const head = readUpTo(file, 0, PROBE_SIZE);
    if (identifyContainer(head)) return 0;
    const save = format === 'raw' ? undefined : readLibvirtHeader(head, file.name);
    return save && identifyContainer(readUpTo(file, save.stream, PROBE_SIZE)) ? save.stream : undefined;
  } catch (error) {
    file.close();
    throw error;
  }
}

/** Whether nothing was read from it yet. Linux says so; elsewhere it is assumed. */
function startsAtFront(fd: number): boolean {
  try {
    return /^pos:\s*0$/m.test(readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1'));
  } catch {
    return true;
  }
}

function openPath(path: string): FileSource | { fd: number; name: string } {
  if (path === STANDARD_STREAM) {
    const name = 'standard input';
    // Partly read standard input is a stream: convert what is left.
    if (fstatSync(0).isFile() && startsAtFront(0)) return FileSource.adopt(0, name);
    if (isatty(0)) {
      throw new Elf2dmpError({
        code: 'stdin-is-terminal',
        kind: 'usage',
        message: 'the input is -, standard input, but that is a terminal',
        hint: 'pipe a dump into it: `zstdcat vm.elf.zst | elf2dmp - vm.dmp`',
      });
    }
    return { fd: 0, name };
  }
  // `FileSource` reports what is wrong with anything else.
  if (!statSync(path, { throwIfNoEntry: false })?.isFIFO()) return FileSource.open(path);
  try {
    return { fd: openSync(path, 'r'), name: path };
  } catch (cause) {
    throw ioError('open', path, cause);
  }
}

async function* chunksOf(source: ByteSource, from: number): AsyncGenerator<Buffer> {
  for (let at = from; at < source.size; at += CHUNK) {
    const chunk = Buffer.allocUnsafe(Math.min(CHUNK, source.size - at));
    await source.read(at, chunk);
    yield chunk;
  }
}

/** A file's bytes from its front on, in whole MiB but for the end; the next ones are read while some are used. */
class ReadAhead implements AsyncIterable<Buffer> {
  /** Set by consumers that are done with a chunk when they ask for the next: then they share memory. */
  reuse = false;
  readonly #source: ByteSource;
  readonly #shared = [Buffer.alloc(0), Buffer.alloc(0)];

  constructor(source: ByteSource) {
    this.#source = source;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Buffer> {
    let next: Promise<Buffer> | undefined = this.#chunk(0);
    for (let at = MIB; next; at += MIB) {
      const chunk: Buffer = await next;
      next = at < this.#source.size ? this.#chunk(at) : undefined;
      // Whoever asks for it sees the error; nobody may.
      next?.catch(() => undefined);
      yield chunk;
    }
  }

  async #chunk(at: number): Promise<Buffer> {
    const chunk = this.#buffer((at / MIB) % 2).subarray(0, this.#source.size - at);
    await this.#source.read(at, chunk);
    return chunk;
  }

  #buffer(index: number): Buffer {
    if (!this.reuse) return Buffer.allocUnsafeSlow(MIB);
    if (this.#shared[index]!.length === 0) this.#shared[index] = Buffer.allocUnsafeSlow(MIB);
    return this.#shared[index]!;
  }
}

/** Chunks of an input, with its progress. */
async function* counted(
  chunks: AsyncIterable<Buffer>,
  { name, size }: { name: string; size: number },
  { signal, onSpooled }: OpenOptions,
): AsyncGenerator<Buffer> {
  let read = 0;
  try {
    for await (const chunk of chunks) {
      signal?.throwIfAborted();
      read += chunk.length;
      onSpooled?.(read, size);
      yield chunk;
    }
  } catch (cause) {
    throw cause instanceof Elf2dmpError ? cause : ioError('read', name, cause);
  }
}

async function openStream(
  chunks: AsyncIterable<Buffer>,
  name: string,
  total: number,
  options: StreamOptions,
): Promise<MemoryImage> {
  const outer = await peek(counted(chunks, { name, size: total }, options));
  const container = identifyContainer(outer.head);
  const inner = container
    ? await peek(container.unpack(outer.all, options.zstdWindow && options.zstdWindow * MIB))
    : outer;
  const label = container ? decompressed(name) : name;
  // Before a disk image's worth of it is written for nothing.
  const other = options.format === 'raw' ? undefined : identify(inner.head, label, options.crashDumps);
  if (other) throw other;
  const arranged = await arrangementOf(inner, options);
  if (chunks instanceof PipeChunks && !container) chunks.reuse = true;
  if (!arranged) await announceSpool(inner.head, { name, container: container?.name }, options);
  const unpacked = arranged
    ? await writeArranged({ chunks: inner.all, name: label, ...arranged }, options)
    : await spooled(inner.all, label, options);
  const { damage } = unpacked;
  const image = openDecompressed(unpacked, label, container);
  if (damage) {
    image.diagnostics.add(
      'loss',
      CONTAINER_CODES[damage.how],
      damage.how === 'truncated'
        ? `the ${container?.name} file is cut off: what could be decompressed, ${unpacked.size} bytes, was used`
        : `the ${container?.name} file is damaged: ${damage.message}; the ${unpacked.size} bytes that came out were used, and any of them may be wrong`,
    );
  }
  return image;
}

const spoolDirectoryOf = ({ spoolDirectory }: OpenOptions): string => spoolDirectory ?? tmpdir();

async function announceSpool(
  head: Buffer,
  what: Pick<Spooling, 'name' | 'container'>,
  options: OpenOptions,
): Promise<void> {
  const directory = spoolDirectoryOf(options);
  const { bavail, bsize } = await statfs(directory).catch((cause) => {
    throw ioError('use the directory for temporary files', directory, cause);
  });
  const [free, estimated] = [bavail * bsize, estimate(head)];
  if (estimated?.file !== undefined && estimated.file > free) {
    throw new Elf2dmpError({
      code: 'no-space',
      kind: 'io-transient',
      message: `the temporary copy of ${what.name} needs ${bytes(estimated.file)}, but its directory has ${bytes(free)} free`,
      file: directory,
      hint: 'free space, or name a directory with more of it with --spool; nothing was written',
    });
  }
  options.onSpool?.({ ...what, directory, free, estimate: estimated });
}

/** Where a stream's bytes go instead of a temporary file. */
interface Arranged {
  foreseen: Foreseen;
  arrangement: Arrangement;
}

async function arrangementOf(stream: Peeked, { arrange, ...format }: StreamOptions): Promise<Arranged | undefined> {
  const foreseen = arrange && (await foresee(stream, format));
  const arrangement = foreseen && (await arrange(foreseen));
  return arrangement && { foreseen, arrangement };
}

/** A stream, or what came out of its container. */
interface Unpacked {
  open: () => MemoryImage;
  size: number;
  damage: ContainerDamage | undefined;
}

interface ArrangedStream extends Arranged {
  chunks: AsyncIterable<Buffer>;
  name: string;
}

async function writeArranged(
  { chunks, name, foreseen: { promise }, arrangement }: ArrangedStream,
  { signal, ...format }: StreamOptions,
): Promise<Unpacked> {
  if (promise) return receive(chunks, { promise, arrangement, name, signal });
  const { source, damage } = await ArrangedSource.write(chunks, arrangement, name, signal);
  return { open: () => openSource(source, format), size: source.size, damage };
}

async function spooled(chunks: AsyncIterable<Buffer>, name: string, options: StreamOptions): Promise<Unpacked> {
  const { source, damage } = await spool(chunks, spoolDirectoryOf(options), name, options.signal);
  return { open: () => openSource(source, options), size: source.size, damage };
}

/**
 * A file that is read once, from its front to its end: a migration stream, whose pages are found nowhere else. undefined
 * for others, and where nobody has a use for that.
 */
async function streamThrough(file: FileSource, options: StreamOptions): Promise<ArrangedStream | undefined> {
  if (!options.arrange || !isMigrationStream(readUpTo(file, 0, PROBE_SIZE), options)) return undefined;
  const ahead = new ReadAhead(file);
  const stream = await peek(counted(ahead, file, options));
  const arranged = await arrangementOf(stream, options);
  ahead.reuse = true;
  return arranged && { chunks: stream.all, name: file.name, ...arranged };
}

const CONTAINER_CODES = { truncated: 'container-truncated', damaged: 'container-damaged' } as const;

/** Opens the contents; where that fails and the container is damaged, the damage is the reason. */
function openDecompressed(
  { open, size, damage }: Unpacked,
  name: string,
  container: Container | undefined,
): MemoryImage {
  try {
    return open();
  } catch (error) {
    if (!damage) throw error;
    throw new Elf2dmpError({
      code: CONTAINER_CODES[damage.how],
      kind: 'corrupt',
      message: `the ${container?.name} file cannot be decompressed: ${damage.message}`,
      file: name,
      offset: size,
      attempts: size > 0 && error instanceof Elf2dmpError ? [error.message] : [],
      hint: ANOTHER_COPY,
    });
  }
}

interface Peeked extends StreamHead {
  /** The first `ESTIMATE_SIZE` bytes, or all there are. */
  head: Buffer;
  /** The stream, whole. To be read once, and then `upTo` has nothing more. */
  all: AsyncIterable<Buffer>;
}

async function peek(chunks: AsyncIterable<Buffer>): Promise<Peeked> {
  const iterator = chunks[Symbol.asyncIterator]();
  const parts: Buffer[] = [];
  let size = 0;
  let ended: { error?: unknown } | undefined;
  const upTo = async (wanted: number) => {
    while (size < wanted && !ended) {
      try {
        const { done, value } = await iterator.next();
        if (done) ended = {};
        else {
          parts.push(value);
          size += value.length;
        }
      } catch (error) {
        ended = { error };
      }
    }
    return Buffer.concat(parts);
  };
  const all = async function* () {
    yield* parts.splice(0);
    if (ended && 'error' in ended) throw ended.error;
    for (;;) {
      const { done, value } = await iterator.next();
      if (done) return;
      yield value;
    }
  };
  const head = (await upTo(ESTIMATE_SIZE)).subarray(0, ESTIMATE_SIZE);
  return { head, upTo, all: all() };
}
