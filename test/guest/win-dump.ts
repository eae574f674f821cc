/** Writes a guest as Windows' own crash dump writer leaves it: by literal offsets, never by the product. */
import type { Guest, GuestCpu } from './guest.ts';

const RUNS = (guest: Guest): [from: number, to: number][] => [
  [0x1000, 0xa0000],
  [0x100000, guest.ramBytes],
];

/** Places in a triage dump that `writeTriage` made. */
export interface TriagePlaces {
  blocks: number;
  blockCount: number;
  drivers: number;
  strings: number;
  unloaded: number;
  prcb: number;
  stack: number;
  kdbg: number;
}

/** A triage dump (type 4) of the first processor, or the one that crashed, in an order of parts unlike the product's. */
export function writeTriage(guest: Guest): { file: Buffer; places: TriagePlaces } {
  const full = writeWinDump(guest, 1);
  const { truth, kernel, build } = guest;
  const current = truth.processors[guest.options.crash?.processor ?? 0]!;
  const frame = kernel.read(current.context, 0x4d0);
  const head = Buffer.from(full.subarray(0, 0x2000));
  frame.copy(head, 0x348);
  head.writeUInt32LE(4, 0xf98);
  head.writeUInt32LE(0xcff, 0x1038);
  const triage = Buffer.alloc(0x80);
  const parts: Buffer[] = [head, triage];
  let end = 0x2080;
  const add = (bytes: Buffer, align = 8): number => {
    const at = Math.ceil(end / align) * align;
    parts.push(Buffer.alloc(at - end), bytes);
    end = at + bytes.length;
    return at;
  };
  const u32 = (at: number, value: number) => triage.writeUInt32LE(value, at);
  const blocks: [address: bigint, offset: number, size: number][] = [];
  const block = (address: bigint, size: number) => blocks.push([address, add(kernel.read(address, size), 4), size]);
  const rsp = frame.readBigUInt64LE(0x98);
  const stackSize = rsp < 1n << 63n ? 0 : 0x1000 - Number(rsp & 0xfffn);
  const stack = add(stackSize > 0 ? kernel.read(rsp, stackSize) : Buffer.alloc(0));
  block(truth.kernelBase, 0x1000);
  block(truth.kernelBase + 0x1000n, 0x9000);
  for (const p of truth.processors) {
    block(p.prcb, 0x200);
    if (build.prcbContext !== undefined) block(p.prcb + BigInt(build.prcbContext), 8);
    block(p.context, 0x4d0);
    block(p.gdt, 0x58);
  }
  const table = truth.kdbgBlock.readBigUInt64LE(0x218);
  block(table, 8 * truth.processors.length);
  const rip = frame.readBigUInt64LE(0xf8);
  if (rip >= 1n << 63n) block(rip - 0x80n, 0x100);
  // Overlaps another, as Windows' own do.
  block(truth.kernelBase + 0x800n, 0x900);
  const prcb = add(kernel.read(current.prcb, truth.kdbgBlock.readUInt16LE(0x2b0)));
  const strings: number[] = truth.modules.map(({ name }) => {
    const path = `\\SystemRoot\\system32\\${name}`;
    const text = Buffer.alloc(6 + 2 * path.length);
    text.writeUInt32LE(path.length);
    text.write(path, 4, 'utf16le');
    return add(text);
  });
  const drivers = Buffer.alloc(0x90 * truth.modules.length);
  truth.modules.forEach((m, i) => {
    const at = 0x90 * i;
    drivers.writeUInt32LE(strings[i]!, at);
    drivers.writeBigUInt64LE(m.base, at + 0x38);
    drivers.writeUInt32LE(m.size, at + 0x48);
    drivers.writeUInt32LE(0x12345, at + 0x80);
    drivers.writeUInt32LE(0x5e0f1e2b, at + 0x88);
  });
  const driverList = add(drivers);
  const unloaded = Buffer.alloc(8 + 0x38 * truth.unloaded.length);
  unloaded.writeBigUInt64LE(BigInt(truth.unloaded.length));
  truth.unloaded.forEach(({ name, from, to }, i) => {
    const at = 8 + 0x38 * i;
    unloaded.writeUInt16LE(2 * Math.min(12, name.length), at);
    unloaded.write(name.slice(0, 12), at + 0x10, 'utf16le');
    unloaded.writeBigUInt64LE(from, at + 0x28);
    unloaded.writeBigUInt64LE(to, at + 0x30);
  });
  const unloadedAt = add(unloaded);
  const kdbg = add(truth.kdbgBlock);
  const list = Buffer.alloc(16 * blocks.length);
  [...blocks].reverse().forEach(([address, offset, size], i) => {
    list.writeBigUInt64LE(address, 16 * i);
    list.writeUInt32LE(offset, 16 * i + 8);
    list.writeUInt32LE(size, 16 * i + 12);
  });
  const listAt = add(list);
  const valid = add(Buffer.from('TRGD'));
  u32(0x04, end);
  u32(0x08, valid);
  u32(0x0c, 0x348);
  u32(0x10, 0xf00);
  u32(0x18, unloadedAt);
  u32(0x1c, prcb);
  u32(0x28, stackSize > 0 ? stack : 0);
  u32(0x2c, stackSize);
  u32(0x30, driverList);
  u32(0x34, truth.modules.length);
  triage.writeBigUInt64LE(rsp, 0x48);
  u32(0x70, kdbg);
  u32(0x74, truth.kdbgBlock.length);
  u32(0x78, listAt);
  u32(0x7c, blocks.length);
  return {
    file: Buffer.concat(parts),
    places: {
      blocks: listAt,
      blockCount: blocks.length,
      drivers: driverList,
      strings: strings[0]!,
      unloaded: unloadedAt,
      prcb,
      stack,
      kdbg,
    },
  };
}

