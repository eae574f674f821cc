/** Migration streams that are read once: their pages go to their places while they come. */
import { Diagnostics, Elf2dmpError } from '../../core/errors.ts';
import { Reason } from '../../core/reason.ts';
import { MIB, pa } from '../../core/units.ts';
import { QEVM_MAGIC } from '../../formats/qevm.ts';
import { MemoryImage } from '../../memory/image.ts';
import { ArrangedSource, type Arrangement } from '../../source/arranged.ts';
import { BufferSource } from '../../source/buffer.ts';
import type { ContainerDamage } from '../../source/chunks.ts';
import { inChunks } from '../../source/spool.ts';
import { ArrivingCursor, Busy, NotYet } from './cursor.ts';
import { ArrivingState } from './devices.ts';
import { isRam, layouts } from './layout.ts';
import { readLibvirtHeader } from './libvirt.ts';
import { Placing } from './placing.ts';
import type { RamBlock } from './ram.ts';
import { openPlaced, streamMachine, tablesBlock } from './reader.ts';
import { faultOf, StreamWalk, streamOf } from './stream.ts';

/** What a stream's first bytes promise. */
export interface Promised {
  format: string;
  /** Of `QEVM` in the stream. */
  start: number;
  /** Memory as it lies by the machine's rules: at offsets in a space where the blocks follow each other. Reading fails. */
  image: MemoryImage;
  /** Of blocks in that space; others are dropped. */
  bases: ReadonlyMap<string, number>;
  /** Bytes at the front of that space that are not memory: ACPI tables. */
  tables: number;
}

/** Room for machine type and names of blocks. */
const MAX_FRONT = MIB;

/** Larger files are beyond some file systems, and a damaged stream can claim any size. */
const MAX_MEMORY = 2 ** 43;

/**
 * What a stream will hold. undefined where its first bytes do not say, or its pages do not come one after another.
 *
 * @param head its first bytes, at most `MAX_FRONT` and what is in front of `QEVM`; "more" asks for more of them
 */
export function promised(head: Buffer): Promised | 'more' | undefined {
  try {
    const save = readLibvirtHeader(head, '');
    if (save && save.format !== 'raw') return undefined;
    const start = save?.stream ?? 0;
    const front = head.subarray(start, start + MAX_FRONT);
    if (front.length < QEVM_MAGIC.length && save) return 'more';
    if (!front.subarray(0, QEVM_MAGIC.length).equals(QEVM_MAGIC)) return undefined;
    return promiseOf(front, { format: save ? 'libvirt-save' : 'qevm', start });
  } catch (error) {
    // It is told when the whole input has been seen.
    if (error instanceof Elf2dmpError) return undefined;
    throw error;
  }
}

function promiseOf(
  front: Buffer,
  { format, start }: Pick<Promised, 'format' | 'start'>,
): Promised | 'more' | undefined {
  const cursor = new ArrivingCursor(QEVM_MAGIC.length);
  cursor.add(front);
  const walk = new StreamWalk(cursor);
  const { ram } = walk;
  try {
    while (ram.blocks.size === 0) if (walk.step() !== undefined) return undefined;
  } catch (error) {
    if (error instanceof NotYet) return front.length < MAX_FRONT ? 'more' : undefined;
    faultOf(error, walk);
    return undefined;
  }
  const { machineType } = walk;
  const machine = streamMachine(machineType);
  if (!machine || ram.mappedRam || ram.ignoreShared) return undefined;
  const blocks = [...ram.blocks.values()];
  const { bases, tables, end } = basesOf(blocks);
  if (end > MAX_MEMORY) return undefined;
  const choices = layouts({ blocks, machineType }, { ramStart: machine.migration?.ramStart });
  if (choices instanceof Reason) return undefined;
  const runs = choices[0]!.pieces
    .map(({ block, offset, start: at, size }) => ({ start: pa(at), size, fileOffset: bases.get(block.name)! + offset }))
    .sort((a, b) => a.start - b.start);
  const image = new MemoryImage({
    file: '',
    format,
    machine,
    contents: { kind: 'stored', runs, source: new BufferSource(Buffer.alloc(0), '') },
    cpus: [],
    notes: [],
    diagnostics: new Diagnostics(),
  });
  return { format, start, image, bases, tables };
}

/** The ACPI tables first, then memory. */
function basesOf(blocks: readonly RamBlock[]): { bases: Map<string, number>; tables: number; end: number } {
  const bases = new Map<string, number>();
  const table = tablesBlock(blocks);
  if (table) bases.set(table.name, 0);
  const tables = table?.size ?? 0;
  let end = tables;
  for (const { name, size } of blocks.filter(isRam)) {
    bases.set(name, end);
    end += size;
  }
  return { bases, tables, end };
}

/** What of a stream came. */
export interface Arrived {
  open: () => MemoryImage;
  /** Bytes of the stream. */
  size: number;
  /** Of its container. */
  damage: ContainerDamage | undefined;
}

interface Receiver {
  promise: Promised;
  arrangement: Arrangement;
  /** For messages. */
  name: string;
  signal?: AbortSignal | undefined;
}

/** Reads a stream to its end. Throws `Elf2dmpError`; damage of the stream itself is for `open` to tell. */
export async function receive(chunks: AsyncIterable<Buffer>, receiver: Receiver): Promise<Arrived> {
  try {
    return await receiveAll(chunks, receiver);
  } finally {
    await receiver.arrangement.file.close();
  }
}

async function receiveAll(
  chunks: AsyncIterable<Buffer>,
  { promise, arrangement, name, signal }: Receiver,
): Promise<Arrived> {
  const { file } = arrangement;
  const placing = new Placing(arrangement, promise.bases);
  const cursor = new ArrivingCursor(promise.start + QEVM_MAGIC.length);
  const walk = new StreamWalk(cursor, placing.block);
  const state = new ArrivingState();
  let read = 0;
  let devices: number | undefined;
  let fault: ReturnType<typeof faultOf> | undefined;
  const run = async () => {
    for (let again = true; again; ) {
      again = false;
      try {
        while (devices === undefined) devices = walk.step();
        state.add(cursor.rest);
      } catch (error) {
        again = error instanceof Busy;
        if (again) await placing.settle();
        else if (!(error instanceof NotYet)) fault = faultOf(error, walk);
      }
    }
  };
  const damage = await inChunks(chunks, async (bytes) => {
    signal?.throwIfAborted();
    read += bytes.length;
    if (devices !== undefined) state.add(bytes);
    else if (!fault) {
      cursor.add(bytes);
      await run();
      cursor.settle();
      await file.settle();
    }
  });
  if (devices === undefined && !fault) {
    cursor.end();
    await run();
  }
  await file.end(await placing.end());
  const size = [...walk.ram.blocks.values()].filter(({ name: block }) => promise.bases.has(block));
  const source = new ArrangedSource(
    name,
    size.reduce((sum, block) => sum + block.size, 0),
    arrangement,
  );
  return {
    size: read,
    damage,
    open: () => {
      const stream = streamOf(walk, devices, fault);
      const tables = promise.tables > 0 ? Buffer.alloc(promise.tables) : undefined;
      if (tables) source.readSync(0, tables);
      return openPlaced(source, {
        format: promise.format,
        stream,
        state: devices === undefined ? undefined : state.all(),
        tables,
      });
    },
  };
}
