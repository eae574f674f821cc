/**
 * Parsers that get bytes which nobody checked before, one at a time: some thousand inputs a second, where a whole guest takes
 * milliseconds.
 */
import { createHash } from 'node:crypto';
import { gzipSync } from 'node:zlib';
import { xxhash64 } from 'hash-wasm';
import { Diagnostics, Elf2dmpError } from '../../src/core/errors.ts';
import type { CodeImage, FrameState } from '../../src/machines/unwinding.ts';
import { X64 } from '../../src/machines/x64/index.ts';
import { unwind } from '../../src/machines/x64/unwind.ts';
import { interpretNotes, splitNotes } from '../../src/readers/notes.ts';
import { BufferSource } from '../../src/source/buffer.ts';
import { ContainerDamage } from '../../src/source/chunks.ts';
import { gunzip } from '../../src/source/gzip.ts';
import { decodeLzo1x } from '../../src/source/lzo.ts';
import { unzstd } from '../../src/source/zstd.ts';
import { PdbFile } from '../../src/symbols/pdb.ts';
import { Symbolizer } from '../../src/symbols/symbolizer.ts';
import { decodeJournal, encodeJournal } from '../../src/write/undo-journal.ts';
import { random } from '../guest/memory.ts';
import { makePdb, type PdbModuleSpec } from '../symbols/pdb-file.ts';
import type { Subject } from './subjects.ts';

/** A parser, a sound input, and what is wrong with what it made of a damaged one. */
export interface Piece {
  name: string;
  bytes: Buffer;
  /** It takes milliseconds. */
  slow?: boolean;
  /** May throw `Elf2dmpError` and `ContainerDamage`. */
  parse(bytes: Buffer): Promise<string | undefined> | string | undefined;
}

export async function pieces(subjects: readonly Subject[]): Promise<Piece[]> {
  const { file } = subjects.find(({ name }) => name === 'ELF, crashed')!;
  const notesAt = Number(file.readBigUInt64LE(Number(file.readBigUInt64LE(0x20)) + 8));
  const notesSize = Number(file.readBigUInt64LE(Number(file.readBigUInt64LE(0x20)) + 0x20));
  const contents = Buffer.concat([file.subarray(0, 3000), Buffer.alloc(5000, 0x41), file.subarray(3000, 6000)]);
  return [
    { name: 'notes', bytes: Buffer.from(file.subarray(notesAt, notesAt + notesSize)), parse: parseNotes },
    {
      name: 'gzip',
      slow: true,
      bytes: gzipSync(contents),
      parse: (bytes) => unpacked(gunzip(chunks(bytes)), contents),
    },
    {
      name: 'zstd',
      slow: true,
      bytes: await storedZstd(contents),
      parse: (bytes) => unpacked(unzstd(chunks(bytes)), contents),
    },
    { name: 'LZO', bytes: LZO, parse: parseLzo },
    { name: 'unwind data', bytes: unwindData(), parse: parseUnwindData },
    { name: 'PDB', bytes: smallPdb(), parse: parsePdb },
    { name: 'undo journal', bytes: journal(), parse: parseJournal },
  ];
}

/** Damage of a piece's bytes: a pure function of the seed. */
export function damagePiece({ bytes }: Piece, seed: number): Buffer {
  const next = random(seed);
  const below = (n: number) => Math.floor(next() * n);
  let damaged = Buffer.from(bytes);
  for (let count = 1 + below(below(4) === 0 ? 16 : 3); count > 0 && damaged.length > 0; count--) {
    const at = below(damaged.length);
    switch (below(6)) {
      case 0:
      case 1:
        damaged[at]! ^= 1 << below(8);
        break;
      case 2:
        damaged[at] = [0, 1, 0x7f, 0x80, 0xff][below(5)]!;
        break;
      case 3:
        damaged.fill([0, 0xff][below(2)]!, at, Math.min(damaged.length, at + 1 + below(8)));
        break;
      case 4:
        // From elsewhere, as when records are exchanged.
        damaged.copy(damaged, at, below(damaged.length), damaged.length);
        break;
      default:
        damaged = damaged.subarray(0, below(8) === 0 ? at : damaged.length);
    }
  }
  return damaged;
}

