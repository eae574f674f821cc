/** Kdump-compressed files, raw and flattened, as QEMU's `dump-guest-memory -z|-l|-s [-R]` writes them. */
import { type Fail as FailOf, failIn } from '../../core/errors.ts';
import { bytes, hex, KIB, MIB, PHYSICAL_ADDRESS_LIMIT } from '../../core/units.ts';
import { NT_PRSTATUS } from '../../formats/elf.ts';
import {
  FLATTENED_HEADER_SIZE,
  FlattenedRecord,
  KDUMP_SIGNATURE,
  KDUMP_VERSION,
  KdumpHeader32,
  KdumpHeader64,
  KdumpSubHeader64,
  PRSTATUS_SIZES,
} from '../../formats/kdump.ts';
import { convertedMachines, MACHINES, machinesOf, marksOf } from '../../machines/index.ts';
import type { Machine } from '../../machines/machine.ts';
import type { MemoryImage } from '../../memory/image.ts';
import { InputDiagnostics } from '../../memory/input-diagnostics.ts';
import { type ByteSource, readUpTo } from '../../source/source.ts';
import { imageOf } from '../machine-images.ts';
import { interpretNotes, MAX_NOTE_BYTES, splitNotes } from '../notes.ts';
import { closing, type Reader } from '../reader.ts';
import { FlattenedSource } from './flattened.ts';
import { PageIndex } from './page-index.ts';
import { PageReader } from './pages.ts';
import { scanDescriptors } from './scan.ts';

/** 8 TiB of pages of 4 KiB. */
const MAX_BITMAP_BYTES = 256 * MIB;

const MIN_BLOCK = 4 * KIB;
const MAX_BLOCK = MIB;

type Fail = FailOf<'unsupported' | 'corrupt'>;

/** The reader of kdump-compressed files. */
export const kdump: Reader = {
  format: 'kdump',
  probe: (head) => head.subarray(0, KDUMP_SIGNATURE.length).equals(KDUMP_SIGNATURE) || FlattenedSource.probe(head),
  estimate(head) {
    const header = FlattenedSource.probe(head) ? head.subarray(FLATTENED_HEADER_SIZE + FlattenedRecord.size) : head;
    if (header.length < KdumpHeader64.size) return undefined;
    const { max_mapnr, block_size } = KdumpHeader64.read(header);
    return { file: undefined, memory: max_mapnr * block_size };
  },
  open: (source) =>
    closing(source, () => {
      const flattened = FlattenedSource.probe(readUpTo(source, 0, 16));
      return open(flattened ? FlattenedSource.open(source) : source);
    }),
};

function open(source: ByteSource): MemoryImage {
  const diagnostics = new InputDiagnostics();
  const fail = failIn(source.name);
  const header = readHeader(source, fail);
  const { blockSize, sub } = header;
  if (source instanceof FlattenedSource && source.overlaps > 0) {
    diagnostics.add(
      'note',
      'kdump-flattened-overlap',
      'records of the flattened file overwrite earlier ones; the later ones were used',
    );
  }

  const notes = readNotes(source, Number(sub.offset_note), Number(sub.note_size), diagnostics);
  const machines = machinesOfNotes(notes, blockSize, fail);
  const pages = new PageIndex(readBitmap(source, header, fail), header.descriptorsAt);
  const paged = { source, pages, blockSize };
  const runs = scanDescriptors(paged, diagnostics, fail);
  return imageOf(machines, diagnostics, (machine, own, alternatives) => {
    const reader = new PageReader(paged, own);
    const close = () => {
      for (const each of alternatives) each.close();
      reader.close();
    };
    return {
      file: source.name,
      format: source instanceof FlattenedSource ? 'kdump-flattened' : 'kdump',
      machine,
      contents: { kind: 'decoded', runs, reader, close },
      ...interpretNotes(notes, machine, own),
      diagnostics: own,
      missing: own.missing,
      alternatives,
    };
  });
}

