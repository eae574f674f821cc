/** Triage dumps (kernel minidumps): blocks of virtual memory and lists, without physical memory. */
import { isKernelAddress, pointerAt, widened } from '../core/bits.ts';
import type { Fail as FailOf } from '../core/errors.ts';
import { hex, hex64, MIB, pa } from '../core/units.ts';
import type { DumpHeader, DumpHeaderForm } from '../formats/dump-header.ts';
import { TRIAGE_UNLOADED_NAME, TRIAGE_VALID, TriageDataBlock, type TriageForm, triageForm } from '../formats/triage.ts';
import { KDBG_MAX_SIZE, KDBG_TAG, MAX_UNLOADED_DRIVERS, readDebuggerData } from '../formats/win-kernel.ts';
import type { Machine } from '../machines/machine.ts';
import { BlockSpace } from '../memory/block-space.ts';
import { MemoryImage } from '../memory/image.ts';
import { InputDiagnostics } from '../memory/input-diagnostics.ts';
import { disjoint, type ListedModule, type TriageContents, type VirtualRun } from '../memory/triage-contents.ts';
import { type ByteSource, readUpTo } from '../source/source.ts';

type Fail = FailOf<'unsupported' | 'corrupt'>;

/** Windows writes some 2,000. */
const MAX_BLOCKS = 1 << 16;
const MAX_DRIVERS = 4096;
/** UTF-16 units of a module's path. */
const MAX_PATH = 512;
/** The largest part that has one: PRCB, thread and process have 16-bit sizes, a stack less than this. */
const MAX_PART = MIB;

/** What `winDump` has found out of a file whose header says that it is a triage dump. */
export interface TriageFile {
  source: ByteSource;
  form: DumpHeaderForm;
  header: DumpHeader;
  machine: Machine;
  fail: Fail;
}

type Header = ReturnType<TriageForm['header']['read']>;

/** Throws `Elf2dmpError`. */
export function openTriage(file: TriageFile): MemoryImage {
  const { source, form, header, machine } = file;
  const layout = triageForm(machine.pointerSize).header;
  const head = readUpTo(source, form.size, layout.size);
  const triage = head.length === layout.size ? layout.read(head) : undefined;
  const parts = new Parts(file, triage);
  if (!triage) throw parts.bad('SizeOfDump', 'the file ends within it', `${layout.size} bytes`, `${head.length}`);
  parts.checkEnd(triage);
  const diagnostics = new InputDiagnostics();
  const kdbg = parts.bytes(
    'DebuggerDataOffset',
    triage.DebuggerDataOffset,
    Math.min(triage.DebuggerDataSize, KDBG_MAX_SIZE),
  );
  const blocks = listBlocks(triage, parts);
  const contents: TriageContents = {
    runs: disjoint(blocks),
    blockCount: blocks.length,
    read: (offset, target) => source.readSync(offset, target),
    modules: listModules(triage, parts, diagnostics),
    unloaded: listUnloaded(triage, parts),
    kdbg,
    current: undefined,
    topOfStack: triage.CallStackSize > 0 ? triage.TopOfStack : undefined,
  };
  const named = withNamedParts({ header, triage, parts, machine }, contents, blocks);
  return new MemoryImage({
    file: source.name,
    format: 'windows-triage-dump',
    machine,
    contents: { kind: 'blocks', triage: named, close: () => source.close() },
    cpus: [],
    notes: [],
    diagnostics,
    missing: diagnostics.missing,
    dumpHeader: header,
  });
}

class Parts {
  readonly #file: TriageFile;
  readonly #end: number;
  readonly form: TriageForm;
  readonly pointerSize: 4 | 8;

  constructor(file: TriageFile, triage: Header | undefined) {
    this.#file = file;
    this.pointerSize = file.machine.pointerSize;
    this.form = triageForm(this.pointerSize);
    this.#end = Math.min(file.source.size, triage?.SizeOfDump ?? 0);
  }

  bad(field: keyof Header, message: string, expected: string, actual: string) {
    const { form, fail } = this.#file;
    const { header } = this.form;
    return fail('corrupt', {
      code: 'dmp-triage',
      message: `${header.name}: ${message}`,
      structure: header.name,
      field,
      offset: form.size + header.offsetOf(field),
      expected,
      actual,
    });
  }

