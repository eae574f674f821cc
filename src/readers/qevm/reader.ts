/** Migration streams as memory: which guest, where its RAM is, and its CPUs' registers. */
import { Diagnostics, Elf2dmpError } from '../../core/errors.ts';
import { Reason } from '../../core/reason.ts';
import { bytes, hex, PAGE_SIZE, pa } from '../../core/units.ts';
import { QEVM_MAGIC } from '../../formats/qevm.ts';
import { MACHINES, machinesOfMigration } from '../../machines/index.ts';
import type { CpuState, Machine } from '../../machines/machine.ts';
import type { HostWitness } from '../../memory/host-witness.ts';
import { type Contents, type MappedRuns, MemoryImage } from '../../memory/image.ts';
import type { FileRun, PhysicalRun } from '../../memory/runs.ts';
import { FileSource } from '../../source/file.ts';
import type { ByteSource } from '../../source/source.ts';
import { closing, type Reader } from '../reader.ts';
import { Devices, fieldWords } from './devices.ts';
import { isRam, type Layout, layouts, type Piece } from './layout.ts';
import { PageStore } from './page-store.ts';
import { readBitmap, reportDamagedPage, StreamPages } from './pages.ts';
import { PlacedBlock } from './placing.ts';
import type { MappedPages, RamBlock } from './ram.ts';
import { type MigrationStream, readStream } from './stream.ts';

/** A bare stream: `virsh dump` without --memory-only, `migrate exec:`, Proxmox' state volumes. */
export const migration: Reader = {
  format: 'qevm',
  probe: (head) => head.subarray(0, QEVM_MAGIC.length).equals(QEVM_MAGIC),
  // Its size tells nothing: zero pages are not in it, and a live guest's come several times.
  estimate: () => undefined,
  open: (source, also) => openMigration(source, { format: 'qevm', start: 0, ramFile: also?.ramFile }),
};

export interface StreamPlace {
  /** For the image. */
  format: string;
  /** Of `QEVM` in the source. */
  start: number;
  end?: number | undefined;
  /** Path of the file with memory that the stream does not hold. */
  ramFile?: string | undefined;
}

/** Opens the stream that lies at a place of the source, which it takes over. Throws `Elf2dmpError`. */
export function openMigration(
  source: ByteSource,
  { format, start, end = source.size, ramFile }: StreamPlace,
): MemoryImage {
  return closing(source, () => {
    const stream = readStream(source, start, end);
    checkStream(stream, source.name);
    const file = openMemoryElsewhere(stream, source.name, ramFile);
    const whole = file ? closedTogether(source, file) : source;
    return closing(whole, () => imageIn(whole, { format, stream, end }));
  });
}

interface StreamFound {
  format: string;
  stream: MigrationStream;
  end: number;
}

function imageIn(source: ByteSource, { format, stream, end }: StreamFound): MemoryImage {
  const devices = stream.devices === undefined ? undefined : Devices.in(source, stream.devices, end);
  const tables = acpiTables(stream, source);
  return imageOf(source, { format, stream, devices, tables }, (pieces, diagnostics) => ({
    contents: {
      kind: 'decoded',
      runs: [...pieces.keys()],
      reader: new StreamPages(source, stream.deltas, pieces, diagnostics),
      close: () => source.close(),
    },
    mapped: mappedRuns(source, pieces),
  }));
}

/** The runs of a stream with mapped RAM; undefined for others, and where the stream is no file. */
function mappedRuns(source: ByteSource, pieces: ReadonlyMap<PhysicalRun, Piece>): MappedRuns | undefined {
  const { fd } = source;
  const blocks = new Map<FileRun, { block: RamBlock; pages: MappedPages }>();
  for (const [run, { block, offset, start }] of pieces) {
    const { pages } = block;
    if (!('bitmapOffset' in pages)) return undefined;
    blocks.set({ ...run, fileOffset: pages.pagesOffset + offset + run.start - start }, { block, pages });
  }
  if (fd === undefined) return undefined;
  return {
    fd,
    runs: [...blocks.keys()],
    *zeros(run) {
      const { block, pages } = blocks.get(run)!;
      const bitmap = readBitmap(source, pages, block.size);
      const [first, end] = [run.fileOffset, run.fileOffset + run.size].map(
        (at) => (at - pages.pagesOffset) / PAGE_SIZE,
      );
      for (const { from, to } of clearBits(bitmap, first!, end!)) {
        yield { from: pages.pagesOffset + from * PAGE_SIZE, to: pages.pagesOffset + to * PAGE_SIZE };
      }
    },
  };
}