/** Those whose pages are of all memory: by Windows, and by WinDbg's `.dump` (8, 9, 10). */
export type WinDumpType = 1 | 2 | 5 | 6 | 8 | 9 | 10;

/**
 * A dump of any type, each with all memory. The guest's KDBG has to be plain; its CPUs' registers are put into the PRCBs.
 */
export function writeWinDump(guest: Guest, type: WinDumpType = 1): Buffer {
  const { truth, kernel, build } = guest;
  for (const p of truth.processors) {
    const cpu = guest.cpus[p.cpu]!;
    if (truth.captured?.processor !== p.number) kernel.write(p.context, context(cpu));
    kernel.write(p.specialRegisters, special(cpu));
  }
  const runs = RUNS(guest);
  const pages = runs.reduce((sum, [from, to]) => sum + (to - from) / 0x1000, 0);
  const header = Buffer.alloc(0x2000, 'PAGE');
  const u32 = (at: number, value: number) => header.writeUInt32LE(value, at);
  const u64 = (at: number, value: bigint | number) => header.writeBigUInt64LE(BigInt(value), at);
  header.write('PAGEDU64', 0, 'latin1');
  u32(0x8, 0xf);
  u32(0xc, build.build);
  u64(0x10, truth.root);
  u64(0x18, truth.pfnDatabaseVariable);
  u64(0x20, truth.psLoadedModuleList);
  u64(0x28, truth.psActiveProcessHead);
  u32(0x30, 0x8664);
  u32(0x34, truth.processors.length);
  u32(0x38, truth.bugCheck?.code ?? 0x161);
  for (let i = 0; i < 4; i++) u64(0x40 + 8 * i, truth.bugCheck?.parameters[i] ?? 0n);
  u64(0x80, truth.kdbg);
  u32(0x88, runs.length);
  u64(0x90, pages);
  runs.forEach(([from, to], i) => {
    u64(0x98 + 16 * i, from / 0x1000);
    u64(0xa0 + 16 * i, (to - from) / 0x1000);
  });
  // The exception, as a real 19041 writes it: flags 1, and what it has no use for is left.
  u32(0xf00, 0x80000003);
  u32(0xf04, 1);
  u64(0xf08, 0);
  u64(0xf10, truth.captured?.rip ?? guest.cpus[truth.processors[0]!.cpu]!.regs.rip);
  u32(0xf18, 0);
  u32(0xf98, type);
  u64(0xfa8, truth.systemTime);
  u64(0x1030, truth.upTime);
  u32(0x1040, truth.productType);
  u32(0x1044, truth.suiteMask);
  const memory = runs.map(([from, to]) => guest.memory.flat(from, to));
  if (type === 1) {
    u64(0xfa0, 0x2000 + pages * 0x1000);
    return Buffer.concat([header, ...memory]);
  }
  if (type >= 8) return Buffer.concat([...ranged(header, runs), ...memory]);
  const bits = guest.ramBytes / 0x1000;
  // Windows begins the pages at a page of the file, some way behind the map.
  const map = Buffer.alloc(0x3000);
  let mapAt = 0x38;
  if (type === 2) {
    map.write('SDMPDUMP', 0, 'latin1');
    map.writeUInt32LE(0x5000, 0xc);
    map.writeUInt32LE(bits, 0x10);
    map.writeUInt32LE(pages, 0x14);
    map.writeUInt32LE(bits, 0x18);
    mapAt = 0x28;
  } else {
    map.write(type === 5 ? 'FDMPDUMP' : 'SDMPDUMP', 0, 'latin1');
    map.writeBigUInt64LE(0x5000n, 0x20);
    map.writeBigUInt64LE(BigInt(pages), 0x28);
    map.writeBigUInt64LE(BigInt(bits), 0x30);
  }
  for (const [from, to] of runs) {
    for (let pfn = from / 0x1000; pfn < to / 0x1000; pfn++) map[mapAt + (pfn >> 3)]! |= 1 << (pfn & 7);
  }
  u64(0xfa0, 0x5000 + pages * 0x1000);
  return Buffer.concat([header, map, ...memory]);
}