  checkEnd({ SizeOfDump, ValidOffset }: Header): void {
    const { source } = this.#file;
    if (SizeOfDump > source.size) {
      throw this.bad('SizeOfDump', 'the file is cut off', `at most ${hex(source.size)}`, hex(SizeOfDump));
    }
    const mark = ValidOffset === 0 ? TRIAGE_VALID : this.bytes('ValidOffset', ValidOffset, TRIAGE_VALID.length);
    if (!mark.equals(TRIAGE_VALID)) {
      throw this.bad('ValidOffset', 'the dump was not completed', '"TRGD"', mark.toString('hex'));
    }
  }

  has(offset: number, size: number): boolean {
    return offset >= this.#file.form.size && offset + size <= this.#end;
  }

  /** Bytes at an offset that `field` of the header gives. */
  bytes(field: keyof Header, offset: number, size: number): Buffer {
    if (!this.has(offset, size)) {
      throw this.bad(field, 'a part lies outside the dump', `${hex(size)} bytes before ${hex(this.#end)}`, hex(offset));
    }
    return readUpTo(this.#file.source, offset, size);
  }
}

/** Blocks that are not wholly in the file are refused: the debugger doesn't open such a dump either. */
function listBlocks({ DataBlocksOffset: at, DataBlocksCount: count }: Header, parts: Parts): VirtualRun[] {
  if (count === 0) return [];
  if (count > MAX_BLOCKS)
    throw parts.bad('DataBlocksCount', 'too many data blocks', `at most ${MAX_BLOCKS}`, `${count}`);
  const table = parts.bytes('DataBlocksOffset', at, count * TriageDataBlock.size);
  return Array.from({ length: count }, (_, i) => {
    const { Address, Offset: fileOffset, Size: size } = TriageDataBlock.read(table, i * TriageDataBlock.size);
    const address = widened(Address, parts.pointerSize);
    if (!parts.has(fileOffset, size) || address + BigInt(size) > 1n << 64n) {
      throw parts.bad(
        'DataBlocksOffset',
        `data block ${i} of ${count}, for ${hex64(address)}, lies outside the dump`,
        'a block within it',
        `${hex(size)} bytes at ${hex(fileOffset)}`,
      );
    }
    return { address, size, fileOffset };
  });
}

function listModules(
  { DriverListOffset: at, DriverCount: count }: Header,
  parts: Parts,
  diagnostics: InputDiagnostics,
) {
  if (count === 0) return [];
  if (count > MAX_DRIVERS) throw parts.bad('DriverCount', 'too many modules', `at most ${MAX_DRIVERS}`, `${count}`);
  const { driver: layout } = parts.form;
  const list = parts.bytes('DriverListOffset', at, count * layout.size);
  let unnamed = 0;
  const modules = Array.from({ length: count }, (_, i): ListedModule => {
    const driver = layout.read(list, i * layout.size);
    const path = textAt(parts, driver.NameOffset);
    if (path === undefined) unnamed++;
    return {
      path: path ?? '',
      base: driver.DllBase,
      size: driver.SizeOfImage,
      checkSum: driver.CheckSum,
      timeDateStamp: driver.TimeDateStamp,
    };
  });
  if (unnamed > 0) {
    diagnostics.add('loss', 'triage-names', `the names of ${unnamed} of ${count} modules lie outside the dump`);
  }
  return modules;
}

function textAt(parts: Parts, offset: number): string | undefined {
  if (!parts.has(offset, 4)) return undefined;
  const length = parts.bytes('StringPoolOffset', offset, 4).readUInt32LE();
  if (length > MAX_PATH || !parts.has(offset + 4, 2 * length)) return undefined;
  return parts.bytes('StringPoolOffset', offset + 4, 2 * length).toString('utf16le');
}

function listUnloaded({ UnloadedDriversOffset: at }: Header, parts: Parts) {
  if (at === 0) return [];
  const { unloadedCount, unloadedDriver } = parts.form;
  const { Count: count } = unloadedCount.read(parts.bytes('UnloadedDriversOffset', at, unloadedCount.size));
  if (count > BigInt(MAX_UNLOADED_DRIVERS)) {
    throw parts.bad(
      'UnloadedDriversOffset',
      'too many unloaded modules',
      `at most ${MAX_UNLOADED_DRIVERS}`,
      `${count}`,
    );
  }
  const list = parts.bytes('UnloadedDriversOffset', at + unloadedCount.size, Number(count) * unloadedDriver.size);
  return Array.from({ length: Number(count) }, (_, i) => {
    const entry = unloadedDriver.read(list, i * unloadedDriver.size);
    const length = Math.min(entry.Name.Length & ~1, 2 * TRIAGE_UNLOADED_NAME);
    const name = entry.NameBuffer.toString('utf16le', 0, length).replace(/\0.*$/s, '');
    return { name, from: entry.StartAddress, to: entry.EndAddress };
  });
}

interface Naming {
  header: DumpHeader;
  triage: Header;
  parts: Parts;
  machine: Machine;
}

/** The parts that have no address of their own in the header, at those that the KDBG and the blocks lead to. */
function withNamedParts(
  { header, triage, parts, machine }: Naming,
  contents: TriageContents,
  blocks: readonly VirtualRun[],
): TriageContents {
  const { kdbg } = contents;
  const { pointerSize } = machine;
  const fields = readDebuggerData(kdbg, kdbg.length, pointerSize);
  const runs = [...blocks];
  const place = (address: bigint | undefined, fileOffset: number, size: number | undefined) => {
    if (address === undefined || !size || fileOffset === 0 || size > MAX_PART || !parts.has(fileOffset, size)) return;
    if (address + BigInt(size) <= 1n << 64n) runs.push({ address, size, fileOffset });
  };
  const word = (fileOffset: number, at: number | undefined): bigint | undefined => {
    if (!at || fileOffset === 0 || !parts.has(fileOffset + at, pointerSize)) return undefined;
    const value = pointerAt(parts.bytes('PrcbOffset', fileOffset + at, pointerSize), 0, pointerSize);
    return isKernelAddress(value) ? value : undefined;
  };
  if (triage.CallStackSize > 0) place(triage.TopOfStack, triage.CallStackOffset, triage.CallStackSize);
  const isKdbg = fields.OwnerTag === KDBG_TAG && isKernelAddress(header.KdDebuggerDataBlock);
  if (!isKdbg) return { ...contents, runs: disjoint(runs) };
  place(header.KdDebuggerDataBlock, triage.DebuggerDataOffset, kdbg.length);
  const numberAt = fields.OffsetPrcbNumber ? triage.PrcbOffset + fields.OffsetPrcbNumber : 0;
  // A byte in the oldest builds, and the low byte of a word in others.
  const current =
    numberAt !== 0 && parts.has(numberAt, 1) ? parts.bytes('PrcbOffset', numberAt, 1).readUInt8() : undefined;
  const thread = word(triage.PrcbOffset, fields.OffsetPrcbCurrentThread);
  if (current !== undefined && fields.KiProcessorBlock !== undefined) {
    place(processorAt(contents, fields.KiProcessorBlock, current, machine), triage.PrcbOffset, fields.SizePrcb);
  }
  place(thread, triage.ThreadOffset, fields.SizeEThread);
  place(word(triage.ThreadOffset, fields.OffsetKThreadApcProcess), triage.ProcessOffset, fields.SizeEProcess);
  return { ...contents, runs: disjoint(runs), current };
}

/** An entry of KiProcessorBlock, by the data blocks. */
function processorAt({ runs, read }: TriageContents, table: bigint, number: number, { pointerSize }: Machine) {
  const address = table + BigInt(pointerSize * number);
  const run = runs.find((r) => address >= r.address && address + BigInt(pointerSize) <= r.address + BigInt(r.size));
  if (!run) return undefined;
  const bytes = Buffer.alloc(pointerSize);
  read(run.fileOffset + Number(address - run.address), bytes);
  const prcb = pointerAt(bytes, 0, pointerSize);
  return isKernelAddress(prcb) ? prcb : undefined;
}

/** The memory of a triage dump. The root is the header's; nothing is translated by it. */
export function triageSpace(image: MemoryImage, contents: TriageContents, root: bigint): BlockSpace {
  const [mode] = image.machine.pagingModes;
  if (!mode) throw new Error(`no paging mode of ${image.machine.name}`);
  const page = Number(root & 0x000f_ffff_ffff_f000n);
  return new BlockSpace(image, contents, { root: pa(page), mode });
}
