/** PE images as they lie in a guest's memory: nothing in their headers is believed unchecked. */

import { alignUp } from '../core/bits.ts';
import { because, type Reason } from '../core/reason.ts';
import { findIndex, firstIndex } from '../core/sorted.ts';
import { hex64, MIB, PAGE_SIZE, type VirtualAddress, va } from '../core/units.ts';
import {
  DataDirectory,
  DebugDirectory,
  DIRECTORY_DEBUG,
  DIRECTORY_EXCEPTION,
  DIRECTORY_EXPORT,
  DosHeader,
  ExportDirectory,
  IMAGE_DEBUG_TYPE_CODEVIEW,
  IMAGE_SCN_MEM_WRITE,
  MZ,
  PE_SIGNATURE,
  peForm,
  RSDS,
  SectionHeader,
} from '../formats/pe.ts';
import type { FunctionEntry } from '../machines/unwinding.ts';
import type { AddressSpace } from '../memory/address-space.ts';
import { guidText, type PdbIdentity } from '../symbols/identity.ts';

/** The largest kernels (checked builds) have some 32 MiB. */
const MAX_IMAGE_SIZE = 256 * MIB;
const MAX_NAMES = 0x1_0000;
const MAX_DEBUG_ENTRIES = 32;

/** The headers of an image, checked. */
export interface PeImage {
  base: VirtualAddress;
  /** SizeOfImage, bytes. */
  size: number;
  timeDateStamp: number;
  checkSum: number;
  directories: readonly { rva: number; size: number }[];
}

/** What `readPeImage` returns for memory that does not look like an image at all. */
export const NO_MZ = because('no MZ');

/** The image whose DOS header is at `base`, or why there is none. */
export function readPeImage(space: AddressSpace, base: bigint, imageFileMachine: number): PeImage | Reason {
  // Most places that are asked for are no image's.
  const start = space.peek(base, 2);
  if (start && start.readUInt16LE() !== MZ) return NO_MZ;
  const dos = space.read(base, DosHeader.size);
  if (!dos) return because('its first page is not present');
  const { e_magic, e_lfanew } = DosHeader.read(dos);
  if (e_magic !== MZ) return NO_MZ;
  // The PE header follows the DOS stub and Rich header in the first page in every kernel-mode image.
  const { layout, magic } = peForm(space.image.machine);
  if (e_lfanew < DosHeader.size || e_lfanew > PAGE_SIZE - layout.size)
    return because(`MZ, but e_lfanew is ${e_lfanew}`);
  const nt = space.read(base + BigInt(e_lfanew), layout.size);
  if (!nt) return because('MZ, but its PE header is not present');
  const header = layout.read(nt);
  if (header.Signature !== PE_SIGNATURE) return because('MZ, but no PE signature');
  if (header.Machine !== imageFileMachine || header.Magic !== magic) {
    const what = space.image.machine.otherImages[header.Machine];
    return because(
      `a PE image of another machine (0x${header.Machine.toString(16)}${what === undefined ? '' : `: ${what}`})`,
    );
  }
  if (header.SizeOfImage < PAGE_SIZE || header.SizeOfImage > MAX_IMAGE_SIZE) {
    return because(`a PE image with an impossible SizeOfImage (0x${header.SizeOfImage.toString(16)})`);
  }
  const count = Math.min(header.NumberOfRvaAndSizes, 16);
  const table = space.read(base + BigInt(e_lfanew + layout.size), count * DataDirectory.size);
  const directories = [];
  for (let i = 0; table && i < count; i++) {
    const { VirtualAddress: rva, Size: size } = DataDirectory.read(table, i * DataDirectory.size);
    directories.push({ rva, size });
  }
  return {
    base: va(base),
    size: header.SizeOfImage,
    timeDateStamp: header.TimeDateStamp,
    checkSum: header.CheckSum,
    directories,
  };
}

/** The loader takes no more. */
const MAX_SECTIONS = 96;

/** A section as an image's headers list it: RVA and size in bytes, none of it believed yet. */
export interface Section {
  name: string;
  rva: number;
  size: number;
  writable: boolean;
}

