/** Walks a migration stream's sections: memory, then the devices' state. */
import { hex, MIB } from '../../core/units.ts';
import { QEVM_MAGIC, QEVM_VERSION, RAM_VERSION, Section } from '../../formats/qevm.ts';
import type { ByteSource } from '../../source/source.ts';
import { Busy, type Cursor, NotYet, SourceCursor, StreamEnd } from './cursor.ts';
import { PageStore } from './page-store.ts';
import { DeltaList, placeRun, type RamBlock, type RamState, readRamRecord, StreamFault } from './ram.ts';

/** What a stream holds, as far as it could be read. */
export interface MigrationStream {
  /** `pc-i440fx-7.2`; undefined before QEMU 2.4's machine types. */
  machineType: string | undefined;
  blocks: readonly RamBlock[];
  deltas: DeltaList;
  /** Records with pages: more than the guest has pages in a live stream. */
  records: number;
  /** Where the devices' state begins; undefined where the stream ends or is damaged before. */
  devices: number | undefined;
  /** Where and how the stream stopped making sense; undefined where it did not. */
  fault: { offset: number; what: string } | undefined;
}

/** Section names that may take passes besides `ram` (dirty bitmaps, disk migration): bytes searched for the end of one. */
const MAX_FOREIGN_SECTION = 64 * MIB;
const MAX_MACHINE_TYPE = 256;

/** Goes through a stream's sections in steps, each of which can be taken again if not all of it was there. */
export class StreamWalk {
  readonly cursor: Cursor;
  readonly ram: RamState;
  machineType: string | undefined;
  /** Names of sections that take passes, by their ID. */
  readonly #passes = new Map<number, string>();
  #place: { in: 'header' | 'sections' } | { in: 'records' | 'passed'; id: number } = { in: 'header' };

  /**
   * @param cursor behind `QEVM`
   * @param placed takes the pages of blocks; default: they stay where they are
   */
  constructor(cursor: Cursor, placed?: RamState['placed']) {
    this.cursor = cursor;
    this.ram = {
      blocks: new Map(),
      deltas: new DeltaList(),
      mappedRam: false,
      ignoreShared: false,
      block: undefined,
      records: 0,
      placed,
    };
  }

  /** @returns where the devices' state begins; undefined while it did not. Throws as `faultOf` knows, `NotYet`, or `Busy` */
  step(): number | undefined {
    const { cursor } = this;
    const from = cursor.at;
    try {
      const devices = this.#step();
      if (devices !== undefined) cursor.at = devices;
      return devices;
    } catch (error) {
      if (error instanceof NotYet || error instanceof Busy) cursor.at = from;
      throw error;
    }
  }

  #step(): number | undefined {
    const { cursor, ram } = this;
    const place = this.#place;
    switch (place.in) {
      case 'header': {
        const version = cursor.u32();
        if (version !== QEVM_VERSION)
          throw new StreamFault(`it is of version ${version}, not ${QEVM_VERSION}`, cursor.at - 4);
        this.#place = { in: 'sections' };
        return undefined;
      }
      case 'sections':
        return this.#section();
      case 'records':
        if (placeRun(cursor, ram)) return undefined;
        if (readRamRecord(cursor, ram)) this.#place = { in: 'passed', id: place.id };
        return undefined;
      case 'passed':
        readFooter(cursor, place.id);
        this.#place = { in: 'sections' };
        return undefined;
    }
  }

  #section(): number | undefined {
    const { cursor, ram } = this;
    const at = cursor.at;
    const type = cursor.u8();
    switch (type) {
      case Section.configuration:
        this.#configuration();
        return undefined;
      case Section.start:
      case Section.part:
      case Section.end: {
        const id = cursor.u32();
        const name = type === Section.start ? startedSection(cursor) : this.#passes.get(id);
        if (name === undefined) throw new StreamFault(`a section of ID ${id} that never began`, at);
        if (name !== 'ram') skipToFooter(cursor, id);
        this.#passes.set(id, name);
        this.#place = { in: name === 'ram' ? 'records' : 'passed', id };
        return undefined;
      }
      case Section.command: {
        cursor.u16();
        cursor.skip(cursor.u16());
        return undefined;
      }
      case Section.full:
        if (ram.blocks.size > 0) return at;
        // Devices that have to be there before memory (virtio-mem).
        cursor.at = findRam(cursor, at);
        return undefined;
      case Section.eof:
        return at;
      default:
        throw new StreamFault(`a section of type ${hex(type)}`, at);
    }
  }

  #configuration(): void {
    const { cursor, ram } = this;
    const length = cursor.u32();
    if (length > MAX_MACHINE_TYPE) throw new StreamFault(`a machine type of ${length} bytes`, cursor.at - 4);
    this.machineType = cursor.bytes(length).toString('latin1');
    while (cursor.peek(1)[0] === Section.subsection) {
      const before = cursor.at;
      cursor.u8();
      const name = cursor.name();
      cursor.u32();
      if (name === 'configuration/capabilities') {
        const names = Array.from({ length: Math.min(cursor.u32(), 256) }, () => cursor.name());
        ram.mappedRam = names.includes('mapped-ram');
        ram.ignoreShared = names.includes('x-ignore-shared');
      } else if (name === 'configuration/target-page-bits') {
        const bits = cursor.u32();
        if (bits !== 12) throw new StreamFault(`pages of 2^${bits} bytes`, cursor.at - 4);
      } else if (name === 'configuration/uuid') cursor.skip(16);
      else throw new StreamFault(`a configuration ${JSON.stringify(name)}`, before);
    }
  }
}

