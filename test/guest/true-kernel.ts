/**
 * A kernel image of true size: sections, tens of thousands of unwind entries and thousands of exports where real
 * kernels have them. Only its pages that hold something exist.
 */
import { AFTER_CALL, callingFunction, idleFunction } from './pe.ts';

interface Section {
  name: string;
  rva: number;
  size: number;
  flags: number;
}

const CODE = 0x68000020;
const READ = 0x48000040;
const WRITE = 0xc8000040;
const PAGED_READ = 0x40000040;
const PAGED_CODE = 0x60000020;
const DISCARDED = 0x62000020;
const DISCARDED_DATA = 0x42000040;

/** [R] 19041: the order and the places of .edata, .text, PAGE, KVASCODE, INIT, .data, CFGRO, .rsrc; the others fill the gaps. */
const MODERN: readonly (readonly [name: string, rva: number, flags: number])[] = [
  ['.rdata', 0x1000, READ],
  ['.pdata', 0xcb000, READ],
  ['.idata', 0x133000, READ],
  ['.edata', 0x134000, PAGED_READ],
  ['PROTDATA', 0x14d000, READ],
  ['GFIDS', 0x14e000, DISCARDED_DATA],
  ['Pad1', 0x157000, DISCARDED_DATA],
  ['.text', 0x200000, CODE],
  ['PAGE', 0x5c6000, PAGED_CODE],
  ['PAGELK', 0x980000, PAGED_CODE],
  ['POOLCODE', 0x9a4000, CODE],
  ['PAGEKD', 0x9a6000, PAGED_CODE],
  ['PAGEVRFY', 0x9ac000, PAGED_CODE],
  ['PAGEHDLS', 0x9dc000, PAGED_CODE],
  ['PAGEBGFX', 0x9df000, PAGED_CODE],
  ['INITKDBG', 0x9e6000, CODE],
  ['TRACESUP', 0xa0f000, CODE],
  ['KVASCODE', 0xa11000, CODE],
  ['RETPOL', 0xa14000, CODE],
  ['MINIEX', 0xa15000, DISCARDED],
  ['INIT', 0xa18000, DISCARDED],
  ['Pad2', 0xaa4000, DISCARDED],
  ['.data', 0xc00000, WRITE],
  ['ALMOSTRO', 0xcfb000, WRITE],
  ['CACHEALI', 0xd20000, WRITE],
  ['PAGEDATA', 0xd26000, WRITE],
  ['PAGEVRFD', 0xd2e000, WRITE],
  ['INITDATA', 0xd32000, DISCARDED_DATA],
  ['Pad3', 0xd38000, DISCARDED_DATA],
  ['CFGRO', 0xe00000, READ],
  ['Pad4', 0xe1a000, DISCARDED_DATA],
  ['.rsrc', 0x1000000, DISCARDED_DATA],
  ['.reloc', 0x1036000, DISCARDED_DATA],
];

/** After Windows 7's, with the debugger's data at its place of 7601. */
const OLD: typeof MODERN = [
  ['.text', 0x1000, CODE],
  ['INITKDBG', 0x19b000, CODE],
  ['POOLMI', 0x19f000, CODE],
  ['POOLCODE', 0x1a1000, CODE],
  ['RWEXEC', 0x1a3000, 0xe8000020],
  ['.rdata', 0x1a4000, READ],
  ['.data', 0x1ed000, WRITE],
  ['.pdata', 0x283000, READ],
  ['ALMOSTRO', 0x2b4000, WRITE],
  ['SPINLOCK', 0x2b7000, WRITE],
  ['PAGELK', 0x2b9000, PAGED_CODE],
  ['PAGE', 0x2cd000, PAGED_CODE],
  ['PAGEKD', 0x4cd000, PAGED_CODE],
  ['PAGEVRFY', 0x4d3000, PAGED_CODE],
  ['PAGEHDLS', 0x4f3000, PAGED_CODE],
  ['PAGEBGFX', 0x4f5000, PAGED_CODE],
  ['.edata', 0x4fd000, PAGED_READ],
  ['PAGEDATA', 0x50f000, WRITE],
  ['INIT', 0x515000, DISCARDED],
  ['.rsrc', 0x595000, PAGED_READ],
  ['.reloc', 0x5cb000, DISCARDED_DATA],
];

