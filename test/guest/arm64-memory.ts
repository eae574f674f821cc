/** ARM64 page tables with a granule of 4 KiB, as the manual has them: both halves in one page, as Windows keeps them. */
import { PAGE, PhysicalMemory, VirtualMemory } from './memory.ts';

/** Where QEMU's `virt` machine has its RAM. */
export const RAM_BASE = 0x4000_0000;

/** QEMU puts its device tree here when it starts firmware. */
const DEVICE_TREE = 0x20_0000;

export const arm64Memory = (bytes: number, seed: number, reserved: readonly { from: number; to: number }[] = []) =>
  new PhysicalMemory(bytes, seed, [{ from: RAM_BASE, to: RAM_BASE + DEVICE_TREE }, ...reserved], 0, RAM_BASE);

/** Table, as Windows' own look when they are seen through the self-map: not executable, accessed, shareable. */
const TABLE = 0x0060_0000_0000_0f03n;
/** Page: normal memory, inner shareable, accessed. */
const LEAF = 0x700n;
const NOT_GLOBAL = 0x800n;
const USER = 0x40n;
export const READ_ONLY = 0x80n;

export class Arm64PageTables extends VirtualMemory {
  readonly memory: PhysicalMemory;
  readonly root: number;

  constructor(memory: PhysicalMemory, root = memory.allocate()) {
    super();
    this.memory = memory;
    this.root = root;
  }

  #table(virtual: bigint, downTo: number): { table: number; index: number } {
    let table = this.root;
    for (let level = 0; level < downTo; level++) {
      const at = Number((virtual >> BigInt(39 - 9 * level)) & 511n) * 8;
      const page = this.memory.page(table);
      let entry = page.readBigUInt64LE(at);
      if ((entry & 1n) === 0n) {
        entry = BigInt(this.memory.allocate()) | TABLE;
        page.writeBigUInt64LE(entry, at);
      }
      table = Number(entry & 0x0000_ffff_ffff_f000n);
    }
    return { table, index: Number((virtual >> BigInt(39 - 9 * downTo)) & 511n) };
  }

  /** Writes a last-level entry as it is. */
  setEntry(virtual: bigint, entry: bigint): void {
    const { table, index } = this.#table(virtual, 3);
    this.memory.page(table).writeBigUInt64LE(entry, index * 8);
  }

  map(virtual: bigint, physical: number, more = 0n): void {
    this.setEntry(virtual, BigInt(physical) | LEAF | more | 3n);
  }

  /** level 2: a block of 2 MiB, level 1: of 1 GiB. */
  mapBlock(virtual: bigint, physical: number, level: 1 | 2, more = 0n): void {
    const { table, index } = this.#table(virtual, level);
    this.memory.page(table).writeBigUInt64LE(BigInt(physical) | LEAF | more | 1n, index * 8);
  }

  /** Maps new zeroed pages. */
  mapNew(virtual: bigint, bytes: number, user = false): void {
    for (let at = 0; at < bytes; at += PAGE) {
      this.map(virtual + BigInt(at), this.memory.allocate(), user ? NOT_GLOBAL | USER : 0n);
    }
  }

  topEntry(index: number): bigint {
    return this.memory.page(this.root).readBigUInt64LE(index * 8);
  }

  setTopEntry(index: number, entry: bigint): void {
    this.memory.page(this.root).writeBigUInt64LE(entry, index * 8);
  }

  /** Leads the root's entry back to the root. */
  selfMap(index: number): void {
    this.setTopEntry(index, BigInt(this.root) | TABLE);
  }

  /** A naive walk; undefined where nothing is mapped. */
  translate(virtual: bigint): number | undefined {
    let table = this.root;
    for (let level = 0; ; level++) {
      const shift = BigInt(39 - 9 * level);
      const entry = this.memory.read(table + Number((virtual >> shift) & 511n) * 8, 8).readBigUInt64LE();
      if ((entry & 1n) === 0n) return undefined;
      const address = entry & 0x0000_ffff_ffff_f000n;
      if (level === 3 || (entry & 2n) === 0n) return Number(address | (virtual & ((1n << shift) - 1n)));
      table = Number(address);
    }
  }
}
