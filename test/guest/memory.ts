/** Sparse physical memory and x64 page tables, as the manual has them. */

export const PAGE = 0x1000;

/** A small seeded generator (mulberry32), so that every guest is the same each time it is built. */
export function random(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Pages by physical address; frames are handed out in a scattered order, never below 64 KiB or in the VGA and ROM hole. */
export class PhysicalMemory {
  readonly pages = new Map<number, Buffer>();
  readonly bytes: number;
  readonly #free: number[] = [];

  /**
   * @param reserved ranges of frames that `allocate` does not hand out: [from, to)
   * @param high bytes from 4 GiB on, of which every other frame is handed out
   * @param base where memory begins
   */
  constructor(bytes: number, seed: number, reserved: readonly { from: number; to: number }[] = [], high = 0, base = 0) {
    this.bytes = bytes;
    for (let at = base + 0x10000; at < base + bytes; at += PAGE) {
      if (at >= 0xa0000 && at < 0x100000) continue;
      if (reserved.some(({ from, to }) => at >= from && at < to)) continue;
      this.#free.push(at);
      if (at < high) this.#free.push(2 ** 32 + at);
    }
    const next = random(seed);
    // Shuffled within windows, as a system that has run for a while has them.
    for (let i = this.#free.length - 1; i > 0; i--) {
      const j = Math.max(0, i - Math.floor(next() * 64));
      [this.#free[i], this.#free[j]] = [this.#free[j]!, this.#free[i]!];
    }
    this.#free.reverse();
  }

  allocate(): number {
    const page = this.#free.pop();
    if (page === undefined) throw new Error('the guest has no free memory left');
    this.page(page);
    return page;
  }

  /** A frame that `allocate` may hand out after all. */
  release(page: number): void {
    this.#free.push(page);
  }

  /** Frames that lie one behind another, as a driver gets them for a device. */
  allocateContiguous(count: number): number {
    const free = new Set(this.#free);
    const start = this.#free.find((at) =>
      Array.from({ length: count }, (_, i) => at + i * PAGE).every((p) => free.has(p)),
    );
    if (start === undefined) throw new Error('the guest has no such memory left');
    for (let i = 0; i < count; i++) {
      this.#free.splice(this.#free.indexOf(start + i * PAGE), 1);
      this.page(start + i * PAGE);
    }
    return start;
  }

  page(address: number): Buffer {
    const start = address - (address % PAGE);
    let page = this.pages.get(start);
    if (!page) {
      page = Buffer.alloc(PAGE);
      this.pages.set(start, page);
    }
    return page;
  }

  read(address: number, length: number): Buffer {
    const result = Buffer.alloc(length);
    for (let done = 0; done < length; ) {
      const count = Math.min(length - done, PAGE - ((address + done) % PAGE));
      this.pages
        .get(address + done - ((address + done) % PAGE))
        ?.copy(result, done, (address + done) % PAGE, ((address + done) % PAGE) + count);
      done += count;
    }
    return result;
  }

  /** A range of this memory as one buffer. */
  flat(from: number, to: number): Buffer {
    const result = Buffer.alloc(to - from);
    for (const [at, page] of this.pages) if (at >= from && at < to) page.copy(result, at - from);
    return result;
  }
}

/** What words are written to, by addresses of either width. */
export abstract class Words<Address> {
  abstract write(virtual: Address, bytes: Buffer): void;

  u8(virtual: Address, value: number): void {
    this.write(virtual, Buffer.from([value]));
  }

  u16(virtual: Address, value: number): void {
    const b = Buffer.alloc(2);
    b.writeUInt16LE(value);
    this.write(virtual, b);
  }

  u32(virtual: Address, value: number): void {
    const b = Buffer.alloc(4);
    b.writeUInt32LE(value >>> 0);
    this.write(virtual, b);
  }

  u64(virtual: Address, value: bigint): void {
    const b = Buffer.alloc(8);
    b.writeBigUInt64LE(BigInt.asUintN(64, value));
    this.write(virtual, b);
  }
}

/** Memory as page tables of 64-bit addresses show it. */
export abstract class VirtualMemory extends Words<bigint> {
  abstract readonly memory: PhysicalMemory;

  /** Where an address lies; undefined where nothing is mapped. */
  abstract translate(virtual: bigint): number | undefined;

  write(virtual: bigint, bytes: Buffer): void {
    for (let done = 0; done < bytes.length; ) {
      const physical = this.translate(virtual + BigInt(done));
      if (physical === undefined) throw new Error(`nothing is mapped at 0x${(virtual + BigInt(done)).toString(16)}`);
      const count = Math.min(bytes.length - done, PAGE - (physical % PAGE));
      bytes.copy(this.memory.page(physical), physical % PAGE, done, done + count);
      done += count;
    }
  }

  read(virtual: bigint, length: number): Buffer {
    const result = Buffer.alloc(length);
    for (let done = 0; done < length; ) {
      const physical = this.translate(virtual + BigInt(done));
      if (physical === undefined) throw new Error(`nothing is mapped at 0x${(virtual + BigInt(done)).toString(16)}`);
      const count = Math.min(length - done, PAGE - (physical % PAGE));
      this.memory.read(physical, count).copy(result, done);
      done += count;
    }
    return result;
  }
}

const PRESENT_WRITE_ACCESSED_DIRTY = 0x63n;
const USER = 0x4n;
const LARGE = 0x80n;
const GLOBAL = 0x100n;

/** One tree of page tables. Accessed and dirty bits are set, so that a CPU changes nothing when it runs here. */
export class PageTables extends VirtualMemory {
  readonly memory: PhysicalMemory;
  readonly root: number;
  readonly levels: number;

  constructor(memory: PhysicalMemory, levels: 4 | 5 = 4, root = memory.allocate()) {
    super();
    this.memory = memory;
    this.levels = levels;
    this.root = root;
  }

  #table(virtual: bigint, downTo: number, user: boolean): { table: number; index: number } {
    let table = this.root;
    for (let level = this.levels; level > downTo; level--) {
      const at = Number((virtual >> BigInt(12 + 9 * (level - 1))) & 511n) * 8;
      const page = this.memory.page(table);
      let entry = page.readBigUInt64LE(at);
      if ((entry & 1n) === 0n) {
        entry = BigInt(this.memory.allocate()) | PRESENT_WRITE_ACCESSED_DIRTY | (user ? USER : 0n);
        page.writeBigUInt64LE(entry, at);
      }
      table = Number(entry & 0x000f_ffff_ffff_f000n);
    }
    return { table, index: Number((virtual >> BigInt(12 + 9 * (downTo - 1))) & 511n) };
  }

  /** Writes a last-level entry as it is. */
  setEntry(virtual: bigint, entry: bigint, user = false): void {
    const { table, index } = this.#table(virtual, 1, user);
    this.memory.page(table).writeBigUInt64LE(entry, index * 8);
  }

  map(virtual: bigint, physical: number, user = false): void {
    this.setEntry(virtual, BigInt(physical) | PRESENT_WRITE_ACCESSED_DIRTY | (user ? USER : 0n), user);
  }

  /** level 2: 2 MiB, level 3: 1 GiB. */
  mapLarge(virtual: bigint, physical: number, level: 2 | 3): void {
    const { table, index } = this.#table(virtual, level, false);
    this.memory
      .page(table)
      .writeBigUInt64LE(BigInt(physical) | PRESENT_WRITE_ACCESSED_DIRTY | LARGE | GLOBAL, index * 8);
  }

  /** Maps new zeroed pages. */
  mapNew(virtual: bigint, bytes: number, user = false): void {
    for (let at = 0; at < bytes; at += PAGE) this.map(virtual + BigInt(at), this.memory.allocate(), user);
  }

  /** The entry that maps a whole top-level slot, for roots that share it. */
  topEntry(index: number): bigint {
    return this.memory.page(this.root).readBigUInt64LE(index * 8);
  }

  setTopEntry(index: number, entry: bigint): void {
    this.memory.page(this.root).writeBigUInt64LE(entry, index * 8);
  }

  /** A naive walk; undefined where nothing is mapped. */
  translate(virtual: bigint): number | undefined {
    let table = this.root;
    for (let level = this.levels; ; level--) {
      const shift = BigInt(12 + 9 * (level - 1));
      const entry = this.memory.read(table + Number((virtual >> shift) & 511n) * 8, 8).readBigUInt64LE();
      if ((entry & 1n) === 0n) return undefined;
      const address = entry & 0x000f_ffff_ffff_f000n;
      if (level === 1 || (level <= 3 && (entry & LARGE) !== 0n)) {
        const mask = (1n << shift) - 1n;
        return Number((address & ~mask) | (virtual & mask));
      }
      table = Number(address);
    }
  }
}
