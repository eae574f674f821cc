/** Headers of crash dumps as values, whatever their form: what a reader, a plan and a check ask of them. */
import type { Field, StructOf } from '../core/struct.ts';
import { PAGE_SIZE, pfnOf } from '../core/units.ts';
import {
  DUMP_ATTRIBUTE_FILTERED,
  DUMP_FILL,
  DUMP_HEADER32_SIZE,
  DUMP_HEADER64_SIZE,
  DUMP_SIGNATURE,
  DUMP_SIGNATURE_32,
  DumpHeader32,
  DumpHeader64,
  type DumpType,
  EXCEPTION_NONCONTINUABLE,
  ExceptionRecord32,
  ExceptionRecord64,
  MAX_HEADER_RUNS,
  MAX_HEADER_RUNS_32,
  PhysicalMemoryRun32,
  PhysicalMemoryRun64,
  STATUS_BREAKPOINT,
} from './win-dump.ts';

/** What a header holds, as wide as the 64-bit form has it: addresses of a narrower one are sign-extended. */
export type DumpHeader = Omit<
  StructOf<typeof DumpHeader64>,
  'BugCheckPadding' | 'RunsPadding' | 'DumpTypePadding' | 'Unused1' | 'Unused2' | 'Exception'
> & {
  /** Of 32-bit dumps: 1 where page tables are those of PAE. */
  PaeEnabled: number | undefined;
  Exception: Omit<StructOf<typeof ExceptionRecord64>, 'UnusedAlignment'>;
  /** The header as it is in the file. */
  bytes: Buffer;
};

/** A field of a header. */
export type HeaderField = Exclude<keyof DumpHeader, 'bytes'>;

/** A part of a header's declaration. */
export interface HeaderLayout {
  readonly name: string;
  /** Bytes. */
  readonly size: number;
  readonly fields: Readonly<Record<string, Pick<Field<unknown>, 'offset' | 'size'>>>;
}

/** A form of dump header. Machines share one or have their own. */
export interface DumpHeaderForm {
  /** For people: `64-bit`. */
  readonly title: string;
  /** The first bytes of a dump. */
  readonly signature: Buffer;
  /** Bytes; the bitmap's header, or a full dump's first page, follows at once. */
  readonly size: number;
  /** Runs that it can list: a full dump has no more. */
  readonly maxRuns: number;
  /** Runs that there are bytes for up to the exception record: writers that don't count go on over the context. */
  readonly roomForRuns: number;
  readonly layout: HeaderLayout & { offsetOf(field: HeaderField): number };
  /** Fields of `layout` that are structures themselves. */
  readonly nested: Readonly<Record<string, HeaderLayout>>;
  encode(values: HeaderValues): Buffer;
  /** Another dump's header, made that of a dump with these pages, with some fields changed. */
  revise(header: DumpHeader, layout: HeaderPages, changes: Partial<DumpHeader>): Buffer;
  /** @param bytes at least `size` */
  decode(bytes: Buffer): DumpHeader;
  /** Run `index` of those that the header lists, or of `roomForRuns`, in pages. */
  runAt(header: DumpHeader, index: number): { basePage: bigint; pageCount: bigint };
}

/** What the header says of the file. */
export interface HeaderPages {
  dumpType: (typeof DumpType)[keyof typeof DumpType];
  /** undefined: left unset, as Windows leaves it where it has nothing to say. */
  attributes: number | undefined;
  /** Full dumps list their runs here; bitmap dumps list as many as fit and are read by their bitmap. */
  extents: readonly { start: number; size: number }[];
  /** Pages in the file. */
  pages: number;
  /** Bytes of the whole file. */
  requiredSpace: number;
}

/** What the header says; every value is the guest's unless said otherwise. */
export interface HeaderValues extends HeaderPages {
  majorVersion: number;
  build: number;
  directoryTableBase: number;
  /** In 32-bit headers: page tables are those of PAE. Default false. */
  pae?: boolean | undefined;
  pfnDatabase: bigint;
  psLoadedModuleList: bigint;
  psActiveProcessHead: bigint;
  machine: number;
  processors: number;
  bugCheck: { code: number; parameters: readonly [bigint, bigint, bigint, bigint] };
  kdDebuggerDataBlock: bigint;
  /** The context of the processor that the debugger shows first, or undefined if unknown. */
  context: Buffer | undefined;
  exceptionAddress: bigint;
  /** FILETIME; 0 if unknown. */
  systemTime: bigint;
  /** Units of 100 ns; 0 if unknown. */
  systemUpTime: bigint;
  productType: number;
  suiteMask: number;
  kdSecondaryVersion: number;
  /** 0, but for a triage dump. */
  miniDumpFields?: number;
  /** undefined, here and below: left unset, as in older builds. */
  pagingLevels: number | undefined;
  bootId: number | undefined;
  comment: string;
}