/** Gives damaged bytes to a piece. Says what is wrong with how that ended. */
export async function runPiece(piece: Piece, seed: number): Promise<{ how: 'good' | 'refused' } | { problem: string }> {
  try {
    const problem = await piece.parse(damagePiece(piece, seed));
    return problem === undefined ? { how: 'good' } : { problem };
  } catch (error) {
    if (error instanceof Elf2dmpError || error instanceof ContainerDamage) return { how: 'refused' };
    return { problem: error instanceof Error ? (error.stack ?? error.message) : String(error) };
  }
}

async function* chunks(bytes: Buffer): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.length; at += 1000) yield bytes.subarray(at, at + 1000);
}

/** Without an error, the contents are what was packed: gzip and zstd have checksums. */
async function unpacked(parts: AsyncIterable<Buffer>, contents: Buffer): Promise<string | undefined> {
  const all: Buffer[] = [];
  let size = 0;
  for await (const part of parts) {
    size += part.length;
    if (size > 0x100_0000) return 'more than 16 MiB';
    all.push(part);
  }
  return Buffer.concat(all).equals(contents) ? undefined : 'other contents, and nothing is said';
}

/** A frame of raw and RLE blocks with a checksum: RFC 8878 3.1.1. The checksum is XXH64's low half. */
async function storedZstd(contents: Buffer): Promise<Buffer> {
  const block = (type: number, size: number, isLast: boolean) => {
    const head = Buffer.alloc(3);
    head.writeUIntLE((size << 3) | (type << 1) | (isLast ? 1 : 0), 0, 3);
    return head;
  };
  const descriptor = Buffer.from([0x64, 0, 0]);
  descriptor.writeUInt16LE(contents.length - 256, 1);
  return Buffer.concat([
    Buffer.from('28b52ffd', 'hex'),
    descriptor,
    block(0, 3000, false),
    contents.subarray(0, 3000),
    block(1, 5000, false),
    Buffer.from([0x41]),
    block(0, contents.length - 8000, true),
    contents.subarray(8000),
    Buffer.from((await xxhash64(contents)).slice(8), 'hex').reverse(),
  ]);
}

function parseNotes(bytes: Buffer): string | undefined {
  const diagnostics = new Diagnostics();
  const { cpus } = interpretNotes(splitNotes(bytes, 0, diagnostics), X64, diagnostics);
  return cpus.length > 64 ? `${cpus.length} CPUs` : undefined;
}

/** Literals and matches of each kind, by hand from Linux' Documentation/staging/lzo.rst. */
const LZO = Buffer.from(`15616263646d00780c0020070000${'0002'}${'61'.repeat(20)}110000`, 'hex');

function parseLzo(bytes: Buffer): string | undefined {
  const room = Buffer.alloc(4096 + 64, 0xee);
  const size = decodeLzo1x(bytes, room.subarray(0, 4096));
  if (size < -1 || size > 4096) return `a size of ${size}`;
  return room.subarray(4096).every((byte) => byte === 0xee) ? undefined : 'bytes beyond the page';
}

const IMAGE_BASE = 0xfffff804_10000000n;
const STACK = 0xffffa580_00001000n;

/** UNWIND_INFO with codes of most kinds, chained to another, then code with an epilogue. */
const unwindData = (): Buffer =>
  Buffer.concat([
    Buffer.from('210c0800 0c6400 0c340900 08520430 0000 0000', 'hex'),
    Buffer.from('00100000 00110000 40000000', 'hex'),
    Buffer.alloc(36),
    Buffer.from('01080500 08f20650 04600330 0270 0000', 'hex'),
    Buffer.alloc(46),
    Buffer.from('4883c420 5f5e5b5d c3 90 e800000000 ff25000000 00 48 8d6424 40 41 5c c3', 'hex'),
  ]);