/** Header and ranges as the engine's own `.dump` writes them: it leaves the header's runs unset. */
function ranged(header: Buffer, runs: readonly (readonly [from: number, to: number])[]): Buffer[] {
  header.fill('PAGE', 0x88, 0x98 + 16 * runs.length);
  const second = Buffer.alloc(0x30 + 16 * runs.length);
  second.writeUInt32LE(0x40, 0);
  second.write('RDMPDUMP', 4, 'latin1');
  second.writeBigUInt64LE(BigInt(0x10 + 16 * runs.length), 0x10);
  second.writeBigUInt64LE(BigInt(0x2000 + second.length), 0x18);
  second.writeUInt32LE(runs.length, 0x20);
  let pages = 0;
  runs.forEach(([from, to], i) => {
    second.writeBigUInt64LE(BigInt(from / 0x1000), 0x30 + 16 * i);
    second.writeBigUInt64LE(BigInt((to - from) / 0x1000), 0x38 + 16 * i);
    pages += (to - from) / 0x1000;
  });
  second.writeBigUInt64LE(BigInt(pages), 0x28);
  header.writeBigUInt64LE(BigInt(0x2000 + second.length + pages * 0x1000 - 0x2000), 0xfa0);
  return [header, second];
}

function context({ regs, cs, ss, ds, es, fs, gs }: GuestCpu): Buffer {
  const frame = Buffer.alloc(0x4d0);
  frame.writeUInt32LE(0x10001f, 0x30);
  frame.writeUInt32LE(0x1f80, 0x34);
  [cs, ds, es, fs, gs, ss].forEach((selector, i) => {
    frame.writeUInt16LE(selector, 0x38 + 2 * i);
  });
  frame.writeUInt32LE(Number(regs.rflags & 0xffffffffn), 0x44);
  const names = ['rax', 'rcx', 'rdx', 'rbx', 'rsp', 'rbp', 'rsi', 'rdi', 'r8', 'r9', 'r10', 'r11'] as const;
  [...names, ...(['r12', 'r13', 'r14', 'r15', 'rip'] as const)].forEach((name, i) => {
    frame.writeBigUInt64LE(regs[name], 0x78 + 8 * i);
  });
  frame.writeUInt32LE(0x1f80, 0x118);
  return frame;
}

function special(cpu: GuestCpu): Buffer {
  const registers = Buffer.alloc(0xd8);
  registers.writeBigUInt64LE(cpu.cr0, 0);
  registers.writeBigUInt64LE(cpu.cr3, 0x10);
  registers.writeBigUInt64LE(cpu.cr4, 0x18);
  registers.writeUInt16LE(cpu.gdt.limit, 0x56);
  registers.writeBigUInt64LE(cpu.gdt.base, 0x58);
  registers.writeUInt16LE(cpu.idt.limit, 0x66);
  registers.writeBigUInt64LE(cpu.idt.base, 0x68);
  registers.writeUInt16LE(cpu.tr, 0x70);
  registers.writeBigUInt64LE(cpu.gsBase, 0xa8);
  registers.writeBigUInt64LE(cpu.kernelGsBase, 0xb0);
  return registers;
}