/** Fields that both forms have. */
function sharedValues(v: HeaderValues) {
  const comment = Buffer.alloc(128);
  comment.write(v.comment, 0, 127, 'latin1');
  return {
    MajorVersion: v.majorVersion,
    MinorVersion: v.build,
    DirectoryTableBase: BigInt(v.directoryTableBase),
    PfnDatabase: v.pfnDatabase,
    PsLoadedModuleList: v.psLoadedModuleList,
    PsActiveProcessHead: v.psActiveProcessHead,
    MachineImageType: v.machine,
    NumberProcessors: v.processors,
    BugCheckCode: v.bugCheck.code,
    BugCheckParameters: v.bugCheck.parameters,
    KdSecondaryVersion: v.kdSecondaryVersion,
    KdDebuggerDataBlock: v.kdDebuggerDataBlock,
    SystemTime: v.systemTime,
    Comment: comment,
    SystemUpTime: v.systemUpTime,
    MiniDumpFields: v.miniDumpFields ?? 0,
    ProductType: v.productType,
    SuiteMask: v.suiteMask,
    WriterStatus: 0,
  };
}

function encode64(v: HeaderValues): Buffer {
  // Windows fills the page first and sets fields then: those that it leaves, VersionUser too, read "PAGE".
  const header = Buffer.alloc(DUMP_HEADER64_SIZE, DUMP_FILL);
  DumpHeader64.write(header, 0, {
    Signature: DUMP_SIGNATURE,
    ...sharedValues(v),
    Unused1: 0,
  });
  DumpHeader64.write(header, 0, {
    ...(v.pagingLevels !== undefined && { PagingLevels: v.pagingLevels }),
    ...(v.bootId !== undefined && { BootId: v.bootId }),
  });
  ExceptionRecord64.write(header, DumpHeader64.offsetOf('Exception'), exceptionRecord(v));
  writePages64(header, v);
  v.context?.copy(header, DumpHeader64.offsetOf('ContextRecord'));
  return header;
}

/** Sets the fields that describe the file. Those that stay unset have to read "PAGE" already. */
function writePages64(header: Buffer, v: HeaderPages): void {
  const runs = v.extents.slice(0, MAX_HEADER_RUNS);
  DumpHeader64.write(header, 0, {
    NumberOfRuns: runs.length,
    NumberOfPages: BigInt(v.pages),
    DumpType: v.dumpType,
    RequiredDumpSpace: BigInt(v.requiredSpace),
  });
  if (v.attributes !== undefined) DumpHeader64.write(header, 0, { Attributes: v.attributes });
  runs.forEach((extent, i) => {
    PhysicalMemoryRun64.write(header, DumpHeader64.offsetOf('Runs') + i * PhysicalMemoryRun64.size, {
      BasePage: BigInt(pfnOf(extent.start)),
      PageCount: BigInt(extent.size / PAGE_SIZE),
    });
  });
}

/** What else a header's attributes say is how the memory was taken. */
function revisedAttributes(attributes: number, changed: number | undefined): number | undefined {
  const others = attributes === DUMP_FILL.readUInt32LE(0) ? 0 : attributes & ~DUMP_ATTRIBUTE_FILTERED;
  return others === 0 ? changed : (others | (changed ?? 0)) >>> 0;
}

function revise64({ bytes, Attributes }: DumpHeader, pages: HeaderPages, changes: Partial<DumpHeader>): Buffer {
  const header = Buffer.from(bytes);
  for (const field of ['Runs', 'Attributes'] as const) {
    const { offset, size } = DumpHeader64.fields[field];
    header.fill(DUMP_FILL, offset, offset + size);
  }
  writePages64(header, { ...pages, attributes: revisedAttributes(Attributes, pages.attributes) });
  const { Exception: _, ...others } = changes;
  DumpHeader64.write(header, 0, others);
  return header;
}

/** As Windows has it in its own dumps, which are taken at a breakpoint-like stop; the rest of it stays unset. */
function exceptionRecord({ context, exceptionAddress }: HeaderValues) {
  const common = { ExceptionRecord: 0n, NumberParameters: 0 };
  if (!context) return { ...common, ExceptionCode: 0, ExceptionFlags: 0, ExceptionAddress: 0n };
  return {
    ...common,
    ExceptionCode: STATUS_BREAKPOINT,
    ExceptionFlags: EXCEPTION_NONCONTINUABLE,
    ExceptionAddress: exceptionAddress,
  };
}

