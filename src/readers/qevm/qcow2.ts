/** Internal snapshots with VM state (`savevm`, Proxmox): each is a migration stream in a qcow2 image, behind the disk's data. */
import { Elf2dmpError, failIn } from '../../core/errors.ts';
import { bytes } from '../../core/units.ts';
import {
  QCOW2_COMPRESSED,
  QCOW2_FOREIGN_FEATURES,
  QCOW2_HEADER_V2,
  QCOW2_HEADER_V3,
  QCOW2_MAGIC,
  QCOW2_OFFSET,
  QCOW2_ZERO,
  Qcow2Header,
  Qcow2Snapshot,
} from '../../formats/qcow2.ts';
import type { MemoryImage } from '../../memory/image.ts';
import { type ByteSource, readUpTo } from '../../source/source.ts';
import { closing } from '../reader.ts';
import { openMigration } from './reader.ts';

/** A snapshot that has a VM's state. */
export interface SavedState {
  id: string;
  name: string;
  /** Bytes of the stream. */
  size: number;
  /** Of its L1 table. */
  l1: { offset: number; entries: number };
  /** Where the stream begins in the snapshot's disk. */
  start: number;
}

/** No image has nearly as many. */
const MAX_SNAPSHOTS = 65_536;
const MAX_L1_ENTRIES = 4_194_304;

export const isQcow2 = (head: Buffer): boolean => head.toString('latin1', 0, 4) === QCOW2_MAGIC;

/** The snapshots with VM state in an image. Throws `Elf2dmpError` where its header or list can't be right. */
export function savedStates(source: ByteSource): SavedState[] {
  const fail = failIn(source.name);
  const header = readUpTo(source, 0, QCOW2_HEADER_V3);
  const version = header.length < QCOW2_HEADER_V2 ? 0 : header.readUInt32BE(Qcow2Header.version);
  if (version !== 2 && version !== 3) {
    throw fail('corrupt', {
      code: 'qcow2-damaged',
      message: 'a qcow2 image whose header can not be right',
      field: 'version',
      offset: Qcow2Header.version,
      expected: '2 or 3',
      actual: String(version),
      hint: 'check it with `qemu-img check`',
      structure: 'header',
    });
  }
  const clusterBits = header.readUInt32BE(Qcow2Header.clusterBits);
  if (clusterBits < 9 || clusterBits > 21) {
    throw fail('corrupt', {
      code: 'qcow2-damaged',
      message: 'a qcow2 image whose clusters can not have their size',
      offset: Qcow2Header.clusterBits,
      expected: '9 to 21 bits',
      actual: String(clusterBits),
    });
  }
  const count = header.readUInt32BE(Qcow2Header.snapshotCount);
  const diskSize = Number(header.readBigUInt64BE(Qcow2Header.size));
  const found: SavedState[] = [];
  let at = Number(header.readBigUInt64BE(Qcow2Header.snapshotsOffset));
  for (let i = 0; i < Math.min(count, MAX_SNAPSHOTS); i++) {
    const entry = readUpTo(source, at, Qcow2Snapshot.extra + 24);
    if (entry.length < Qcow2Snapshot.extra) {
      throw fail('corrupt', {
        code: 'qcow2-damaged',
        message: `the entry of snapshot ${i} is not in the file`,
        offset: at,
      });
    }
    const [idLength, nameLength] = [Qcow2Snapshot.idLength, Qcow2Snapshot.nameLength].map((o) => entry.readUInt16BE(o));
    const extra = entry.readUInt32BE(Qcow2Snapshot.extraLength);
    const words = entry.subarray(Qcow2Snapshot.extra, Qcow2Snapshot.extra + Math.min(extra, 16));
    const size = words.length >= 8 ? Number(words.readBigUInt64BE()) : entry.readUInt32BE(Qcow2Snapshot.stateSize);
    const disk = words.length >= 16 ? Number(words.readBigUInt64BE(8)) : diskSize;
    const text = readUpTo(source, at + Qcow2Snapshot.extra + extra, idLength! + nameLength!);
    if (size > 0) {
      found.push({
        id: text.toString('utf8', 0, idLength),
        name: text.toString('utf8', idLength),
        size,
        l1: {
          offset: Number(entry.readBigUInt64BE(Qcow2Snapshot.l1Offset)),
          entries: entry.readUInt32BE(Qcow2Snapshot.l1Size),
        },
        start: stateOffset(disk, clusterBits),
      });
    }
    at = Math.ceil((at + Qcow2Snapshot.extra + extra + idLength! + nameLength!) / 8) * 8;
  }
  return found;
}

