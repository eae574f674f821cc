/**
 * A kernel, a driver and a program from a real compiler and linker, so with real unwind data: clang and lld-link make
 * them of the sources in compiled/, and this loads them as Windows would, by literal offsets.
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { programsAvailable } from '../support/programs.ts';

export interface CompiledImage {
  name: string;
  base: bigint;
  /** As mapped. */
  bytes: Buffer;
  exports: ReadonlyMap<string, bigint>;
}

/** How a thread begins, and where it ends. */
interface Thread {
  regs: { rip: bigint; rcx: bigint; rdx: bigint };
  ends: { from: bigint; to: bigint };
}

export interface CompiledImages {
  kernel: CompiledImage;
  drivers: readonly CompiledImage[];
  program: readonly CompiledImage[];
  /** Kernel functions by interrupt vector. */
  handlers: ReadonlyMap<number, bigint>;
  kernelThread(processor: number): Thread;
  userThread(processor: number): Thread;
}

const TARGET = 'x86_64-pc-windows-msvc';
const IMAGES = [
  { name: 'ntoskrnl.exe', base: 0xfffff804_1a2b0000n, sources: ['kernel.c', 'kernel.s', 'shapes.s', 'chkstk.s'] },
  { name: 'demo.sys', base: 0xfffff804_2c450000n, sources: ['driver.c'], imports: 'ntoskrnl.exe' },
  { name: 'ntdll.dll', base: 0x00007ffa_10000000n, sources: ['ntdll.c', 'ntdll.s'] },
  { name: 'app.exe', base: 0x00007ff6_12340000n, sources: ['app.c', 'chkstk.s'], imports: 'ntdll.dll' },
];

/** For `describe.skipIf(!compilerAvailable())`. With ELF2DMP_REQUIRE_TOOLS=1 a missing program is an error. */
export const compilerAvailable = (): boolean => programsAvailable({ clang: 'clang', 'lld-link': 'lld' });

/** How the images differ from the usual ones. */
export interface CompiledVariant {
  /** The driver's function that the kernel calls. */
  dispatch?: 'DemoDispatch' | 'DemoFault' | 'DemoFaultToo';
  /** The processor on which that function reads address 10h, which ends in a bug check. */
  crashing?: number;
  /** Bytes that the kernel and the driver lie higher. */
  slide?: bigint;
  /** The driver is another build, whose functions lie elsewhere. */
  rebuilt?: boolean;
}