/** Runs of bits from `first` to `end` that are clear. */
function* clearBits(bits: Buffer, first: number, end: number): Generator<{ from: number; to: number }> {
  const isSet = (i: number) => ((bits[i >>> 3]! >>> (i & 7)) & 1) === 1;
  const skip = (from: number, set: boolean) => {
    let at = from;
    const whole = set ? 0xff : 0;
    while (at < end && isSet(at) === set) at += (at & 7) === 0 && bits[at >>> 3] === whole ? 8 : 1;
    return Math.min(at, end);
  };
  for (let from = skip(first, true); from < end; ) {
    const to = skip(from, false);
    yield { from, to };
    from = skip(to, true);
  }
}

/** A stream whose pages went to their places while it came. */
export interface PlacedStream {
  format: string;
  stream: MigrationStream;
  /** All that follows memory; undefined where the stream ended before. */
  state: Buffer | undefined;
  /** ACPI tables that the firmware got. */
  tables: Buffer | undefined;
}

/** The image of such a stream, whose source has the blocks' pages at their bases. Takes over the source. */
export function openPlaced(source: ByteSource, { format, stream, state, tables }: PlacedStream): MemoryImage {
  return closing(source, () => {
    checkStream(stream, source.name);
    const devices = state && new Devices(state);
    return imageOf(source, { format, stream, devices, tables }, (pieces, diagnostics) => {
      const damaged = new Set<number>();
      for (const [run, piece] of pieces) {
        for (const at of damagedPages(run, piece)) {
          reportDamagedPage(diagnostics, piece.block, at);
          damaged.add(sourceOffset(piece) + at - piece.offset);
        }
      }
      const runs = [...pieces].map(([run, piece]) => ({
        ...run,
        fileOffset: sourceOffset(piece) + run.start - piece.start,
      }));
      return { contents: { kind: 'stored', runs, source, damaged }, mapped: undefined };
    });
  });
}

/** Of a piece's start in the space of all blocks. */
function sourceOffset({ block: { name, pages }, offset }: Piece): number {
  if (!(pages instanceof PlacedBlock) || pages.base === undefined) throw new Error(`the pages of ${name} were dropped`);
  return pages.base + offset;
}

/** Byte offsets in its block of a run's pages that could not be made. */
function* damagedPages({ start, size }: PhysicalRun, piece: Piece): Generator<number> {
  const { pages } = piece.block;
  if (!(pages instanceof PlacedBlock)) return;
  const from = piece.offset + start - piece.start;
  for (const page of [...pages.damaged].sort((a, b) => a - b)) {
    const at = page * PAGE_SIZE;
    if (at >= from && at < from + size) yield at;
  }
}

type ContentsOf = (
  pieces: ReadonlyMap<PhysicalRun, Piece>,
  diagnostics: Diagnostics,
) => { contents: Contents; mapped: MappedRuns | undefined };

interface StreamParts {
  format: string;
  stream: MigrationStream;
  devices: Devices | undefined;
  tables: Buffer | undefined;
}

function imageOf(
  source: ByteSource,
  { format, stream, devices, tables }: StreamParts,
  contentsOf: ContentsOf,
): MemoryImage {
  const machines = machinesOfMigration(stream.machineType, (section) => devices?.all(section) ?? []);
  const choices = layouts(stream, {
    cmos: devices?.all('mc146818rtc')[0]?.bytes,
    tables,
    ramStart: machines[0]?.migration?.ramStart,
  });
  if (choices instanceof Reason) throw damaged(stream, source.name, choices.text);
  const parts = { file: source.name, format, stream, devices, contentsOf };
  const readings = machines.flatMap((machine) => {
    const cpus = readCpus(machine, devices);
    return choices.map((layout) => ({ ...parts, machine, cpus, layout }));
  });
  const [first, ...others] = readings;
  const alternatives = others.map((reading) => makeImage({ ...reading, alternatives: [] }));
  return makeImage({ ...first!, alternatives });
}

/** The likeliest machine of a stream's guest, by QEMU's machine type; undefined for one that is not converted. */
export const streamMachine = (machineType: string | undefined): Machine | undefined =>
  machinesOfMigration(machineType, () => [])[0];

function checkStream({ machineType, blocks, fault }: MigrationStream, file: string): void {
  if (streamMachine(machineType)) {
    if (blocks.length > 0) return;
    throw new Elf2dmpError({
      code: 'migration-stream-damaged',
      kind: 'corrupt',
      message: `a migration stream without memory: ${fault?.what ?? 'it has no RAM section'}`,
      file,
      offset: fault?.offset,
      hint: 'save the guest again',
    });
  }
  const titles = MACHINES.flatMap(({ migration: form, title }) => (form ? [title] : [])).join(' and ');
  throw new Elf2dmpError({
    code: 'migration-machine',
    kind: 'unsupported',
    message: `a migration stream of QEMU's machine ${JSON.stringify(machineType)}; only those of ${titles} guests are read`,
    file,
    expected: 'a pc, q35, microvm or Arm virt machine',
    actual: machineType,
  });
}