/** The state begins with the first L1 entry behind the disk's. */
function stateOffset(disk: number, clusterBits: number): number {
  const mapped = 2 ** (clusterBits + clusterBits - 3);
  return Math.ceil(disk / mapped) * mapped;
}

/** Opens the state of one snapshot; takes over the source. Throws `Elf2dmpError`. */
export function openQcow2(source: ByteSource, snapshot: string | undefined, ramFile?: string): MemoryImage {
  return closing(source, () => {
    refuseUnreadable(source);
    const state = chosen(savedStates(source), snapshot, source.name);
    return openMigration(new StateSource(source, state), { format: 'qcow2-snapshot', start: 0, ramFile });
  });
}

function refuseUnreadable(source: ByteSource): void {
  const header = readUpTo(source, 0, QCOW2_HEADER_V3);
  if (header.length < QCOW2_HEADER_V2) return;
  const version = header.readUInt32BE(Qcow2Header.version);
  const features = version >= 3 && header.length >= 80 ? header.readBigUInt64BE(Qcow2Header.incompatibleFeatures) : 0n;
  const encrypted = header.readUInt32BE(Qcow2Header.cryptMethod) !== 0;
  if (!encrypted && (features & QCOW2_FOREIGN_FEATURES) === 0n) return;
  throw new Elf2dmpError({
    code: 'qcow2-unreadable',
    kind: 'unsupported',
    message: encrypted
      ? 'an encrypted qcow2 image'
      : 'a qcow2 image with an external data file or extended L2 entries, which elf2dmp does not read',
    file: source.name,
    hint: 'make a copy without: `qemu-img convert` loses snapshots, so start the VM from the snapshot and dump its memory',
  });
}

function chosen(states: readonly SavedState[], wanted: string | undefined, file: string): SavedState {
  const list = states.map(({ id, name, size }) => `${id}: ${name} (${bytes(size)})`);
  if (wanted !== undefined) {
    const found = states.filter(({ id, name }) => name === wanted || id === wanted);
    if (found.length === 1) return found[0]!;
    throw new Elf2dmpError({
      code: 'snapshot-unknown',
      kind: 'usage',
      message: `${found.length === 0 ? 'no snapshot' : 'more than one snapshot'} with VM state is called ${JSON.stringify(wanted)}`,
      file,
      attempts: list,
      hint: 'give the name or the ID of one of these with --snapshot',
    });
  }
  if (states.length === 1) return states[0]!;
  if (states.length > 1) {
    throw new Elf2dmpError({
      code: 'snapshot-needed',
      kind: 'usage',
      message: `a qcow2 image with ${states.length} snapshots that have a VM's memory`,
      file,
      attempts: list,
      hint: 'say which with --snapshot NAME',
    });
  }
  throw new Elf2dmpError({
    code: 'qcow2',
    kind: 'unsupported',
    message: "a qcow2 disk image without a snapshot that has a VM's memory",
    file,
    hint: "dump the running guest's memory with `virsh dump --memory-only DOMAIN FILE`",
  });
}

