/** Finds the reader for an input, or says what the input is instead. */

import type { ErrorCodeOf } from '../core/codes.ts';
import { Elf2dmpError, failIn } from '../core/errors.ts';
import type { MemoryImage } from '../memory/image.ts';
import type { CallOptions } from '../options/values.ts';
import { identifyContainer } from '../source/containers.ts';
import { FileSource } from '../source/file.ts';
import { type ByteSource, readUpTo } from '../source/source.ts';
import { elfCore } from './elf-core.ts';
import { kdump } from './kdump/reader.ts';
import { identifyNeighbour } from './neighbours.ts';
import { libvirtSave } from './qevm/libvirt.ts';
import { isQcow2, openQcow2 } from './qevm/qcow2.ts';
import { migration, ramFileUnneeded } from './qevm/reader.ts';
import { MIN_RAW_SIZE, openRaw } from './raw.ts';
import { type Estimate, PROBE_SIZE, type Reader } from './reader.ts';
import { mendingWinDump, readDumpHeader, winDump } from './win-dump.ts';
import { xenCore } from './xen-core.ts';

/** Those that may need a file with memory besides. */
const STREAMS: readonly Reader[] = [migration, libvirtSave];

const READERS: readonly Reader[] = [xenCore, elfCore, kdump, migration, libvirtSave];

const readerOf = (head: Buffer, crashDumps: boolean): Reader | undefined =>
  [...READERS, ...(crashDumps ? [mendingWinDump] : [])].find((r) => r.probe(head));

/** The reader that an input's first bytes ask for; undefined where none knows them, or the caller says that it is raw. */
export const readerFor = (head: Buffer, { format, runs, crashDumps = false }: SourceFormat): Reader | undefined =>
  format === 'raw' || runs ? undefined : readerOf(head, crashDumps);

/** What the caller knows of an input. */
export type SourceFormat = Pick<CallOptions<'open'>, 'format' | 'runs' | 'crashDumps' | 'snapshot' | 'ramFile'>;

/**
 * Opens a crash dump, unless its signature says that it is something else; nothing wrong is mended. Takes over the source.
 * Throws `Elf2dmpError`. The image has to be closed.
 */
export function openCrashDump(source: ByteSource): MemoryImage {
  const other = otherThanDump(source);
  if (!other) return winDump.open(source);
  source.close();
  throw other;
}

function otherThanDump(source: ByteSource): Elf2dmpError | undefined {
  const head = readUpTo(source, 0, PROBE_SIZE);
  if (winDump.probe(head)) return undefined;
  const reader = READERS.find((r) => r.probe(head));
  if (!reader) return identify(head, source.name, true);
  return new Elf2dmpError({
    code: 'not-a-crash-dump',
    kind: 'unsupported',
    message: `an input for a conversion (${reader.format}), not a crash dump`,
    file: source.name,
    hint: 'convert it first, or see what it is with `elf2dmp info FILE`',
  });
}

/** The header of a 64-bit crash dump of any kind. Throws `Elf2dmpError`. */
export function openDumpHeader(path: string): ReturnType<typeof readDumpHeader> {
  const source = FileSource.open(path);
  try {
    return readDumpHeader(source);
  } finally {
    source.close();
  }
}

/** Opens a file that can be read as it lies there. Throws `Elf2dmpError`. The image has to be closed. */
export function openImage(path: string, format?: SourceFormat): MemoryImage {
  return openSource(FileSource.open(path), format);
}

/** As `openImage`, for any source; takes it over. */
export function openSource(
  source: ByteSource,
  { format = 'auto', runs, crashDumps = false, snapshot, ramFile }: SourceFormat = {},
): MemoryImage {
  let head: Buffer;
  try {
    head = readUpTo(source, 0, PROBE_SIZE);
  } catch (error) {
    source.close();
    throw error;
  }
  if (format !== 'raw' && isQcow2(head)) return openQcow2(source, snapshot, ramFile);
  if (snapshot !== undefined) throw notAnImage(source);
  const known = readerOf(head, crashDumps);
  if (known && runs && format !== 'raw') {
    source.close();
    throw new Elf2dmpError({
      code: 'runs-of-no-raw-memory',
      kind: 'usage',
      message: `--runs is for raw memory, and this is a dump that says itself where its memory is (${known.format})`,
      file: source.name,
      hint: 'leave out --runs',
    });
  }
  const reader = readerFor(head, { format, runs, crashDumps });
  if (ramFile !== undefined && (!reader || !STREAMS.includes(reader))) {
    source.close();
    throw ramFileUnneeded(source.name);
  }
  if (reader) return reader.open(source, { ramFile });
  const unknown = format === 'raw' || runs ? undefined : identify(head, source.name, crashDumps);
  if (!unknown && source.size >= MIN_RAW_SIZE) {
    const image = openRaw(source, runs);
    if (format === 'auto' && !runs) {
      image.diagnostics.add('note', 'taken-as-raw', 'the file has no header that elf2dmp knows: taken as raw memory');
    }
    return image;
  }
  source.close();
  throw unknown ?? unknownInput(head, source.name);
}

function notAnImage(source: ByteSource): Elf2dmpError {
  source.close();
  return new Elf2dmpError({
    code: 'snapshot-of-no-image',
    kind: 'usage',
    message: '--snapshot is for qcow2 images, and this is none',
    file: source.name,
    hint: 'leave out --snapshot',
  });
}

/**
 * Whether a file beside dumps is certainly none: without a signature, and text or too small for memory. An empty one
 * may have become a dump.
 */
export const isForeign = (head: Buffer, size: number): boolean =>
  size > 0 &&
  !identifyContainer(head) &&
  !isQcow2(head) &&
  !readerOf(head, true) &&
  !identifyNeighbour(head) &&
  (size < MIN_RAW_SIZE || !head.some((byte) => byte < 9));

/** As far as its first bytes tell: how much a dump holds. */
export const estimate = (head: Buffer): Estimate | undefined => readerOf(head, true)?.estimate(head);

/** The error for an input that is something else, as far as its first bytes tell. */
export function identify(head: Buffer, name: string, crashDumps = false): Elf2dmpError | undefined {
  const neighbour = readerOf(head, crashDumps) ? undefined : identifyNeighbour(head);
  return neighbour && inputError('unsupported', neighbour, head, name);
}

function unknownInput(head: Buffer, name: string): Elf2dmpError {
  return head.length === 0
    ? inputError('corrupt', { code: 'input-empty', what: 'the file is empty', hint: HOW_TO_DUMP }, head, name)
    : inputError(
        'unsupported',
        { code: 'input-unknown', what: 'not a guest memory dump that elf2dmp knows', hint: HOW_TO_DUMP },
        head,
        name,
      );
}

function inputError<K extends 'unsupported' | 'corrupt'>(
  kind: K,
  { code, what, hint }: { code: ErrorCodeOf<K>; what: string; hint: string },
  head: Buffer,
  file: string,
): Elf2dmpError {
  const shown = head.subarray(0, 8).toString('hex').replace(/../g, '$& ').trim();
  return failIn(file)(kind, {
    code,
    message: what,
    structure: 'signature',
    offset: 0,
    expected: 'an ELF core file (7f 45 4c 46) or a kdump-compressed file ("KDUMP   ", "makedumpfile")',
    actual: head.length === 0 ? 'no bytes' : shown,
    hint,
  });
}

const HOW_TO_DUMP =
  'make the dump with `virsh dump --memory-only DOMAIN FILE`, or `dump-guest-memory FILE` in the QEMU monitor';