/** Opens the file with the pages that the stream does not hold; undefined where it holds all. */
function openMemoryElsewhere(
  { blocks }: MigrationStream,
  file: string,
  path: string | undefined,
): ByteSource | undefined {
  const elsewhere = blocks.filter(
    (block) => isRam(block) && block.shared !== undefined && block.pages instanceof PageStore && isEmpty(block.pages),
  );
  const [block, ...others] = elsewhere;
  if (!block) {
    if (path === undefined) return undefined;
    throw ramFileUnneeded(file);
  }
  const names = elsewhere.map(({ name, size }) => `${name} (${bytes(size)})`).join(', ');
  if (path === undefined || others.length > 0) {
    throw new Elf2dmpError({
      code: 'migration-ram-elsewhere',
      kind: 'unsupported',
      message: `the stream was made with x-ignore-shared: the pages of ${names} are in ${others.length > 0 ? 'backing files, of which elf2dmp reads one' : 'its backing file'}, not in the stream`,
      file,
      hint:
        others.length > 0
          ? "convert the files that back the guest's memory as raw memory, one after the other"
          : "name the file that backs the guest's memory (-object memory-backend-file,mem-path=…): --ram-file FILE",
    });
  }
  const memory = FileSource.open(path);
  if (memory.size !== block.size) {
    memory.close();
    throw new Elf2dmpError({
      code: 'ram-file-size',
      kind: 'usage',
      message: "the file is not the guest's memory: it has another size",
      file: path,
      expected: `${block.size} bytes, as the stream's RAM block ${block.name}`,
      actual: `${memory.size} bytes`,
      hint: "name the file that backs the guest's memory, as it was when the stream was written",
    });
  }
  block.pages = { file: memory };
  return memory;
}

/** The error for a file with memory beside an input that holds its memory itself. Name of the input. */
export const ramFileUnneeded = (file: string): Elf2dmpError =>
  new Elf2dmpError({
    code: 'ram-file-unneeded',
    kind: 'usage',
    message: '--ram-file is for migration streams without memory (x-ignore-shared), and this input has its own',
    file,
    hint: 'leave out --ram-file',
  });

/** The first source, whose end is also the second one's. */
function closedTogether(source: ByteSource, other: ByteSource): ByteSource {
  return {
    fd: source.fd,
    name: source.name,
    size: source.size,
    readSync: (offset, target) => source.readSync(offset, target),
    read: (offset, target) => source.read(offset, target),
    close: () => {
      source.close();
      other.close();
    },
  };
}

const isEmpty = (pages: PageStore) => {
  const { absent, pages: count } = pages.run(0);
  return absent && count === pages.pages;
};

const damaged = ({ fault }: MigrationStream, file: string, why: string) =>
  new Elf2dmpError({
    code: 'migration-stream-damaged',
    kind: 'corrupt',
    message: `the layout of the guest's memory can't be told: ${why}`,
    file,
    offset: fault?.offset,
    attempts: fault ? [`at ${hex(fault.offset)}: ${fault.what}`] : [],
  });

/** The ACPI tables that QEMU gave the firmware: 128 KiB or some more. */
const MAX_TABLES = 0x20_0000;

/** The block of ACPI tables, if it is of a size that they can have. */
export const tablesBlock = (blocks: readonly RamBlock[]): RamBlock | undefined =>
  blocks.find(({ name, size }) => name === '/rom@etc/acpi/tables' && size <= MAX_TABLES);

function acpiTables({ blocks, deltas }: MigrationStream, source: ByteSource): Buffer | undefined {
  const block = tablesBlock(blocks);
  if (!block) return undefined;
  const run: PhysicalRun = { start: pa(0), size: block.size };
  const pieces = new Map([[run, { block, offset: 0, start: 0, size: block.size }]]);
  const tables = Buffer.alloc(block.size);
  new StreamPages(source, deltas, pieces, new Diagnostics()).readSync(run, 0, tables);
  return tables;
}

interface Parts {
  file: string;
  contentsOf: ContentsOf;
  format: string;
  stream: MigrationStream;
  machine: Machine;
  devices: Devices | undefined;
  cpus: readonly CpuState[];
  layout: Layout;
  alternatives: readonly MemoryImage[];
}

