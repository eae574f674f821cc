/** Page tables of 32-bit x86, with PAE and without, as the manual has them. Addresses are unsigned 32-bit numbers. */
import { PAGE, type PhysicalMemory, Words } from '../memory.ts';

const PRESENT_WRITE_ACCESSED_DIRTY = 0x63;
const USER = 0x4;
const LARGE = 0x80;

/** Roots that lie in one page, as Windows keeps PDPTs: 32 bytes each. */
const PDPT = 32;

/** One address space. Accessed and dirty bits are set, so that a CPU changes nothing when it runs here. */
export class PageTables32 extends Words<number> {
  readonly memory: PhysicalMemory;
  readonly pae: boolean;
  /** What CR3 holds: with PAE the address of four entries, not page aligned. */
  readonly root: number;
  /** Page directories: one, or four with PAE. */
  readonly directories: readonly number[];

  /** @param pdpts the page for PDPTs, and which of them this root takes */
  constructor(memory: PhysicalMemory, pae: boolean, pdpts: { page: number; slot: number }) {
    super();
    this.memory = memory;
    this.pae = pae;
    this.directories = Array.from({ length: pae ? 4 : 1 }, () => allocateLow(memory));
    this.root = pae ? pdpts.page + PDPT * pdpts.slot : this.directories[0]!;
    if (pae) {
      const page = memory.page(pdpts.page);
      this.directories.forEach((directory, i) => {
        page.writeBigUInt64LE(BigInt(directory) | 1n, PDPT * pdpts.slot + 8 * i);
      });
    }
    // The tables see themselves from 0xc0000000 on.
    if (pae) {
      this.directories.forEach((directory, i) => {
        this.#write(this.directories[3]!, i, directory | PRESENT_WRITE_ACCESSED_DIRTY);
      });
    } else this.#write(this.root, 0x300, this.root | PRESENT_WRITE_ACCESSED_DIRTY);
  }

  #read(table: number, index: number): number {
    const page = this.memory.page(table);
    if (!this.pae) return page.readUInt32LE(4 * index);
    return Number(page.readBigUInt64LE(8 * index) & 0x7fff_ffff_ffff_ffffn);
  }

  #write(table: number, index: number, entry: number | bigint): void {
    const page = this.memory.page(table);
    if (this.pae) page.writeBigUInt64LE(BigInt(entry), 8 * index);
    else page.writeUInt32LE(Number(entry), 4 * index);
  }

  #directoryEntry(virtual: number): { directory: number; index: number } {
    if (!this.pae) return { directory: this.root, index: Math.floor(virtual / 2 ** 22) };
    return { directory: this.directories[Math.floor(virtual / 2 ** 30)]!, index: Math.floor(virtual / 2 ** 21) % 512 };
  }

  #table(virtual: number, user: boolean): { table: number; index: number } {
    const { directory, index } = this.#directoryEntry(virtual);
    let entry = this.#read(directory, index);
    if (entry % 2 === 0) {
      // A frame above 4 GiB is too much for bit operations on numbers.
      entry =
        (this.pae ? this.memory.allocate() : allocateLow(this.memory)) +
        PRESENT_WRITE_ACCESSED_DIRTY +
        (user ? USER : 0);
      this.#write(directory, index, entry);
    }
    const at = Math.floor(virtual / PAGE) % (this.pae ? 512 : 1024);
    return { table: entry - (entry % PAGE), index: at };
  }

  /** Writes a last-level entry as it is. */
  setEntry(virtual: number, entry: number | bigint, user = false): void {
    const { table, index } = this.#table(virtual, user);
    this.#write(table, index, entry);
  }

  map(virtual: number, physical: number, user = false): void {
    this.setEntry(virtual, physical + PRESENT_WRITE_ACCESSED_DIRTY + (user ? USER : 0), user);
  }

  /** 2 MiB with PAE, 4 MiB without. */
  mapLarge(virtual: number, physical: number): void {
    const { directory, index } = this.#directoryEntry(virtual);
    this.#write(directory, index, physical + PRESENT_WRITE_ACCESSED_DIRTY + LARGE);
  }

  /** Maps new zeroed pages. */
  mapNew(virtual: number, bytes: number, user = false): void {
    for (let at = 0; at < bytes; at += PAGE) {
      this.map(virtual + at, this.pae ? this.memory.allocate() : allocateLow(this.memory), user);
    }
  }

  /** Takes what another root has from an address on, but for what maps the tables themselves. */
  shareFrom(other: PageTables32, from: number): void {
    const step = this.pae ? 2 ** 21 : 2 ** 22;
    for (let at = from; at < 2 ** 32; at += step) {
      if (at >= 0xc0000000 && at < 0xc0800000) continue;
      const { directory, index } = this.#directoryEntry(at);
      const theirs = other.#directoryEntry(at);
      this.#write(directory, index, other.#read(theirs.directory, theirs.index));
    }
  }

  /** A naive walk; undefined where nothing is mapped. */
  translate(virtual: number): number | undefined {
    const { directory, index } = this.#directoryEntry(virtual);
    const entry = this.#read(directory, index);
    if (entry % 2 === 0) return undefined;
    if (Math.floor(entry / LARGE) % 2 === 1) {
      const size = this.pae ? 2 ** 21 : 2 ** 22;
      return entry - (entry % size) + (virtual % size);
    }
    const last = this.#read(entry - (entry % PAGE), Math.floor(virtual / PAGE) % (this.pae ? 512 : 1024));
    return last % 2 === 0 ? undefined : last - (last % PAGE) + (virtual % PAGE);
  }

  /** Physical pages of the last-level tables. */
  tables(): number[] {
    return this.directories.flatMap((directory) =>
      Array.from({ length: this.pae ? 512 : 1024 }, (_, i) => this.#read(directory, i))
        .filter((entry) => entry % 2 === 1 && Math.floor(entry / LARGE) % 2 === 0)
        .map((entry) => entry - (entry % PAGE))
        .filter((table) => !this.directories.includes(table)),
    );
  }

  #pieces(
    virtual: number,
    length: number,
    each: (page: Buffer, at: number, done: number, count: number) => void,
  ): void {
    for (let done = 0; done < length; ) {
      const physical = this.translate(virtual + done);
      if (physical === undefined) throw new Error(`nothing is mapped at 0x${(virtual + done).toString(16)}`);
      const count = Math.min(length - done, PAGE - (physical % PAGE));
      each(this.memory.page(physical), physical % PAGE, done, count);
      done += count;
    }
  }

  write(virtual: number, bytes: Buffer): void {
    this.#pieces(virtual, bytes.length, (page, at, done, count) => bytes.copy(page, at, done, done + count));
  }

  read(virtual: number, length: number): Buffer {
    const result = Buffer.alloc(length);
    this.#pieces(virtual, length, (page, at, done, count) => page.copy(result, done, at, at + count));
    return result;
  }
}

/** A frame below 4 GiB: what CR3, a PDPT entry or a page table without PAE can name. */
export function allocateLow(memory: PhysicalMemory): number {
  const high: number[] = [];
  for (;;) {
    const page = memory.allocate();
    if (page < 2 ** 32) {
      for (const each of high.reverse()) memory.release(each);
      return page;
    }
    high.push(page);
  }
}