/** Variables and code by RVA. The modern ones are 19041's where the dump's KDBG names them [R]. */
const PLACES = {
  modern: {
    sections: MODERN,
    size: 0x1046000,
    unwindEntries: 35_399,
    /** Bytes of code for each. */
    functionBytes: 0xe0,
    exports: 2_900,
    launch: 0x984000,
    handlers: 0xa11000,
    KdDebuggerDataBlock: 0xc00b20,
    KdVersionBlock: 0xc05000,
    PsActiveProcessHead: 0xc1e200,
    MmUnloadedDrivers: 0xc2a308,
    MmLastUnloadedDriver: 0xc2a310,
    PsLoadedModuleList: 0xc2a390,
    KiBugCheckData: 0xc31480,
    KdpDebuggerDataListHead: 0xc40770,
    NtBuildLab: 0xc4c0a0,
    KiInitialProcess: 0xc58000,
    NtBuildNumber: 0xcfc200,
    MmPhysicalMemoryBlock: 0xcfc4a8,
    MmPfnDatabase: 0xcfc500,
    KiWaitNever: 0xcfc800,
    KiWaitAlways: 0xcfcb08,
    KdpDataBlockEncoded: 0xc60110,
    KiProcessorBlock: 0xcfdc80,
    bootKpcr: 0xc70d00,
    /** Top of the boot stack. */
    stack: 0xc9ef80,
    versionResource: 0x1000000,
  },
  old: {
    sections: OLD,
    size: 0x5e6000,
    unwindEntries: 16_000,
    functionBytes: 0x60,
    exports: 1_900,
    launch: 0x190000,
    handlers: 0x180000,
    // 7601's KDBG and boot KPCR lie so.
    KdDebuggerDataBlock: 0x1ed0a0,
    bootKpcr: 0x1eed00,
    stack: 0x24ef80,
    KdVersionBlock: 0x205000,
    PsActiveProcessHead: 0x20b370,
    MmUnloadedDrivers: 0x221308,
    MmLastUnloadedDriver: 0x221310,
    PsLoadedModuleList: 0x228650,
    KiBugCheckData: 0x22a480,
    KdpDebuggerDataListHead: 0x22e770,
    NtBuildLab: 0x2300a0,
    KiInitialProcess: 0x234180,
    NtBuildNumber: 0x238200,
    MmPhysicalMemoryBlock: 0x2384a8,
    MmPfnDatabase: 0x238500,
    KiWaitNever: 0x238800,
    KiWaitAlways: 0x238b08,
    KdpDataBlockEncoded: 0x23a110,
    KiProcessorBlock: 0x27d900,
    versionResource: 0x595000,
  },
} as const;

export type KernelPlaces = (typeof PLACES)['modern' | 'old'];

export interface TrueKernel {
  places: KernelPlaces;
  /** As mapped; what is discarded is not to be mapped. */
  bytes: Buffer;
  sections: readonly Section[];
  /** RVAs. */
  exports: ReadonlyMap<string, number>;
}

/** Loaded, but no longer there: [from, to) as RVAs. */
export const discardedOf = (kernel: TrueKernel): { from: number; to: number }[] =>
  kernel.sections.filter((s) => (s.flags & 0x02000000) !== 0).map((s) => ({ from: s.rva, to: s.rva + s.size }));

const FUNCTIONS = [
  'HalRequestIpi',
  'KeDelayExecutionThread',
  'KiIdleLoop',
  'KeBugCheck',
  'KeWaitForSingleObject',
  'IoCallDriver',
  'KiSystemServiceExit',
  'NtWaitForSingleObject',
  'RtlCaptureContext',
  'ZwClose',
  'KdPollBreakIn',
  'KeBugCheckEx',
  'PoIdle',
];
const IDLE = new Set(['PoIdle', 'KdPollBreakIn', 'RtlCaptureContext']);
const CALLS: Record<string, string> = {
  KeBugCheckEx: 'RtlCaptureContext',
  KiIdleLoop: 'PoIdle',
  KeBugCheck: 'KeBugCheckEx',
};

