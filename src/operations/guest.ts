/** An opened guest: found once, asked many things. */
import { Elf2dmpError } from '../core/errors.ts';
import { sha256OfInput } from '../files/hash.ts';
import { type LocateOptions, locateWindows } from '../locate/locator.ts';
import type { MemoryImage } from '../memory/image.ts';
import { type InputBytes, nameOfBytes, OpenedInput } from '../options/opened.ts';
import type { CallOptions } from '../options/values.ts';
import { type OpenOptions, openInput, type StreamOptions } from '../readers/input.ts';
import type { Windows } from '../windows/windows.ts';

/** How to open an input, and how to find Windows in it. */
export interface GuestOptions extends CallOptions<'openGuest'>, LocateOptions, OpenOptions {}

/** How an operation opens its input: it says itself whether crash dumps are welcome. */
export type ReadingOptions = Omit<GuestOptions, 'crashDumps'>;

/** For operations that report their progress, or write an input's pages while they come. */
interface ReportedOptions extends GuestOptions, StreamOptions {
  /** Called when the input is open and the search for Windows begins. */
  onLocate?: (() => void) | undefined;
}

/** A guest's memory with Windows found in it. It has to be closed, by `close` or `await using`. */
export class Guest extends OpenedInput implements AsyncDisposable {
  override readonly input: string;
  readonly windows: Windows;
  /** What it took to find Windows. */
  readonly effort: { locateMilliseconds: number; bytesReadToLocate: number };
  readonly #opened: MemoryImage;

  private constructor(input: string, opened: MemoryImage, windows: Windows, effort: Guest['effort']) {
    super();
    this.input = input;
    this.#opened = opened;
    this.windows = windows;
    this.effort = effort;
  }

  /**
   * Finds Windows in an image that is open already, and takes the image over if that succeeds. Throws `Elf2dmpError`.
   *
   * @param input its name
   */
  static async locate(input: string, image: MemoryImage, options: ReportedOptions = {}): Promise<Guest> {
    options.onLocate?.();
    const started = performance.now();
    const windows = await locateWindows(image, options);
    return new Guest(input, image, windows, {
      locateMilliseconds: Math.round(performance.now() - started),
      bytesReadToLocate: bytesReadThrough([image, ...image.alternatives, windows.image]),
    });
  }

  /** The guest's memory and CPUs. */
  get image(): MemoryImage {
    return this.windows.image;
  }

  /** Closes the input, and removes the temporary file that a stream or a compressed input needed. */
  close(): void {
    this.#opened.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close();
  }
}

/**
 * Opens a dump and finds Windows in it. Throws `Elf2dmpError`.
 *
 * ```ts
 * await using guest = await openGuest('vm.elf');
 * console.log((await inspect({ input: guest })).windows?.build);
 * await convert({ input: guest, output: 'vm.dmp' });
 * ```
 *
 * @param input a file, a compressed file, a pipe, or `-` for standard input; or the bytes of one: a buffer or a stream
 */
export async function openGuest(input: string | InputBytes, options: ReportedOptions = {}): Promise<Guest> {
  const image = await openInput(input, options);
  try {
    return await explained(image, Guest.locate(nameOf(input), image, options));
  } catch (error) {
    image.close();
    throw error;
  }
}

/** One search serves all readings of an input, through any of them. */
const bytesReadThrough = (images: readonly MemoryImage[]): number =>
  [...new Set(images)].reduce((total, { bytesRead }) => total + bytesRead, 0);

/** Where what was read makes no sense because it was changed meanwhile, that is the error. */
export async function explained<T>(image: MemoryImage, work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    const doubtful = error instanceof Elf2dmpError && (error.kind === 'corrupt' || error.kind === 'unsupported');
    if (doubtful) await image.checkUnchanged();
    throw error;
  }
}

/** Runs `work` on a guest, or on one that is opened for it and closed afterwards. */
export async function withGuest<T>(
  input: Input,
  options: ReportedOptions,
  work: (guest: Guest) => Promise<T>,
): Promise<T> {
  if (input instanceof Guest) return work(input);
  const guest = await openGuest(input, options);
  try {
    return await explained(guest.image, work(guest));
  } finally {
    guest.close();
  }
}

/**
 * A file, a compressed file, a pipe, or `-` for standard input; the bytes of any of these, as a buffer or a stream; or a
 * guest that was opened, which stays open.
 */
export type Input = string | InputBytes | Guest;

/** SHA-256 of the input's file; null where there is none, as for a pipe, standard input and bytes. */
export const sha256OfGiven = async (input: Input, signal?: AbortSignal): Promise<string | null> =>
  typeof input === 'string' || input instanceof Guest ? sha256OfInput(nameOf(input), signal) : null;

/** The input's name. */
export function nameOf(input: Input): string {
  if (typeof input === 'string') return input;
  return input instanceof Guest ? input.input : nameOfBytes(input);
}