/** Where and how a stream stopped making sense, by what a step threw; anything else is thrown again. */
export function faultOf(error: unknown, { cursor }: StreamWalk): { offset: number; what: string } {
  if (error instanceof StreamEnd) return { offset: error.offset, what: 'it ends in the middle' };
  if (error instanceof StreamFault) return { offset: error.offset, what: error.message };
  if (error instanceof RangeError) return { offset: cursor.at, what: error.message };
  throw error;
}

/**
 * @param start of `QEVM` in the source
 * @param end of the stream, at most
 */
export function readStream(source: ByteSource, start: number, end = source.size): MigrationStream {
  const walk = new StreamWalk(new SourceCursor(source, start + QEVM_MAGIC.length, end));
  let devices: number | undefined;
  let fault: MigrationStream['fault'];
  try {
    while (devices === undefined) devices = walk.step();
  } catch (error) {
    fault = faultOf(error, walk);
  }
  return streamOf(walk, devices, fault);
}

/** What a walk found when it ended. */
export function streamOf(
  { machineType, ram }: StreamWalk,
  devices: number | undefined,
  fault: MigrationStream['fault'],
): MigrationStream {
  const blocks = [...ram.blocks.values()];
  for (const { pages } of blocks) if (pages instanceof PageStore) pages.close();
  return { machineType, blocks, deltas: ram.deltas, records: ram.records, devices, fault };
}

function startedSection(cursor: Cursor): string {
  const at = cursor.at;
  const name = cursor.name();
  cursor.u32();
  const version = cursor.u32();
  if (name === 'ram' && version !== RAM_VERSION) throw new StreamFault(`memory of version ${version}`, at);
  return name;
}

/** Machines since 2.4 end each section with its ID. */
function readFooter(cursor: Cursor, id: number): void {
  const head = cursor.peek(5);
  if (head.length < 5 || head[0] !== Section.footer) return;
  if (head.readUInt32BE(1) !== id) {
    throw new StreamFault(`the end of section ${head.readUInt32BE(1)} in section ${id}`, cursor.at);
  }
  cursor.skip(5);
}

/** Other sections that take passes have no length: they end with a footer. */
function skipToFooter(cursor: Cursor, id: number): void {
  const mark = Buffer.from([Section.footer, 0, 0, 0, 0]);
  mark.writeUInt32BE(id, 1);
  const found = cursor.find(mark, cursor.at, MAX_FOREIGN_SECTION);
  if (found === undefined) throw new StreamFault(`section ${id}, which is not memory, without an end`, cursor.at);
  cursor.at = found;
}

/** Type and ID of a section are in front of its name. */
const BEFORE_NAME = 5;

/** The section with memory behind the one at `from`, which may claim to be that itself. */
function findRam(cursor: Cursor, from: number): number {
  const mark = Buffer.from(`\x03ram\0\0\0\0\0\0\0\x04`, 'latin1');
  const found = cursor.find(mark, from + BEFORE_NAME + 1, MAX_FOREIGN_SECTION);
  if (found === undefined) throw new StreamFault("devices' state and no memory", from);
  return found - BEFORE_NAME;
}