/** @param symbols directory for the images' PDBs; without it they have none */
export function compileImages(symbols?: string, variant: CompiledVariant = {}): CompiledImages {
  const dir = mkdtempSync(join(tmpdir(), 'elf2dmp-compiled-'));
  try {
    const [kernel, driver, ntdll, app] = IMAGES.map((image) =>
      compileImage(dir, { ...image, ...changesOf(image, variant) }, symbols),
    );
    if (!kernel || !driver || !ntdll || !app) throw new Error('an image is missing');
    resolveImports(driver, kernel);
    resolveImports(app, ntdll);
    const at = (image: CompiledImage, name: string): bigint => {
      const address = image.exports.get(name);
      if (address === undefined) throw new Error(`${image.name} has no ${name}`);
      return address;
    };
    const { dispatch = 'DemoDispatch', crashing } = variant;
    if (crashing !== undefined) {
      driver.bytes.writeBigUInt64LE(BigInt(crashing), Number(at(driver, 'DemoCrashing') - driver.base));
    }
    kernel.bytes.writeBigUInt64LE(at(driver, dispatch), Number(at(kernel, 'KiDispatchTable') - kernel.base));
    // cli; hlt
    const halted = at(kernel, 'HalHaltProcessor') + 2n;
    const spinning = at(app, 'AppSpin');
    return {
      kernel,
      drivers: [driver],
      program: [app, ntdll],
      handlers: new Map([
        [3, at(kernel, 'KiBreakpointTrap')],
        [14, at(kernel, 'KiPageFault')],
        [0x2e, at(kernel, 'KiSystemService')],
      ]),
      kernelThread: (processor) => ({
        regs: { rip: at(kernel, 'KiThreadStartup'), rcx: BigInt(processor), rdx: 0n },
        ends: { from: halted, to: halted + 1n },
      }),
      userThread: (processor) => ({
        regs: { rip: at(ntdll, 'RtlUserThreadStart'), rcx: at(app, 'AppMain'), rdx: BigInt(processor) },
        ends: processor === 2 ? { from: halted, to: halted + 1n } : { from: spinning, to: spinning + 0x20n },
      }),
    };
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

function changesOf({ name, base }: (typeof IMAGES)[number], { slide = 0n, rebuilt = false }: CompiledVariant) {
  const rebuild = rebuilt && name === 'demo.sys';
  return {
    base: base >> 63n === 0n ? base : base + slide,
    defines: rebuild ? ['-DREBUILT'] : [],
    timestamp: rebuild ? 1577836899 : 1577836800,
  };
}

function compileImage(
  dir: string,
  { name, base, sources, imports, defines, timestamp }: (typeof IMAGES)[number] & ReturnType<typeof changesOf>,
  symbols: string | undefined,
): CompiledImage {
  const objects = sources.map((source) => {
    const from = fileURLToPath(new URL(`compiled/${source}`, import.meta.url));
    const object = join(dir, `${source}.obj`);
    // One frame per call: no tail calls.
    const options = ['-O1', '-ffreestanding', '-fno-optimize-sibling-calls', '-fasynchronous-unwind-tables'];
    options.push(...defines);
    if (symbols !== undefined) options.push('-g', '-gcodeview');
    execFileSync('clang', ['-target', TARGET, ...(source.endsWith('.c') ? options : []), '-c', from, '-o', object]);
    return object;
  });
  const file = join(dir, name);
  const exported = sources
    .filter((source) => source.endsWith('.s') && source !== 'chkstk.s')
    .flatMap((source) =>
      readFileSync(fileURLToPath(new URL(`compiled/${source}`, import.meta.url)), 'utf8').split('\n'),
    )
    .flatMap((line) => /^\s*\.globl (\w+)/.exec(line)?.[1] ?? []);
  execFileSync('lld-link', [
    ...['/nologo', '/dll', '/noentry', '/nodefaultlib', '/subsystem:native', `/timestamp:${timestamp}`],
    ...[`/base:0x${base.toString(16)}`, `/out:${file}`, `/implib:${file}.lib`],
    ...exported.map((each) => `/export:${each}`),
    ...(symbols === undefined
      ? []
      : ['/debug', `/pdb:${join(symbols, pdbName(name))}`, `/pdbaltpath:${pdbName(name)}`]),
    ...objects,
    ...(imports ? [join(dir, `${imports}.lib`)] : []),
  ]);
  const bytes = mapImage(readFileSync(file), base);
  return { name, base, bytes, exports: readExports(bytes, base) };
}

const pdbName = (image: string) => image.replace(/\.\w+$/, '.pdb');

const ntHeaders = (image: Buffer) => image.readUInt32LE(0x3c);
const directory = (image: Buffer, index: number) => image.readUInt32LE(ntHeaders(image) + 0x88 + 8 * index);

/** The file's sections where the loader puts them. It was linked for `base`, so nothing is to be relocated. */
export function mapImage(file: Buffer, base: bigint): Buffer {
  const nt = ntHeaders(file);
  if (file.readBigUInt64LE(nt + 0x30) !== base) throw new Error('the image was linked for another address');
  const image = Buffer.alloc(file.readUInt32LE(nt + 0x50));
  file.copy(image, 0, 0, file.readUInt32LE(nt + 0x54));
  const sections = nt + 0x18 + file.readUInt16LE(nt + 0x14);
  for (let i = 0; i < file.readUInt16LE(nt + 6); i++) {
    const [rva, size, from] = [12, 16, 20].map((offset) => file.readUInt32LE(sections + 40 * i + offset));
    file.copy(image, rva!, from!, from! + size!);
  }
  return image;
}

const text = (image: Buffer, at: number) => image.toString('latin1', at, image.indexOf(0, at));

export function readExports(image: Buffer, base: bigint): Map<string, bigint> {
  const at = directory(image, 0);
  const [count, functions, names, ordinals] = [0x18, 0x1c, 0x20, 0x24].map((offset) => image.readUInt32LE(at + offset));
  return new Map(
    Array.from({ length: count! }, (_, i) => {
      const rva = image.readUInt32LE(functions! + 4 * image.readUInt16LE(ordinals! + 2 * i));
      return [text(image, image.readUInt32LE(names! + 4 * i)), base + BigInt(rva)];
    }),
  );
}

/** Fills in the import table of `image`, all of whose imports are from `from`. */
function resolveImports(image: CompiledImage, from: CompiledImage): void {
  const { bytes } = image;
  for (let at = directory(bytes, 1); bytes.readUInt32LE(at + 12) !== 0; at += 20) {
    const [lookup, table] = [bytes.readUInt32LE(at), bytes.readUInt32LE(at + 16)];
    for (let i = 0; bytes.readUInt32LE(lookup + 8 * i) !== 0; i++) {
      const name = text(bytes, bytes.readUInt32LE(lookup + 8 * i) + 2);
      const address = from.exports.get(name);
      if (address === undefined) throw new Error(`${image.name} wants ${name}, which ${from.name} has not`);
      bytes.writeBigUInt64LE(address, table + 8 * i);
    }
  }
}
