/** Images that are loaded and that the list of modules lacks, though its links agree: whoever else knows of them. */
import { isKernelAddress, pointerAt } from '../core/bits.ts';
import { Reason } from '../core/reason.ts';
import { hex64, MIB, PAGE_SIZE } from '../core/units.ts';
import { DIRECTORY_EXCEPTION, DIRECTORY_IMPORT_ADDRESSES } from '../formats/pe.ts';
import { InvertedTableEntry, InvertedTableHead, kernelStructures, MAX_INVERTED_TABLE } from '../formats/win-kernel.ts';
import type { AddressSpace } from '../memory/address-space.ts';
import { type Module, moduleOf } from './modules.ts';
import { exportName, type PeImage, readPeImage, writableRanges } from './pe-image.ts';
import type { Processor } from './processors.ts';

/** Where an image should begin, and who says so, as a clause. */
interface Mention {
  base: bigint;
  why: string;
}

/** What is known of the images that are loaded. */
export interface ListedModules {
  space: AddressSpace;
  kernel: PeImage;
  processors: readonly Processor[];
  modules: readonly Module[];
  /** PsLoadedModuleList, where the first entry and the last lead to as well; undefined where it is unknown. */
  head: bigint | undefined;
}

/** Each image that is in memory and not on the list, as a clause that says who leads to it. */
export function unlistedImages(listed: ListedModules): string[] {
  const { space, modules } = listed;
  if (modules.length === 0) return [];
  const found = new Map<bigint, string>();
  for (const { base, why } of [...besideEntries(listed), ...inFunctionTable(listed), ...byCode(listed)]) {
    if (found.has(base)) continue;
    const image = readPeImage(space, base, space.image.machine.imageFileMachine);
    if (image instanceof Reason || modules.some((m) => overlaps(m, image))) continue;
    found.set(base, `${exportName(space, image) ?? 'an image'} at ${hex64(base)} is not on it, but ${why}`);
  }
  return [...found.values()];
}

interface Range {
  base: bigint;
  size: number;
}

const overlaps = (a: Range, b: Range): boolean => a.base < b.base + BigInt(b.size) && b.base < a.base + BigInt(a.size);

/** Pages around one with an entry. */
const NEIGHBOURS = [-2n, -1n, 0n, 1n, 2n] as const;

/** An entry that was taken off keeps its links; the allocator has entries, which are of one size, side by side. */
function* besideEntries({ space, modules, head }: ListedModules): Generator<Mention> {
  const { pointerSize } = space.image.machine;
  const entries = new Set<bigint>([...modules.map(({ entry }) => entry), ...(head === undefined ? [] : [head])]);
  const lows = new Set([...entries].map((entry) => Number(entry & 0xffff_ffffn)));
  const page = BigInt(PAGE_SIZE);
  const pages = new Set(modules.flatMap(({ entry }) => NEIGHBOURS.map((i) => entry - (entry % page) + i * page)));
  for (const at of pages) {
    const bytes = space.read(at, PAGE_SIZE);
    for (let i = 0; bytes && i + pointerSize <= PAGE_SIZE; i += pointerSize) {
      if (!lows.has(bytes.readUInt32LE(i)) || !entries.has(pointerAt(bytes, i, pointerSize))) continue;
      // A link forward, or one back.
      for (const entry of [at + BigInt(i), at + BigInt(i - pointerSize)]) {
        const base = entries.has(entry) ? undefined : imageOfEntry(space, entry);
        if (base !== undefined) yield { base, why: `an entry for it is at ${hex64(entry)}` };
      }
    }
  }
}

/** Where the image begins that something like a list entry has; undefined where none is there. */
function imageOfEntry(space: AddressSpace, entry: bigint): bigint | undefined {
  const { machine } = space.image;
  const { loaderEntry } = kernelStructures(machine);
  const bytes = space.read(entry, loaderEntry.size);
  if (!bytes) return undefined;
  const { DllBase: base } = loaderEntry.read(bytes);
  if (!isKernelAddress(base) || base % BigInt(PAGE_SIZE) !== 0n) return undefined;
  return readPeImage(space, base, machine.imageFileMachine) instanceof Reason ? undefined : base;
}

/** Bytes of the kernel searched at a time. */
const CHUNK = 0x10000;

