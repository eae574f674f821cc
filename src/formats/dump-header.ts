/** Headers of crash dumps as values, whatever their form: what a reader, a plan and a check ask of them. */
import type { Field, StructOf } from '../core/struct.ts';
import { PAGE_SIZE, pfnOf } from '../core/units.ts';
import {
  DUMP_ATTRIBUTE_FILTERED,
  DUMP_FILL,
  DUMP_HEADER64_SIZE,
  DUMP_SIGNATURE,
  DumpHeader64,
  type DumpType,
  EXCEPTION_NONCONTINUABLE,
  ExceptionRecord64,
  MAX_HEADER_RUNS,
  PhysicalMemoryRun64,
  STATUS_BREAKPOINT,
} from './win-dump.ts';

/** What a header holds, as wide as the 64-bit form has it: addresses of a narrower one are sign-extended. */
export type DumpHeader = Omit<
  StructOf<typeof DumpHeader64>,
  'BugCheckPadding' | 'RunsPadding' | 'DumpTypePadding' | 'Unused1' | 'Unused2'
> & {
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

function encode64(v: HeaderValues): Buffer {
  // Windows fills the page first and sets fields then: those that it leaves, VersionUser too, read "PAGE".
  const header = Buffer.alloc(DUMP_HEADER64_SIZE, DUMP_FILL);
  const comment = Buffer.alloc(128);
  comment.write(v.comment, 0, 127, 'latin1');
  DumpHeader64.write(header, 0, {
    Signature: DUMP_SIGNATURE,
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
    KdDebuggerDataBlock: v.kdDebuggerDataBlock,
    SystemTime: v.systemTime,
    Comment: comment,
    SystemUpTime: v.systemUpTime,
    MiniDumpFields: v.miniDumpFields ?? 0,
    ProductType: v.productType,
    SuiteMask: v.suiteMask,
    WriterStatus: 0,
    Unused1: 0,
    KdSecondaryVersion: v.kdSecondaryVersion,
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

function revise64({ bytes, Attributes }: DumpHeader, pages: HeaderPages, changes: Partial<DumpHeader>): Buffer {
  const header = Buffer.from(bytes);
  for (const field of ['Runs', 'Attributes'] as const) {
    const { offset, size } = DumpHeader64.fields[field];
    header.fill(DUMP_FILL, offset, offset + size);
  }
  // What else there is says how the memory was taken.
  const others = Attributes === DUMP_FILL.readUInt32LE(0) ? 0 : Attributes & ~DUMP_ATTRIBUTE_FILTERED;
  const attributes = others === 0 ? pages.attributes : (others | (pages.attributes ?? 0)) >>> 0;
  writePages64(header, { ...pages, attributes });
  DumpHeader64.write(header, 0, changes);
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

/** DUMP_HEADER64, of x64 and ARM64. */
export const DUMP_HEADER_FORM_64: DumpHeaderForm = {
  title: '64-bit',
  signature: DUMP_SIGNATURE,
  size: DUMP_HEADER64_SIZE,
  maxRuns: MAX_HEADER_RUNS,
  roomForRuns: Math.floor(
    (DumpHeader64.offsetOf('Exception') - DumpHeader64.offsetOf('Runs')) / PhysicalMemoryRun64.size,
  ),
  layout: DumpHeader64,
  nested: { Exception: ExceptionRecord64 },
  encode: encode64,
  revise: revise64,
  decode: (bytes) => ({ ...DumpHeader64.read(bytes), bytes: bytes.subarray(0, DUMP_HEADER64_SIZE) }),
  runAt: ({ bytes }, index) => {
    const at = DumpHeader64.offsetOf('Runs') + index * PhysicalMemoryRun64.size;
    const { BasePage, PageCount } = PhysicalMemoryRun64.read(bytes, at);
    return { basePage: BasePage, pageCount: PageCount };
  },
};