/** Return address in a function that calls another. */
export { AFTER_CALL };

export function buildTrueKernel(spec: {
  image: 'modern' | 'old';
  pdb: { name: string; guid: Buffer; age: number };
  timeDateStamp: number;
  version: readonly number[];
}): TrueKernel {
  const places = PLACES[spec.image];
  const sections = places.sections.map(([name, rva, flags], i) => ({
    name,
    rva,
    size: (places.sections[i + 1]?.[1] ?? places.size) - rva,
    flags,
  }));
  const at = (name: string) => sections.find((s) => s.name === name)!;
  const image = Buffer.alloc(places.size);
  writeHeaders(image, sections, spec);
  const directory = (index: number, rva: number, size: number) => {
    image.writeUInt32LE(rva, NT + 0x88 + 8 * index);
    image.writeUInt32LE(size, NT + 0x8c + 8 * index);
  };

  // Functions, each with its unwind entry. Those with names that callers ask for are spread among the others.
  const text = at('.text').rva;
  const rvaOf = (name: string) => text + places.functionBytes * (500 + 611 * FUNCTIONS.indexOf(name));
  const codes = new Map(
    FUNCTIONS.map((name) => {
      const rva = rvaOf(name);
      return [rva, IDLE.has(name) ? idleFunction() : callingFunction(rva, rvaOf(CALLS[name] ?? 'PoIdle'))];
    }),
  );
  const unwind = at('.rdata').rva + 0x2200;
  image.set([0x01, 0x04, 0x01, 0x00, 0x04, 0x42, 0x00, 0x00], unwind);
  const pdata = at('.pdata').rva;
  for (let i = 0; i < places.unwindEntries; i++) {
    const rva = text + places.functionBytes * i;
    const code = codes.get(rva);
    code?.copy(image, rva);
    image.writeUInt32LE(rva, pdata + 12 * i);
    image.writeUInt32LE(rva + (code?.length ?? places.functionBytes - 0x10), pdata + 12 * i + 4);
    image.writeUInt32LE(unwind, pdata + 12 * i + 8);
  }
  directory(3, pdata, 12 * places.unwindEntries);
  for (let vector = 0; vector < 256; vector++) {
    // push VECTOR; hlt; jmp $-1: default stubs are 8 bytes apart [P].
    image.set([0x6a, vector, 0xf4, 0xeb, 0xfd, 0xcc, 0xcc, 0xcc], places.handlers + 8 * vector);
  }

  const exports = new Map<string, number>(FUNCTIONS.map((name) => [name, rvaOf(name)]));
  exports.set('NtBuildNumber', places.NtBuildNumber);
  for (let i = 0; exports.size < places.exports; i++)
    exports.set(`RtlpMadeUp${i}`, text + places.functionBytes * (11 + 5 * i));
  directory(0, at('.edata').rva, writeExports(image, at('.edata').rva, exports));

  // Debug directory: CodeView, then the linker's other kinds.
  const debug = at('.rdata').rva + 0x1000;
  [2, 13, 16].forEach((type, i) => {
    image.writeUInt32LE(type, debug + 28 * i + 0xc);
    image.writeUInt32LE(24 + spec.pdb.name.length + 1, debug + 28 * i + 0x10);
    image.writeUInt32LE(debug + 0x100 + 0x100 * i, debug + 28 * i + 0x14);
    image.writeUInt32LE(debug + 0x100 + 0x100 * i, debug + 28 * i + 0x18);
  });
  image.write('RSDS', debug + 0x100, 'latin1');
  spec.pdb.guid.copy(image, debug + 0x104);
  image.writeUInt32LE(spec.pdb.age, debug + 0x114);
  image.write(`${spec.pdb.name}\0`, debug + 0x118, 'latin1');
  directory(6, debug, 3 * 28);

  writeVersion(image, places.versionResource, spec.version);
  directory(2, places.versionResource, 0x36000);
  return { places, bytes: image, sections, exports };
}

/** e_lfanew of 19041 [R]. */
const NT = 0x110;