/** The image's functions all have the damaged data; then their stack, of any bytes, is unwound for some frames. */
function parseUnwindData(bytes: Buffer): string | undefined {
  const memory = Buffer.alloc(0x1000, 0x90);
  bytes.copy(memory);
  const image: CodeImage = {
    base: IMAGE_BASE,
    size: memory.length,
    read: (rva, length) => (rva >= 0 && rva + length <= memory.length ? memory.subarray(rva, rva + length) : undefined),
    functionAt: (rva) => ({ begin: 0x80, end: 0x1000, unwindInfo: rva & 1 ? 0x40 : 0 }),
  };
  const read = (address: bigint, length: number) => {
    const at = Number(BigInt.asIntN(53, address - STACK));
    return at >= 0 && at + length <= 0x800 ? memory.subarray(at, at + length) : undefined;
  };
  let state: FrameState = {
    instructionPointer: IMAGE_BASE + 0x80n + BigInt(bytes.length & 0x1f),
    stackPointer: STACK,
    integers: Array.from({ length: 16 }, (_, i) => (i === 4 ? STACK : STACK + BigInt(8 * i))),
    native: true,
  };
  for (let frames = 0; frames < 8; frames++) {
    const step = unwind(state, image, read);
    if ('stopped' in step) return step.stopped.length > 0 ? undefined : 'stopped without a reason';
    state = { ...step.state, instructionPointer: IMAGE_BASE + 0x80n + (step.state.instructionPointer & 0x1fn) };
  }
  return undefined;
}

const MODULES = ['a', 'b'].map(
  (name, m): PdbModuleSpec => ({
    name: `${name}.obj`,
    file: `C:\\src\\${name}.c`,
    inlinees: [[0x1000, 10]],
    functions: Array.from({ length: 3 }, (_, i) => ({
      name: `${name}${i}`,
      section: 1,
      offset: 0x100 * (3 * m + i),
      size: 0xe0,
      lines: [
        [0, i],
        [0x20, i + 1],
      ],
      inlined: [{ inlinee: 0x1000, annotations: [6, 2, 3, 0x10, 11, 0x28, 4, 0x20] }],
    })),
  }),
);

const smallPdb = (): Buffer =>
  makePdb({
    pageSize: 512,
    ids: ['First'],
    modules: MODULES,
    publics: [
      ['?p@q@@YAXXZ', 1, 0x60],
      ['Other', 1, 0x1000],
    ],
    sections: [[0x1000, 0x2000]],
  });

function parsePdb(bytes: Buffer): string | undefined {
  const symbolizer = new Symbolizer(PdbFile.open(new BufferSource(bytes, 'made.pdb')));
  for (const rva of [0x1010, 0x1120, 0x1350, 0x1800, 0x2000, 0x7fff_ffff]) {
    const found = symbolizer.lookUp(rva);
    if (found && (found.offset < 0 || found.inlined.length > 1000)) return `0x${rva.toString(16)}: ${found.offset}`;
  }
  return undefined;
}

const journal = (): Buffer =>
  encodeJournal({
    inode: 1234n,
    born: 1_700_000_000_000_000_000n,
    size: 0x100000,
    inserted: 0x2000,
    mode: 0o600,
    modified: 1_700_000_000_000_000_000n,
    head: Buffer.alloc(64, 1),
    tail: Buffer.alloc(16, 2),
    patched: [{ offset: 0x4000, original: Buffer.alloc(16, 3) }],
  });

/** With its own checksum damage is noticed; with a right one, what is taken is within the file. */
function parseJournal(bytes: Buffer): string | undefined {
  const text = bytes.toString('latin1').split('\n')[0]!;
  const { size, head, patched } = decodeJournal(
    Buffer.from(`${text}\n${createHash('sha256').update(text).digest('hex')}\n`, 'latin1'),
    'made',
  );
  if (head.length > size || patched.some(({ offset, original }) => offset + original.length > size))
    return 'a patch outside the file';
  const isSame = bytes.equals(journal());
  try {
    decodeJournal(bytes, 'made');
  } catch (error) {
    if (error instanceof Elf2dmpError) return undefined;
    throw error;
  }
  return isSame || text === journal().toString('latin1').split('\n')[0] ? undefined : 'damage that is not noticed';
}