function readHeader(source: ByteSource, fail: Fail) {
  const head = readUpTo(source, 0, KdumpHeader64.size);
  const truncated = (structure: string, at: number, size: number) =>
    fail('corrupt', {
      code: 'kdump-truncated-header',
      message: 'the file ends before any memory is in it',
      structure,
      offset: at,
      expected: `${hex(at + size)} bytes`,
      actual: `a file of ${hex(source.size)}`,
      hint: 'the dump was cut off at once: make a new one',
    });
  if (head.length < KdumpHeader64.size) throw truncated(KdumpHeader64.name, 0, KdumpHeader64.size);
  const header = KdumpHeader64.read(head);
  if (!header.signature.equals(KDUMP_SIGNATURE)) {
    throw fail('corrupt', {
      code: 'kdump-signature',
      message: 'a flattened file, but not of a kdump-compressed dump',
      structure: KdumpHeader64.name,
      field: 'signature',
      offset: 0,
      expected: '"KDUMP   "',
      actual: header.signature.toString('hex'),
    });
  }
  if (header.header_version !== KDUMP_VERSION) {
    const bigEndian = head.readUInt32BE(KdumpHeader64.offsetOf('header_version')) === KDUMP_VERSION;
    throw fail('unsupported', {
      code: bigEndian ? 'kdump-big-endian' : 'kdump-version',
      message: bigEndian
        ? 'a kdump-compressed dump of a big-endian machine, which Windows does not run on'
        : 'a kdump-compressed dump of a version that elf2dmp does not know',
      structure: KdumpHeader64.name,
      field: 'header_version',
      offset: KdumpHeader64.offsetOf('header_version'),
      expected: `${KDUMP_VERSION}`,
      actual: hex(header.header_version),
    });
  }
  const isBlockSize = (size: number) => size >= MIN_BLOCK && size <= MAX_BLOCK && (size & (size - 1)) === 0;
  const as32 = KdumpHeader32.read(head);
  // In the 64-bit layout these bytes are a timestamp's upper half.
  if (as32.status !== 0 && as32.status < 0x100 && isBlockSize(as32.block_size)) {
    throw fail('unsupported', {
      code: 'kdump-32-bit',
      message: `a kdump-compressed dump of a 32-bit machine (32-bit Arm): only ${convertedMachines()} guests are converted`,
      structure: KdumpHeader32.name,
      field: 'block_size',
      offset: KdumpHeader32.offsetOf('block_size'),
      expected: `a block size at ${hex(KdumpHeader64.offsetOf('block_size'))}`,
      actual: `${as32.block_size}`,
    });
  }
  const blockSize = header.block_size;
  if (!isBlockSize(blockSize)) {
    throw fail('corrupt', {
      code: 'kdump-block-size',
      message: 'the header gives an impossible block size',
      structure: KdumpHeader64.name,
      field: 'block_size',
      offset: KdumpHeader64.offsetOf('block_size'),
      expected: `a power of two from ${MIN_BLOCK} to ${MAX_BLOCK}`,
      actual: `${blockSize}`,
    });
  }
  const subBytes = readUpTo(source, blockSize, KdumpSubHeader64.size);
  if (subBytes.length < KdumpSubHeader64.size) {
    throw truncated(KdumpSubHeader64.name, blockSize, KdumpSubHeader64.size);
  }
  const sub = KdumpSubHeader64.read(subBytes);
  if (sub.split !== 0) {
    throw fail('unsupported', {
      code: 'kdump-split',
      message: 'one of several files that hold a part of the memory each (makedumpfile --split)',
      structure: KdumpSubHeader64.name,
      field: 'split',
      offset: blockSize + KdumpSubHeader64.offsetOf('split'),
      expected: '0',
      actual: `${sub.split}`,
      hint: 'put them together first: `makedumpfile --reassemble PART... OUT`',
    });
  }
  const bitmapAt = (1 + header.sub_hdr_size) * blockSize;
  const bitmapBytes = (header.bitmap_blocks / 2) * blockSize;
  const maxPage = sub.max_mapnr_64 === 0n ? header.max_mapnr : Number(sub.max_mapnr_64);
  return { blockSize, sub, bitmapAt, bitmapBytes, maxPage, descriptorsAt: bitmapAt + 2 * bitmapBytes };
}

