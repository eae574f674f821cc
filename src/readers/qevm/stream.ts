/** Walks a migration stream's sections: memory, then the devices' state. */
import { hex, MIB } from '../../core/units.ts';
import { QEVM_MAGIC, QEVM_VERSION, RAM_VERSION, Section } from '../../formats/qevm.ts';
import { type ByteSource, readUpTo } from '../../source/source.ts';
import { Cursor, StreamEnd } from './cursor.ts';
import { DeltaList, type RamBlock, type RamState, readRamSection, StreamFault } from './ram.ts';

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

interface Walk {
  cursor: Cursor;
  ram: RamState;
  /** Names of sections that take passes, by their ID. */
  passes: Map<number, string>;
  machineType: string | undefined;
}

/**
 * @param start of `QEVM` in the source
 * @param end of the stream, at most
 */
export function readStream(source: ByteSource, start: number, end = source.size): MigrationStream {
  const walk: Walk = {
    cursor: new Cursor(source, start + QEVM_MAGIC.length, end),
    ram: {
      blocks: new Map(),
      deltas: new DeltaList(),
      mappedRam: false,
      ignoreShared: false,
      block: undefined,
      records: 0,
    },
    passes: new Map(),
    machineType: undefined,
  };
  let devices: number | undefined;
  let fault: MigrationStream['fault'];
  try {
    devices = readSections(walk, source);
  } catch (error) {
    if (error instanceof StreamEnd) fault = { offset: error.offset, what: 'it ends in the middle' };
    else if (error instanceof StreamFault) fault = { offset: error.offset, what: error.message };
    else if (error instanceof RangeError) fault = { offset: walk.cursor.at, what: error.message };
    else throw error;
  }
  const blocks = [...walk.ram.blocks.values()];
  for (const { pages } of blocks) if ('close' in pages) pages.close();
  return {
    machineType: walk.machineType,
    blocks,
    deltas: walk.ram.deltas,
    records: walk.ram.records,
    devices,
    fault,
  };
}

/** @returns where the devices' state begins */
function readSections(walk: Walk, source: ByteSource): number {
  const { cursor, ram, passes } = walk;
  const version = cursor.u32();
  if (version !== QEVM_VERSION)
    throw new StreamFault(`it is of version ${version}, not ${QEVM_VERSION}`, cursor.at - 4);
  for (;;) {
    const at = cursor.at;
    const type = cursor.u8();
    switch (type) {
      case Section.configuration:
        readConfiguration(walk);
        break;
      case Section.start:
      case Section.part:
      case Section.end: {
        const id = cursor.u32();
        if (type === Section.start) passes.set(id, startedSection(cursor));
        const name = passes.get(id);
        if (name === undefined) throw new StreamFault(`a section of ID ${id} that never began`, at);
        if (name === 'ram') readRamSection(cursor, ram);
        else skipToFooter(cursor, source, id);
        readFooter(cursor, source, id);
        break;
      }
      case Section.command: {
        cursor.u16();
        cursor.skip(cursor.u16());
        break;
      }
      case Section.full:
        if (ram.blocks.size > 0) return at;
        // Devices that have to be there before memory (virtio-mem).
        cursor.at = findRam(source, at);
        break;
      case Section.eof:
        return at;
      default:
        throw new StreamFault(`a section of type ${hex(type)}`, at);
    }
  }
}

function startedSection(cursor: Cursor): string {
  const at = cursor.at;
  const name = cursor.name();
  cursor.u32();
  const version = cursor.u32();
  if (name === 'ram' && version !== RAM_VERSION) throw new StreamFault(`memory of version ${version}`, at);
  return name;
}

function readConfiguration(walk: Walk): void {
  const { cursor, ram } = walk;
  const length = cursor.u32();
  if (length > MAX_MACHINE_TYPE) throw new StreamFault(`a machine type of ${length} bytes`, cursor.at - 4);
  walk.machineType = cursor.bytes(length).toString('latin1');
  for (;;) {
    const before = cursor.at;
    if (cursor.left === 0 || cursor.u8() !== Section.subsection) {
      cursor.at = before;
      return;
    }
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

/** Machines since 2.4 end each section with its ID. */
function readFooter(cursor: Cursor, source: ByteSource, id: number): void {
  const head = readUpTo(source, cursor.at, 5);
  if (head.length < 5 || head[0] !== Section.footer) return;
  if (head.readUInt32BE(1) !== id) {
    throw new StreamFault(`the end of section ${head.readUInt32BE(1)} in section ${id}`, cursor.at);
  }
  cursor.skip(5);
}

/** Other sections that take passes have no length: they end with a footer. */
function skipToFooter(cursor: Cursor, source: ByteSource, id: number): void {
  const mark = Buffer.from([Section.footer, 0, 0, 0, 0]);
  mark.writeUInt32BE(id, 1);
  const found = find(source, mark, cursor.at, MAX_FOREIGN_SECTION);
  if (found === undefined) throw new StreamFault(`section ${id}, which is not memory, without an end`, cursor.at);
  cursor.at = found;
}

/** Type and ID of a section are in front of its name. */
const BEFORE_NAME = 5;

/** The section with memory behind the one at `from`, which may claim to be that itself. */
function findRam(source: ByteSource, from: number): number {
  const mark = Buffer.from(`\x03ram\0\0\0\0\0\0\0\x04`, 'latin1');
  const found = find(source, mark, from + BEFORE_NAME + 1, MAX_FOREIGN_SECTION);
  if (found === undefined) throw new StreamFault("devices' state and no memory", from);
  return found - BEFORE_NAME;
}

function find(source: ByteSource, mark: Buffer, from: number, length: number): number | undefined {
  for (let at = from; at < from + length; at += MIB) {
    const piece = readUpTo(source, at, MIB + mark.length - 1);
    const found = piece.indexOf(mark);
    if (found >= 0) return at + found;
    if (piece.length < MIB) return undefined;
  }
  return undefined;
}
