/** Drivers with PDBs from a real compiler and linker, and the engine's view of them. */
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { extname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { AT, buildTinyDump, fullDump, va } from '../debugger/tiny-dump.ts';
import { programsAvailable } from '../support/programs.ts';

/** For `describe.skipIf(!compilerAvailable())`. With ELF2DMP_REQUIRE_TOOLS=1 a missing program is an error. */
export const compilerAvailable = (): boolean => programsAvailable({ clang: 'clang', 'lld-link': 'lld' });
export const symbolizerAvailable = (): boolean => programsAvailable({ 'llvm-symbolizer': 'llvm' });

const SOURCES = ['driver.c', 'second.c', 'shapes.cpp', 'labels.s'];
const C_OPTIONS = ['-ffreestanding', '-mno-stack-arg-probe', '-ffunction-sections', '-gcodeview', '-g'];
const CPP_OPTIONS = [...C_OPTIONS, '-fno-exceptions', '-fno-rtti', '-fno-threadsafe-statics'];
const OPTIONS: Readonly<Record<string, readonly string[]>> = { '.c': C_OPTIONS, '.cpp': CPP_OPTIONS };

export interface CompiledDriver {
  /** Paths of the image and, in another directory, of its PDB. */
  image: string;
  pdb: string;
  /** RVA and bytes of the code. */
  text: { rva: number; size: number };
}

export interface CompileOptions {
  optimize: '-O0' | '-O1' | '-O2';
  pageSize?: number;
  /** Folds equal functions. */
  icf?: boolean;
}

/** Where the tiny dump has its driver. */
export const BASE = va(AT.images[1]);
export const PDB_NAME = 'tiny.pdb';

/** Compiles and links the driver in a new directory below `dir`. */
export function compileDriver(dir: string, { optimize, pageSize = 4096, icf = false }: CompileOptions): CompiledDriver {
  const objects = SOURCES.map((source) => {
    const object = join(dir, `${source}${optimize}.obj`);
    const from = fileURLToPath(new URL(`sources/${source}`, import.meta.url));
    const options = OPTIONS[extname(source)] ?? [];
    execFileSync('clang', [
      '-target',
      'x86_64-pc-windows-msvc',
      ...(options.length > 0 ? [optimize] : []),
      ...options,
      '-c',
      from,
      '-o',
      object,
    ]);
    return object;
  });
  const home = join(dir, `${optimize}-${pageSize}-${icf ? 'icf' : 'noicf'}`);
  const [images, pdbs] = [join(home, 'image'), join(home, 'symbols')];
  for (const each of [images, pdbs]) mkdirSync(each, { recursive: true });
  const [image, pdb] = [join(images, 'tiny.sys'), join(pdbs, PDB_NAME)];
  execFileSync('lld-link', [
    ...['/nologo', '/dll', '/noentry', '/nodefaultlib', '/subsystem:native', '/debug', `/pdbpagesize:${pageSize}`],
    // The engine and llvm-symbolizer would find the PDB by its path.
    ...[`/base:0x${BASE.toString(16)}`, `/out:${image}`, `/pdb:${pdb}`, `/pdbaltpath:${PDB_NAME}`],
    ...[`/opt:noref,${icf ? 'icf' : 'noicf'}`, ...objects],
  ]);
  const [rva, size] = sectionsOf(readFileSync(image))[0]!;
  return { image, pdb, text: { rva: rva!, size: size! } };
}

/** RVA, virtual size, size and place in the file. */
function sectionsOf(file: Buffer): number[][] {
  const nt = file.readUInt32LE(0x3c);
  const table = nt + 0x18 + file.readUInt16LE(nt + 0x14);
  return Array.from({ length: file.readUInt16LE(nt + 6) }, (_, i) =>
    [12, 8, 16, 20].map((field) => file.readUInt32LE(table + 40 * i + field)),
  );
}

/** Writes the tiny dump with the driver in the place of its own. */
export function writeDump(path: string, driver: CompiledDriver): void {
  const file = readFileSync(driver.image);
  const nt = file.readUInt32LE(0x3c);
  const tiny = buildTinyDump({ code: 0xd1, parameters: [0n, 0n, 0n, 0n] });
  const at = AT.images[1];
  const size = file.readUInt32LE(nt + 0x50);
  if (at + size > AT.end) throw new Error(`an image of ${size} bytes is too large for the tiny dump`);
  tiny.memory.fill(0, at, AT.end);
  file.copy(tiny.memory, at, 0, file.readUInt32LE(nt + 0x54));
  for (const [rva, , bytes, from] of sectionsOf(file)) file.copy(tiny.memory, at + rva!, from!, from! + bytes!);
  tiny.memory.writeUInt32LE(size, AT.modules[1] + 0x40);
  writeFileSync(path, fullDump(tiny));
}

/** A stack pointer in the tiny dump, for `k = RSP RIP COUNT`. */
export const STACK_POINTER = va(AT.stack + 0x400);

/** The PDB as symbol servers publish it: its modules have lost their streams, only public symbols are left. */
export function strippedPdb(pdb: Buffer): Buffer {
  const bytes = Buffer.from(pdb);
  const pageSize = bytes.readUInt32LE(0x20);
  const page = (number: number) => bytes.subarray(number * pageSize, (number + 1) * pageSize);
  const directorySize = bytes.readUInt32LE(0x2c);
  const map = page(bytes.readUInt32LE(0x34));
  const directory = Buffer.concat(
    Array.from({ length: Math.ceil(directorySize / pageSize) }, (_, i) => page(map.readUInt32LE(4 * i))),
  );
  const count = directory.readUInt32LE(0);
  const pagesOf = (stream: number) => Math.ceil(directory.readUInt32LE(4 + 4 * stream) / pageSize);
  const before = Array.from({ length: 3 }, (_, stream) => pagesOf(stream)).reduce((sum, n) => sum + n, 0);
  const dbiPages = Array.from({ length: pagesOf(3) }, (_, i) => directory.readUInt32LE(4 + 4 * (count + before + i)));
  const dbi = Buffer.concat(dbiPages.map(page));
  for (let at = 64; at < 64 + dbi.readUInt32LE(24); ) {
    dbi.writeUInt16LE(0xffff, at + 34);
    dbi.fill(0, at + 36, at + 48);
    for (let names = 0, end = at + 64; names < 2; names++, at = end) end = dbi.indexOf(0, end) + 1;
    at = (at + 3) & ~3;
  }
  dbiPages.forEach((number, i) => {
    dbi.copy(bytes, number * pageSize, i * pageSize, (i + 1) * pageSize);
  });
  return bytes;
}