/** The bytes of a snapshot's VM state. */
class StateSource implements ByteSource {
  readonly fd = undefined;
  readonly name: string;
  readonly size: number;
  readonly #image: ByteSource;
  readonly #clusterBits: number;
  readonly #l1: Buffer;
  readonly #start: number;
  /** L2 tables, by their L1 index: one for 512 MiB with clusters of 64 KiB. */
  readonly #l2 = new Map<number, Buffer>();

  constructor(image: ByteSource, { name, size, l1, start }: SavedState) {
    this.name = `${image.name} (snapshot ${JSON.stringify(name)})`;
    this.#image = image;
    this.#clusterBits = readUpTo(image, Qcow2Header.clusterBits, 4).readUInt32BE();
    if (l1.entries > MAX_L1_ENTRIES) throw this.#damaged(`an L1 table of ${l1.entries} entries`, l1.offset);
    this.#l1 = readUpTo(image, l1.offset, 8 * l1.entries);
    this.#start = start;
    // No more than its tables map.
    const mapped = (this.#l1.length / 8) * 2 ** (2 * this.#clusterBits - 3) - start;
    this.size = Math.max(0, Math.min(size, mapped));
  }

  readSync(offset: number, target: Uint8Array): void {
    for (const { from, to, length } of this.#pieces(offset, target.length)) {
      const part = target.subarray(to, to + length);
      if (from === undefined) part.fill(0);
      else this.#image.readSync(from, part);
    }
  }

  async read(offset: number, target: Uint8Array): Promise<void> {
    for (const { from, to, length } of this.#pieces(offset, target.length)) {
      const part = target.subarray(to, to + length);
      if (from === undefined) part.fill(0);
      else await this.#image.read(from, part);
    }
  }

  close(): void {
    this.#image.close();
  }

  /** Where the bytes of a range lie in the image: one piece for clusters that follow each other. */
  #pieces(offset: number, length: number): { from: number | undefined; to: number; length: number }[] {
    if (offset < 0 || offset + length > this.size) throw new RangeError(`${this.name}: ${length} bytes at ${offset}`);
    const pieces: { from: number | undefined; to: number; length: number }[] = [];
    const cluster = 2 ** this.#clusterBits;
    for (let to = 0; to < length; ) {
      const at = this.#start + offset + to;
      const inCluster = at % cluster;
      const size = Math.min(cluster - inCluster, length - to);
      const host = this.#cluster(Math.floor(at / cluster));
      const from = host === undefined ? undefined : host + inCluster;
      const last = pieces.at(-1);
      if (last?.from !== undefined && from === last.from + last.length) last.length += size;
      else pieces.push({ from, to, length: size });
      to += size;
    }
    return pieces;
  }

  /** Offset of a guest cluster in the image; undefined for one of zeros. */
  #cluster(index: number): number | undefined {
    const entries = 2 ** (this.#clusterBits - 3);
    const l1Index = Math.floor(index / entries);
    let table = this.#l2.get(l1Index);
    if (!table) {
      const offset = Number(this.#l1.readBigUInt64BE(8 * l1Index) & QCOW2_OFFSET);
      table = offset === 0 ? Buffer.alloc(0) : readUpTo(this.#image, offset, 8 * entries);
      this.#l2.set(l1Index, table);
    }
    const at = 8 * (index % entries);
    if (at + 8 > table.length) return undefined;
    const entry = table.readBigUInt64BE(at);
    if ((entry & QCOW2_COMPRESSED) !== 0n) throw this.#damaged('a compressed cluster in a VM state', at);
    if ((entry & QCOW2_ZERO) !== 0n || (entry & QCOW2_OFFSET) === 0n) return undefined;
    const host = Number(entry & QCOW2_OFFSET);
    if (host >= this.#image.size) {
      throw this.#damaged('a cluster behind the end of the file', host);
    }
    return host;
  }

  #damaged(message: string, offset: number): Elf2dmpError {
    return failIn(this.#image.name)('corrupt', { code: 'qcow2-damaged', message, offset });
  }
}