/** The sections of an image; none where its headers are not present. */
export function readSections(space: AddressSpace, { base }: PeImage): Section[] {
  const dos = space.read(base, DosHeader.size);
  const nt = dos && base + BigInt(DosHeader.read(dos).e_lfanew);
  const { layout } = peForm(space.image.machine);
  const bytes = nt === undefined ? undefined : space.read(nt, layout.size);
  if (nt === undefined || !bytes) return [];
  const { NumberOfSections, SizeOfOptionalHeader } = layout.read(bytes);
  const count = Math.min(NumberOfSections, MAX_SECTIONS);
  // Behind the signature, the file header and the optional header.
  const table = space.read(nt + BigInt(24 + SizeOfOptionalHeader), count * SectionHeader.size);
  if (!table) return [];
  return Array.from({ length: count }, (_, i) => {
    const { Name, VirtualAddress, VirtualSize, Characteristics } = SectionHeader.read(table, i * SectionHeader.size);
    const name = Name.toString('latin1').replace(/\0.*$/s, '');
    return { name, rva: VirtualAddress, size: VirtualSize, writable: (Characteristics & IMAGE_SCN_MEM_WRITE) !== 0 };
  });
}

/** The parts of an image that are written to, as far as its headers say so: whole pages, sorted, each once. */
export function writableRanges(space: AddressSpace, image: PeImage): { rva: number; size: number }[] {
  const ranges: { rva: number; size: number }[] = [];
  const sections = readSections(space, image).filter(({ writable }) => writable);
  for (const { rva, size } of sections.sort((a, b) => a.rva - b.rva)) {
    const last = ranges.at(-1);
    const from = Math.max(rva - (rva % PAGE_SIZE), last ? last.rva + last.size : 0);
    const to = Math.min(alignUp(rva + size, PAGE_SIZE), image.size);
    if (to <= from) continue;
    if (last && from === last.rva + last.size) last.size += to - from;
    else ranges.push({ rva: from, size: to - from });
  }
  return ranges;
}

/** The name of the section that an RVA lies in; undefined where the headers list none there, or are not present. */
export function sectionAt(space: AddressSpace, image: PeImage, rva: number): string | undefined {
  const section = readSections(space, image).find((each) => rva >= each.rva && rva < each.rva + each.size);
  return section?.name || undefined;
}

/** `peek` or `read` of an address space. */
type Look = 'peek' | 'read';

/** Bytes at an RVA; undefined outside the image and where memory is missing. */
export const readRva = (space: AddressSpace, image: PeImage, rva: number, length: number): Buffer | undefined =>
  lookAt(space, image, { rva, length, look: 'read' });

function lookAt(
  space: AddressSpace,
  image: PeImage,
  { rva, length, look }: { rva: number; length: number; look: Look },
): Buffer | undefined {
  if (rva <= 0 || length < 0 || rva + length > image.size) return undefined;
  return space[look](image.base + BigInt(rva), length);
}

/** Bytes that a name may have. */
const MAX_NAME = 256;

function readName(space: AddressSpace, image: PeImage, rva: number, look: Look = 'read'): string | undefined {
  let text = '';
  // By pieces that do not cross a page: the next page may be missing without need.
  for (let at = rva; text.length < MAX_NAME; ) {
    const length = Math.min(PAGE_SIZE - (at % PAGE_SIZE), MAX_NAME - text.length, image.size - at);
    const bytes = length > 0 ? lookAt(space, image, { rva: at, length, look }) : undefined;
    if (!bytes) return undefined;
    const end = bytes.indexOf(0);
    text += bytes.toString('latin1', 0, end < 0 ? length : end);
    if (end >= 0) return text;
    at += length;
  }
  return undefined;
}

function readExportDirectory(space: AddressSpace, image: PeImage, look: Look = 'read') {
  const directory = image.directories[DIRECTORY_EXPORT];
  if (!directory || directory.size < ExportDirectory.size) return undefined;
  const bytes = lookAt(space, image, { rva: directory.rva, length: ExportDirectory.size, look });
  return bytes && ExportDirectory.read(bytes);
}

/** The image's own name in its export directory. Nothing else of these pages is read, since all modules are asked. */
export function exportName(space: AddressSpace, image: PeImage): string | undefined {
  const directory = readExportDirectory(space, image, 'peek');
  return directory && readName(space, image, directory.Name, 'peek');
}

/**
 * Address of an exported symbol: by binary search in the sorted name table; where pages of it are missing, among the
 * names that are present.
 */