/** PsInvertedFunctionTable, which has every image with an exception directory, and the kernel first. */
function* inFunctionTable({ space, kernel }: ListedModules): Generator<Mention> {
  const functions = kernel.directories[DIRECTORY_EXCEPTION];
  if (!space.image.machine.functionTable || !functions || functions.size === 0) return;
  const first = Buffer.alloc(InvertedTableEntry.size);
  InvertedTableEntry.write(first, 0, {
    FunctionTable: kernel.base + BigInt(functions.rva),
    ImageBase: kernel.base,
    SizeOfImage: kernel.size,
    SizeOfTable: functions.size,
  });
  // The table is written to: most of the image, its code, need not be read.
  const chunks = writableRanges(space, kernel).flatMap(({ rva, size }) =>
    Array.from({ length: Math.ceil(size / CHUNK) }, (_, i) => rva + i * CHUNK),
  );
  for (const rva of chunks) {
    const chunk = presentBytes(space, kernel.base + BigInt(rva), Math.min(CHUNK + first.length, kernel.size - rva));
    const at = chunk.indexOf(first);
    if (at < 0) continue;
    const table = kernel.base + BigInt(rva + at - InvertedTableHead.size);
    for (const base of tableBases(space, table)) {
      yield { base, why: `the kernel's table of functions at ${hex64(table)} has it` };
    }
    return;
  }
}

/** Bytes of an address range; zeros for pages that are not present. */
function presentBytes(space: AddressSpace, address: bigint, length: number): Buffer {
  const whole = space.read(address, length);
  if (whole) return whole;
  const bytes = Buffer.alloc(length);
  for (let at = 0; at < length; at += PAGE_SIZE) {
    space.read(address + BigInt(at), Math.min(PAGE_SIZE, length - at))?.copy(bytes, at);
  }
  return bytes;
}

function tableBases(space: AddressSpace, table: bigint): bigint[] {
  const head = space.read(table, InvertedTableHead.size);
  const { CurrentSize: count, MaximumSize: most } = head
    ? InvertedTableHead.read(head)
    : { CurrentSize: 0, MaximumSize: 0 };
  if (count > most || most > MAX_INVERTED_TABLE) return [];
  const entries = space.read(table + BigInt(InvertedTableHead.size), count * InvertedTableEntry.size);
  if (!entries) return [];
  return Array.from(
    { length: count },
    (_, i) => InvertedTableEntry.read(entries, i * InvertedTableEntry.size).ImageBase,
  ).filter((base) => isKernelAddress(base) && base % BigInt(PAGE_SIZE) === 0n);
}

/** No image reaches further; and so many pages are looked at in all. */
const MAX_REACH = 32 * MIB;
const MAX_PAGES = 0x4000;

/** Images that hold what the CPUs run, what handles their interrupts, and what modules import. */
function* byCode({ space, kernel, processors, modules }: ListedModules): Generator<Mention> {
  let pages = 0;
  const looked = new Set<bigint>();
  let last: Range = kernel;
  const isListed = (address: bigint): boolean => {
    if (address >= last.base && address < last.base + BigInt(last.size)) return true;
    const module = moduleOf(modules, address);
    if (module) last = module;
    return module !== undefined;
  };
  for (const { address, why } of codeAddresses(space, processors, modules)) {
    if (!isKernelAddress(address) || isListed(address)) continue;
    const page = address - (address % BigInt(PAGE_SIZE));
    for (let base = page; base > page - BigInt(MAX_REACH) && pages < MAX_PAGES; base -= BigInt(PAGE_SIZE)) {
      if (looked.has(base) || isListed(base)) break;
      looked.add(base);
      pages++;
      const image = readPeImage(space, base, space.image.machine.imageFileMachine);
      if (image instanceof Reason) continue;
      if (address < base + BigInt(image.size)) yield { base, why };
      break;
    }
  }
}

function* codeAddresses(
  space: AddressSpace,
  processors: readonly Processor[],
  modules: readonly Module[],
): Generator<{ address: bigint; why: string }> {
  const { machine } = space.image;
  for (const { number, cpu } of processors) {
    if (!cpu?.registers) continue;
    const address = machine.instructionPointer(cpu.registers);
    yield { address, why: `processor ${number} runs in it, at ${hex64(address)}` };
  }
  const registers = processors.find(({ cpu }) => cpu?.registers)?.cpu?.registers;
  const table = registers && machine.interruptTable(registers);
  for (const address of table ? machine.interruptHandlers(table, space.reader) : []) {
    yield { address, why: `the ${machine.words.interruptTable} leads to ${hex64(address)} in it` };
  }
  for (const module of modules) yield* imports(space, module);
}

/** Bytes of the largest import address tables. */
const MAX_IMPORTS = 0x1_0000;

function* imports(space: AddressSpace, module: Module): Generator<{ address: bigint; why: string }> {
  const { machine } = space.image;
  const image = readPeImage(space, module.base, machine.imageFileMachine);
  const table = image instanceof Reason ? undefined : image.directories[DIRECTORY_IMPORT_ADDRESSES];
  if (!table || table.size > MAX_IMPORTS || table.rva + table.size > module.size) return;
  const bytes = presentBytes(space, module.base + BigInt(table.rva), table.size);
  for (let at = 0; at + machine.pointerSize <= bytes.length; at += machine.pointerSize) {
    const address = pointerAt(bytes, at, machine.pointerSize);
    if (address !== 0n) yield { address, why: `${module.name} imports ${hex64(address)} of it` };
  }
}