/** Throws RangeError where a form lacks the field that it is asked for. */
function layoutOf({ name, size, fields }: HeaderLayout): DumpHeaderForm['layout'] {
  const offsetOf = (field: HeaderField) => {
    const found = fields[field];
    if (!found) throw new RangeError(`${name} has no ${field}`);
    return found.offset;
  };
  return { name, size, fields, offsetOf };
}

/** DUMP_HEADER64, of x64 and ARM64. */
export const DUMP_HEADER_FORM_64: DumpHeaderForm = {
  title: '64-bit',
  signature: DUMP_SIGNATURE,
  size: DUMP_HEADER64_SIZE,
  maxRuns: MAX_HEADER_RUNS,
  roomForRuns: Math.floor(
    (DumpHeader64.offsetOf('Exception') - DumpHeader64.offsetOf('Runs')) / PhysicalMemoryRun64.size,
  ),
  layout: layoutOf(DumpHeader64),
  nested: { Exception: ExceptionRecord64 },
  encode: encode64,
  revise: revise64,
  decode: (bytes) => ({
    ...DumpHeader64.read(bytes),
    PaeEnabled: undefined,
    bytes: bytes.subarray(0, DUMP_HEADER64_SIZE),
  }),
  runAt: ({ bytes }, index) => {
    const at = DumpHeader64.offsetOf('Runs') + index * PhysicalMemoryRun64.size;
    const { BasePage, PageCount } = PhysicalMemoryRun64.read(bytes, at);
    return { basePage: BasePage, pageCount: PageCount };
  },
};

function encode32(v: HeaderValues): Buffer {
  const header = Buffer.alloc(DUMP_HEADER32_SIZE, DUMP_FILL);
  DumpHeader32.write(header, 0, {
    Signature: DUMP_SIGNATURE_32,
    ...sharedValues(v),
    PaeEnabled: v.pae ? 1 : 0,
    ...(v.bootId !== undefined && { BootId: v.bootId }),
  });
  ExceptionRecord32.write(header, DumpHeader32.offsetOf('Exception'), exceptionRecord(v));
  writePages32(header, v);
  v.context?.copy(header, DumpHeader32.offsetOf('ContextRecord'));
  return header;
}

/** As `writePages64`. */
function writePages32(header: Buffer, v: HeaderPages): void {
  const runs = v.extents.slice(0, MAX_HEADER_RUNS_32);
  DumpHeader32.write(header, 0, {
    NumberOfRuns: runs.length,
    NumberOfPages: BigInt(v.pages),
    DumpType: v.dumpType,
    RequiredDumpSpace: BigInt(v.requiredSpace),
    ...(v.attributes !== undefined && { Attributes: v.attributes }),
  });
  runs.forEach((extent, i) => {
    PhysicalMemoryRun32.write(header, DumpHeader32.offsetOf('Runs') + i * PhysicalMemoryRun32.size, {
      BasePage: BigInt(pfnOf(extent.start)),
      PageCount: BigInt(extent.size / PAGE_SIZE),
    });
  });
}

/** DUMP_HEADER32, of 32-bit x86. It has no levels of page tables. */
export const DUMP_HEADER_FORM_32: DumpHeaderForm = {
  title: '32-bit',
  signature: DUMP_SIGNATURE_32,
  size: DUMP_HEADER32_SIZE,
  maxRuns: MAX_HEADER_RUNS_32,
  roomForRuns: Math.floor(
    (DumpHeader32.offsetOf('Exception') - DumpHeader32.offsetOf('Runs')) / PhysicalMemoryRun32.size,
  ),
  layout: layoutOf(DumpHeader32),
  nested: { Exception: ExceptionRecord32 },
  encode: encode32,
  revise: ({ bytes, Attributes }, pages, changes) => {
    const header = Buffer.from(bytes);
    for (const field of ['Runs', 'Attributes'] as const) {
      const { offset, size } = DumpHeader32.fields[field];
      header.fill(DUMP_FILL, offset, offset + size);
    }
    writePages32(header, { ...pages, attributes: revisedAttributes(Attributes, pages.attributes) });
    const { PagingLevels: _, PaeEnabled, Exception: _unchanged, ...others } = changes;
    DumpHeader32.write(header, 0, others);
    if (PaeEnabled !== undefined) DumpHeader32.write(header, 0, { PaeEnabled });
    return header;
  },
  decode: (bytes) => ({
    ...DumpHeader32.read(bytes),
    PagingLevels: DUMP_FILL[0]!,
    bytes: bytes.subarray(0, DUMP_HEADER32_SIZE),
  }),
  runAt: ({ bytes }, index) => {
    const at = DumpHeader32.offsetOf('Runs') + index * PhysicalMemoryRun32.size;
    const { BasePage, PageCount } = PhysicalMemoryRun32.read(bytes, at);
    return { basePage: BasePage, pageCount: PageCount };
  },
};
