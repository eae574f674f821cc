/**
 * Many modules, processes and threads in a made-up guest, by literal offsets: to see how work grows with them. What
 * does not have to differ is shared, so that the guest stays small.
 */
import type { Guest } from './guest.ts';
import { PAGE, PageTables } from './memory.ts';
import { buildPe } from './pe.ts';

const CROWD = 0xffffb000_00000000n;
const IMAGES = 0xfffff880_00000000n;
const IMAGE_SIZE = 0x9000;
const IMAGE_SPACING = 0x10000n;

/** Kernel memory beside what the guest has. */
class Pool {
  readonly #guest: Guest;
  #next: bigint;

  constructor(guest: Guest, start: bigint) {
    this.#guest = guest;
    this.#next = start;
  }

  /** Zeroed, page-aligned. */
  take(bytes: number): bigint {
    const at = this.#next;
    const size = Math.ceil(bytes / PAGE) * PAGE;
    this.#guest.kernel.mapNew(at, size);
    this.#next += BigInt(size);
    return at;
  }
}

/** Puts entries at the end of a list. */
function append({ kernel }: Guest, head: bigint, entries: readonly bigint[]): void {
  let last = kernel.read(head + 8n, 8).readBigUInt64LE();
  for (const entry of entries) {
    kernel.u64(last, entry);
    kernel.u64(entry + 8n, last);
    last = entry;
  }
  kernel.u64(last, head);
  kernel.u64(head + 8n, last);
}

const USER_PAGE = 0x00007ff6_00000000n;

/** Processes with page tables of their own, which map one page of user memory. Also to be called before `addMemoryManager`. */
export function addProcesses(guest: Guest, count: number): void {
  const { kernel, build, memory } = guest;
  const { eprocess } = build;
  const pool = new Pool(guest, CROWD);
  const links: bigint[] = [];
  // The kernel's top-level slots have to be there before roots share them.
  const processes = Array.from({ length: count }, () => pool.take(eprocess.size));
  for (const [i, address] of processes.entries()) {
    const own = new PageTables(memory);
    for (let slot = 256; slot < 512; slot++) {
      const entry = kernel.topEntry(slot);
      const self = Number(entry & 0xf_ffff_ffff_f000n) === kernel.root;
      own.setTopEntry(slot, self ? BigInt(own.root) | 0x63n : entry);
    }
    own.mapNew(USER_PAGE, PAGE, true);
    kernel.u8(address, 3);
    kernel.u64(address + BigInt(eprocess.parent), 4n);
    kernel.u64(address + BigInt(eprocess.peb), 0xd5_0000_0000n + BigInt(i) * 0x1000n);
    kernel.u64(address + 0x28n, BigInt(own.root));
    kernel.u64(address + BigInt(eprocess.pid), BigInt(0x10000 + 4 * i));
    kernel.write(address + BigInt(eprocess.name), Buffer.from(`p${i}.exe\0`, 'latin1'));
    if (build.ntMajor > 5) kernel.u8(address + BigInt(eprocess.name + 15), 2);
    links.push(address + BigInt(eprocess.links));
  }
  append(guest, guest.truth.psActiveProcessHead, links);
}

/** Drivers that all have the pages of one image. */
export function addModules(guest: Guest, count: number): void {
  const { kernel } = guest;
  const pool = new Pool(guest, CROWD + 0x100_0000_0000n);
  const image = buildPe({
    name: 'crowd.sys',
    pdb: 'crowd.pdb',
    guid: Buffer.alloc(16, 7),
    age: 1,
    size: IMAGE_SIZE,
    imageBase: IMAGES,
    timeDateStamp: 0x5e0f1a2c,
    functions: [],
  });
  kernel.mapNew(IMAGES, IMAGE_SIZE);
  kernel.write(IMAGES, image);
  const entries: bigint[] = [];
  for (let i = 0; i < count; i++) {
    const base = IMAGES + BigInt(i) * IMAGE_SPACING;
    if (i > 0) {
      for (let at = 0n; at < BigInt(IMAGE_SIZE); at += BigInt(PAGE))
        kernel.map(base + at, kernel.translate(IMAGES + at)!);
    }
    const entry = pool.take(PAGE);
    kernel.u64(entry + 0x30n, base);
    kernel.u64(entry + 0x38n, base + 0x1000n);
    kernel.u32(entry + 0x40n, IMAGE_SIZE);
    const name = `d${i}.sys`;
    for (const [offset, text, at] of [
      [0x48n, `\\SystemRoot\\system32\\drivers\\${name}`, 0x200n],
      [0x58n, name, 0x400n],
    ] as const) {
      const bytes = Buffer.from(text, 'utf16le');
      kernel.write(entry + at, bytes);
      kernel.u16(entry + offset, bytes.length);
      kernel.u16(entry + offset + 2n, bytes.length + 2);
      kernel.u64(entry + offset + 8n, entry + at);
    }
    kernel.u32(entry + 0x78n, 0x12345);
    kernel.u32(entry + 0x9cn, 0x5e0f1a2c);
    entries.push(entry);
  }
  append(guest, guest.truth.psLoadedModuleList, entries);
}

/** ETHREADs of System, for guests with `doing`. */
export function addThreads(guest: Guest, count: number): void {
  const { kernel } = guest;
  const pool = new Pool(guest, CROWD + 0x200_0000_0000n);
  const system = guest.truth.processes[0]!;
  const links: bigint[] = [];
  for (let i = 0; i < count; i++) {
    const thread = pool.take(PAGE) + 0x80n;
    kernel.u8(thread, 6);
    kernel.u64(thread + 0xb8n, system.address);
    kernel.u64(thread + 0x220n, system.address);
    kernel.u64(thread + 0x478n, BigInt(system.pid));
    kernel.u64(thread + 0x480n, BigInt(0x10000 + 4 * i));
    links.push(thread + 0x2f8n);
  }
  append(guest, system.address + 0x30n, links);
}