function writeHeaders(image: Buffer, sections: readonly Section[], spec: { timeDateStamp: number }): void {
  image.write('MZ', 0, 'latin1');
  image.writeUInt32LE(NT, 0x3c);
  image.write('PE\0\0', NT, 'latin1');
  image.writeUInt16LE(0x8664, NT + 4);
  image.writeUInt16LE(sections.length, NT + 6);
  image.writeUInt32LE(spec.timeDateStamp, NT + 8);
  image.writeUInt16LE(0xf0, NT + 0x14);
  image.writeUInt16LE(0x22, NT + 0x16);
  image.writeUInt16LE(0x20b, NT + 0x18);
  image.writeBigUInt64LE(0x140000000n, NT + 0x30);
  image.writeUInt32LE(0x1000, NT + 0x38);
  image.writeUInt32LE(0x200, NT + 0x3c);
  image.writeUInt16LE(10, NT + 0x40);
  image.writeUInt32LE(image.length, NT + 0x50);
  image.writeUInt32LE(0x1000, NT + 0x54);
  image.writeUInt32LE(0xa5938c, NT + 0x58);
  image.writeUInt16LE(1, NT + 0x5c);
  image.writeUInt32LE(16, NT + 0x84);
  sections.forEach(({ name, rva, size, flags }, i) => {
    const at = NT + 0x108 + 40 * i;
    image.write(name, at, 'latin1');
    image.writeUInt32LE(size, at + 8);
    image.writeUInt32LE(rva, at + 12);
    image.writeUInt32LE(size, at + 16);
    image.writeUInt32LE(rva, at + 20);
    image.writeUInt32LE(flags, at + 36);
  });
}

/** Returns the directory's size. */
function writeExports(image: Buffer, base: number, exports: ReadonlyMap<string, number>): number {
  const sorted = [...exports].sort(([a], [b]) => (a < b ? -1 : 1));
  const count = sorted.length;
  const [functions, names, ordinals] = [base + 0x28, base + 0x28 + 4 * count, base + 0x28 + 8 * count];
  let text = ordinals + 2 * count;
  const string = (value: string) => {
    const at = text;
    text += image.write(`${value}\0`, at, 'latin1');
    return at;
  };
  image.writeUInt32LE(string('ntoskrnl.exe'), base + 0xc);
  image.writeUInt32LE(1, base + 0x10);
  image.writeUInt32LE(count, base + 0x14);
  image.writeUInt32LE(count, base + 0x18);
  image.writeUInt32LE(functions, base + 0x1c);
  image.writeUInt32LE(names, base + 0x20);
  image.writeUInt32LE(ordinals, base + 0x24);
  sorted.forEach(([name, rva], i) => {
    image.writeUInt32LE(rva, functions + 4 * i);
    image.writeUInt32LE(string(name), names + 4 * i);
    image.writeUInt16LE(i, ordinals + 2 * i);
  });
  return text - base;
}

/** A resource directory with nothing but a version. */
function writeVersion(image: Buffer, base: number, version: readonly number[]): void {
  const node = (at: number, id: number, offset: number) => {
    image.writeUInt16LE(1, base + at + 0xe);
    image.writeUInt32LE(id, base + at + 0x10);
    image.writeUInt32LE(offset, base + at + 0x14);
  };
  node(0, 16, 0x80000020);
  node(0x20, 1, 0x80000040);
  node(0x40, 0x409, 0x60);
  image.writeUInt32LE(base + 0x80, base + 0x60);
  image.writeUInt32LE(0x5c, base + 0x64);
  const info = base + 0x80;
  image.writeUInt16LE(0x5c, info);
  image.writeUInt16LE(0x34, info + 2);
  image.write('VS_VERSION_INFO\0', info + 6, 'utf16le');
  image.writeUInt32LE(0xfeef04bd, info + 0x28);
  image.writeUInt32LE(0x10000, info + 0x2c);
  [...version, ...version].forEach((part, i) => {
    // The more significant half of each word comes second.
    image.writeUInt16LE(part, info + 0x30 + 2 * (i ^ 1));
  });
}