export function findExport(space: AddressSpace, image: PeImage, name: string): VirtualAddress | undefined {
  const directory = readExportDirectory(space, image);
  if (!directory) return undefined;
  const count = Math.min(directory.NumberOfNames, MAX_NAMES);
  let isWhole = true;
  const nameAt = (i: number): string | undefined => {
    const nameRva = readRva(space, image, directory.AddressOfNames + 4 * i, 4)?.readUInt32LE();
    const found = nameRva === undefined ? undefined : readName(space, image, nameRva);
    if (found === undefined) isWhole = false;
    return found;
  };
  let at = findIndex(count, (i) => {
    const candidate = nameAt(i);
    return candidate === undefined ? undefined : compareText(name, candidate);
  });
  for (let i = 0; at === undefined && !isWhole && i < count; i++) if (nameAt(i) === name) at = i;
  if (at === undefined) return undefined;
  const ordinal = readRva(space, image, directory.AddressOfNameOrdinals + 2 * at, 2)?.readUInt16LE();
  if (ordinal === undefined || ordinal >= directory.NumberOfFunctions) return undefined;
  const rva = readRva(space, image, directory.AddressOfFunctions + 4 * ordinal, 4)?.readUInt32LE();
  return rva === undefined || rva === 0 || rva >= image.size ? undefined : va(image.base + BigInt(rva));
}

/** By code units, as linkers sort export names. */
function compareText(a: string, b: string): number {
  if (a === b) return 0;
  return a < b ? -1 : 1;
}

/** The named exports that are code or data of the image itself, by RVA. */
export interface ExportTable {
  image: PeImage;
  /** Sorted. */
  entries: readonly { rva: number; nameRva: number }[];
}

/** A table of an image's numbers, as far as its pages are present. */
function readTable(
  space: AddressSpace,
  image: PeImage,
  { rva, count, width }: { rva: number; count: number; width: 2 | 4 },
): (number | undefined)[] {
  const whole = readRva(space, image, rva, count * width);
  const values: (number | undefined)[] = [];
  // By pages, of which the last number may reach into the next.
  let page: { index: number; bytes: Buffer | undefined } | undefined;
  for (let i = 0; i < count; i++) {
    const at = rva + i * width;
    const offset = at % PAGE_SIZE;
    const index = (at - offset) / PAGE_SIZE;
    if (whole) values.push(whole.readUIntLE(i * width, width));
    else if (offset + width > PAGE_SIZE) values.push(readRva(space, image, at, width)?.readUIntLE(0, width));
    else {
      if (page?.index !== index) {
        const end = Math.min((index + 1) * PAGE_SIZE, image.size);
        page = { index, bytes: readRva(space, image, index * PAGE_SIZE, end - index * PAGE_SIZE) };
      }
      values.push(page.bytes && offset + width <= page.bytes.length ? page.bytes.readUIntLE(offset, width) : undefined);
    }
  }
  return values;
}

/**
 * Those exports whose pages are present; undefined where there are none, or where the addresses of some are missing.
 * An address whose name is missing has none, so that no other name passes for its.
 */
export function readExports(space: AddressSpace, image: PeImage): ExportTable | undefined {
  const directory = readExportDirectory(space, image);
  const range = image.directories[DIRECTORY_EXPORT];
  if (!directory || !range) return undefined;
  const { NumberOfFunctions: functions, NumberOfNames: names } = directory;
  if (names === 0 || names > MAX_NAMES || functions > MAX_NAMES) return undefined;
  const rvas = readRva(space, image, directory.AddressOfFunctions, 4 * functions);
  if (!rvas) return undefined;
  const nameRvas = readTable(space, image, { rva: directory.AddressOfNames, count: names, width: 4 });
  const ordinals = readTable(space, image, { rva: directory.AddressOfNameOrdinals, count: names, width: 2 });
  const entries: { rva: number; nameRva: number }[] = [];
  const unnamed = new Set(Array.from({ length: functions }, (_, ordinal) => ordinal));
  let isWhole = true;
  const add = (ordinal: number, nameRva: number) => {
    const rva = ordinal < functions ? rvas.readUInt32LE(4 * ordinal) : 0;
    // What points into the directory is the name of another image's export.
    const forwarded = rva >= range.rva && rva < range.rva + range.size;
    if (rva !== 0 && rva < image.size && !forwarded) entries.push({ rva, nameRva });
  };
  for (let i = 0; i < names; i++) {
    const [ordinal, nameRva] = [ordinals[i], nameRvas[i]];
    if (ordinal === undefined || nameRva === undefined) isWhole = false;
    else {
      unnamed.delete(ordinal);
      add(ordinal, nameRva);
    }
  }
  if (!isWhole) for (const ordinal of unnamed) add(ordinal, NO_NAME);
  entries.sort((a, b) => a.rva - b.rva);
  return { image, entries };
}