function makeImage({
  file,
  contentsOf,
  format,
  stream,
  machine,
  devices,
  cpus,
  layout,
  alternatives,
}: Parts): MemoryImage {
  const diagnostics = new Diagnostics();
  const pieces = new Map<PhysicalRun, Piece>();
  for (const piece of [...layout.pieces].sort((a, b) => a.start - b.start)) {
    for (const run of presentRuns(piece)) pieces.set(run, piece);
  }
  report({ stream, devices, layout, pieces, cpus, diagnostics });
  return new MemoryImage({
    file,
    format,
    machine,
    ...contentsOf(pieces, diagnostics),
    cpus,
    notes: [],
    diagnostics,
    alternatives,
    host: witnessOf(machine, devices),
    arrangement: arrangementOf(layout),
  });
}

/** The order of RAM's blocks, where there are several. */
function arrangementOf({ pieces }: Layout): string | undefined {
  const names = new Set([...pieces].sort((a, b) => a.start - b.start).map(({ block }) => block.name));
  return names.size > 1 ? [...names].join(', ') : undefined;
}

/** A truncated stream lacks pages; everything else has all. */
function* presentRuns({ block, offset, start, size }: Piece): Generator<PhysicalRun> {
  const { pages } = block;
  if (!('run' in pages)) {
    yield { start: pa(start), size };
    return;
  }
  const end = (offset + size) / PAGE_SIZE;
  for (let page = offset / PAGE_SIZE; page < end; ) {
    const run = pages.run(page);
    const count = Math.min(run.pages, end - page);
    if (!run.absent) yield { start: pa(start + page * PAGE_SIZE - offset), size: count * PAGE_SIZE };
    page += count;
  }
}

function readCpus({ migration: form }: Machine, devices: Devices | undefined): CpuState[] {
  if (!form || !devices) return [];
  const others = form.also === undefined ? [] : devices.all(form.also);
  const also = new Map(others.map((state) => [state.instance, state]));
  return devices
    .all(form.section)
    .sort((a, b) => a.instance - b.instance)
    .map((state) => ({
      index: state.instance,
      registers: form.parse(state, also.get(state.instance)),
      crashed: undefined,
      origin: `migration section "${form.section}"`,
    }));
}

interface Found {
  stream: MigrationStream;
  devices: Devices | undefined;
  layout: Layout;
  pieces: ReadonlyMap<PhysicalRun, Piece>;
  cpus: readonly CpuState[];
  diagnostics: Diagnostics;
}

function report({ stream, devices, layout, pieces, cpus, diagnostics }: Found): void {
  const { fault } = stream;
  if (fault) {
    const listed = layout.pieces.reduce((sum, { size }) => sum + size, 0);
    const present = [...pieces.keys()].reduce((sum, { size }) => sum + size, 0);
    diagnostics.add(
      'loss',
      'migration-stream-cut',
      `the stream makes no sense from ${hex(fault.offset)} on (${fault.what}): ${bytes(listed - present)} of ${bytes(listed)} of memory are missing${cpus.length === 0 ? ', and the CPU states, which come after memory' : ''}`,
      { offset: hex(fault.offset) },
    );
  }
  if (layout.takenFrom !== undefined) {
    diagnostics.add('note', 'migration-layout', `where memory lies was taken from ${layout.takenFrom}`);
  }
  if (layout.unplaced.length > 0) {
    const names = layout.unplaced.map(({ name, size }: RamBlock) => `${name} (${bytes(size)})`).join(', ');
    diagnostics.add('loss', 'migration-ram-unplaced', `where the RAM of ${names} lies is not known: it was left out`);
  }
  const text = runState(devices);
  if (text) diagnostics.add('note', 'migration-run-state', `the guest was ${JSON.stringify(text)} when it was saved`);
}

/** GlobalState in QEMU's migration/global_state.c: a length, then the run state's name. */
function runState(devices: Devices | undefined): string | undefined {
  const state = devices?.all('globalstate')[0]?.bytes;
  const text = state?.subarray(4, 104).toString('latin1').replace(/\0.*$/s, '');
  return text !== undefined && /^[a-z-]+$/.test(text) ? text : undefined;
}

/** What the guest told its hypervisor, which every CPU's section repeats where it told anything. */
function witnessOf({ migration: form }: Machine, devices: Devices | undefined): HostWitness | undefined {
  if (!form?.told || !devices) return undefined;
  const { crash, guestOsId } = form.told;
  const cpus = devices.all(form.section);
  const words = (name: string) => cpus.map((cpu) => fieldWords(cpu, name)).find((found) => found !== undefined);
  return { runState: runState(devices), crash: words(crash), guestOsId: words(guestOsId)?.[0] };
}