function readNotes(source: ByteSource, at: number, size: number, diagnostics: InputDiagnostics) {
  const available = Math.max(0, Math.min(size, source.size - at));
  if (available < size) {
    diagnostics.addCutOff(
      'notes',
      `the notes should lie at file offsets ${hex(at)} to ${hex(at + size)}, but the file ends at ${hex(source.size)}`,
      { offset: hex(at) },
    );
  }
  if (available > MAX_NOTE_BYTES) {
    diagnostics.add(
      'loss',
      'notes-too-large',
      `${bytes(available)} of notes: only the first ${bytes(MAX_NOTE_BYTES)} were read`,
    );
  }
  return [...splitNotes(readUpTo(source, at, Math.min(available, MAX_NOTE_BYTES)), at, diagnostics)];
}

/** The header's name for the machine may be "Unknown", so the notes tell: each machine's status has its own size. */
function machinesOfNotes(notes: ReturnType<typeof readNotes>, blockSize: number, fail: Fail): readonly Machine[] {
  const prstatus = notes.filter((n) => n.name === 'CORE' && n.type === NT_PRSTATUS);
  const [first] = prstatus;
  const [named, ...others] = first ? machinesOf({ prstatusSize: first.desc.length }) : [];
  const other = prstatus.find((n) => n.desc.length !== named?.prstatusSize);
  if (other) {
    const machine = PRSTATUS_SIZES[other.desc.length] ?? 'unknown';
    throw fail('unsupported', {
      code: 'kdump-machine',
      message: `a kdump-compressed dump of another machine (${machine}): only ${convertedMachines()} guests are converted`,
      structure: 'Elf64_Nhdr',
      field: 'n_descsz',
      offset: other.offset,
      expected: marksOf(({ prstatusSize: size }) => `${size} bytes (${PRSTATUS_SIZES[size]})`),
      actual: `${other.desc.length} (${machine})`,
    });
  }
  if (named) return [named, ...others];
  // Without CPUs only the size of a block is left.
  return [MACHINES.find(({ kdumpBlockSize }) => kdumpBlockSize === blockSize) ?? MACHINES[0]!];
}

/** The second bitmap: the pages that are in the file. QEMU writes the same twice. */
function readBitmap(
  source: ByteSource,
  { blockSize, bitmapAt, bitmapBytes, maxPage }: ReturnType<typeof readHeader>,
  fail: Fail,
): Buffer {
  const needed = Math.ceil(maxPage / 8);
  const bad = (message: string, expected: string, actual: string) =>
    fail('corrupt', {
      code: 'kdump-bitmap-size',
      message,
      structure: KdumpHeader64.name,
      field: 'bitmap_blocks',
      offset: KdumpHeader64.offsetOf('bitmap_blocks'),
      expected,
      actual,
    });
  if (bitmapBytes === 0 || bitmapBytes % blockSize !== 0 || needed === 0 || needed > bitmapBytes) {
    throw bad(
      'the size of the bitmaps does not fit the number of pages',
      `two bitmaps of whole blocks for ${maxPage} pages`,
      `${bitmapBytes / blockSize} blocks of ${blockSize} bytes each`,
    );
  }
  if (needed > MAX_BITMAP_BYTES || maxPage * blockSize > PHYSICAL_ADDRESS_LIMIT) {
    throw bad(
      'the dump claims more memory than elf2dmp can handle',
      `bitmaps of at most ${bytes(MAX_BITMAP_BYTES)}, for addresses up to ${hex(PHYSICAL_ADDRESS_LIMIT)}`,
      `${bytes(needed)}, for ${hex(maxPage * blockSize)}`,
    );
  }
  const at = bitmapAt + bitmapBytes;
  if (at + needed > source.size || (source instanceof FlattenedSource && !source.covers(at, needed))) {
    throw fail('corrupt', {
      code: 'kdump-truncated-bitmap',
      message: 'the bitmap of pages is not in the file',
      structure: 'bitmap 2',
      offset: at,
      expected: `${hex(needed)} bytes`,
      actual: `a file of ${hex(source.size)}`,
      hint: 'the dump was cut off before any memory was written: make a new one',
    });
  }
  // Whole words, with the bits beyond the last page cleared.
  const bitmap = Buffer.alloc(Math.ceil(needed / 4) * 4);
  source.readSync(at, bitmap.subarray(0, needed));
  if (maxPage % 8 !== 0) bitmap[needed - 1]! &= (1 << (maxPage % 8)) - 1;
  return bitmap;
}