/** No name is at an image's first byte. */
const NO_NAME = 0;

/** The last export at or below an address of the image, and how far below; undefined too where its name is missing. */
export function nearestExport(
  space: AddressSpace,
  { image, entries }: ExportTable,
  address: bigint,
): { name: string; offset: number } | undefined {
  const rva = Number(address - image.base);
  const entry = entries[firstIndex(entries.length, (i) => entries[i]!.rva > rva) - 1];
  const name = entry && readName(space, image, entry.nameRva);
  return entry && name ? { name, offset: rva - entry.rva } : undefined;
}

/** Entries of the exception directory: the largest kernels have some 60,000. */
const MAX_FUNCTIONS = 0x4_0000;

/**
 * The entry of the exception directory (.pdata) that an RVA lies in, by binary search; undefined: there is none.
 * `missing`: the directory is not in memory.
 */
export function functionEntry(space: AddressSpace, image: PeImage, rva: number): FunctionEntry | 'missing' | undefined {
  const directory = image.directories[DIRECTORY_EXCEPTION];
  if (!directory) return undefined;
  const table = space.image.machine.functionTable;
  if (!table) return undefined;
  const count = Math.min(Math.floor(directory.size / table.entrySize), MAX_FUNCTIONS);
  let found: FunctionEntry | 'missing' | undefined;
  findIndex(count, (i) => {
    const bytes = readRva(space, image, directory.rva + i * table.entrySize, table.entrySize);
    if (!bytes) {
      found = 'missing';
      return undefined;
    }
    const { begin, end, unwindInfo } = table.read(bytes, (at, length) => readRva(space, image, at, length));
    if (rva < begin) return -1;
    // The last one that begins before: it may be the function, or end before.
    found = end === undefined ? 'missing' : undefined;
    if (end === undefined || rva >= end) return 1;
    found = { begin, end, unwindInfo };
    return 0;
  });
  return found;
}

/** Bounds of the function (or the part of one) that an address lies in. */
export function functionAt(
  space: AddressSpace,
  image: PeImage,
  address: bigint,
): { from: bigint; to: bigint } | undefined {
  if (address < image.base || address >= image.base + BigInt(image.size)) return undefined;
  const entry = functionEntry(space, image, Number(address - image.base));
  if (!entry || entry === 'missing') return undefined;
  return { from: image.base + BigInt(entry.begin), to: image.base + BigInt(entry.end) };
}

/** From the CodeView entry of the debug directory. */
export function pdbIdentity(space: AddressSpace, image: PeImage): PdbIdentity | undefined {
  const directory = image.directories[DIRECTORY_DEBUG];
  if (!directory) return undefined;
  const count = Math.min(Math.floor(directory.size / DebugDirectory.size), MAX_DEBUG_ENTRIES);
  for (let i = 0; i < count; i++) {
    const bytes = readRva(space, image, directory.rva + i * DebugDirectory.size, DebugDirectory.size);
    if (!bytes) continue;
    const entry = DebugDirectory.read(bytes);
    if (entry.Type !== IMAGE_DEBUG_TYPE_CODEVIEW) continue;
    const record = readRva(space, image, entry.AddressOfRawData, 24);
    const name = readName(space, image, entry.AddressOfRawData + 24);
    if (!record || record.readUInt32LE() !== RSDS || !name) continue;
    return { name, guid: guidText(record.subarray(4, 20)), age: record.readUInt32LE(20) };
  }
  return undefined;
}

/** Why a name lookup or a check speaks of `image`: `ntoskrnl.exe at 0xfffff800…`. */
export const describeImage = (name: string | undefined, image: PeImage): string =>
  `${name ?? 'an image without export name'} at ${hex64(image.base)}`;
