// The smallest kernel dump of a 64-bit Windows that the debugger accepts and finds its way in: two processors, a
// kernel image, a driver, two processes, 384 KiB of memory. Every offset is literal, nothing comes from the product: this tests the
// test harness, and is what experiments with the debugger start from.

/** The memory is mapped here from physical address 0 on, as one large page. */
export const BASE = 0xfffff80000000000n;
export const va = (physical: number) => BASE + BigInt(physical);

/** Where things are in physical memory. */
export const AT = {
  pml4: 0x1000,
  sharedUserData: 0x7000,
  kdbg: 0x8000,
  moduleList: 0x8800,
  processHead: 0x8810,
  modules: [0x8900, 0x8a00],
  names: 0x8b00,
  processorBlock: 0x8c00,
  bugCheckData: 0x8d00,
  buildLab: 0x8e00,
  gdt: 0x9000,
  idt: 0x9800,
  pcr: [0x10000, 0x20000],
  context: [0x1a000, 0x2a000],
  stack: 0x30000,
  threads: [0x34000, 0x34800],
  processes: [0x35000, 0x35800],
  /** The page tables of the second process, and its only page. */
  userTables: 0x36000,
  userPage: 0x3a000,
  images: [0x40000, 0x48000],
  end: 0x60000,
} as const;

export const OFFSET = { prcb: 0x180, processorState: 0x100, contextFrame: 0x1f0, context: 0x85c0 } as const;
export const BUILD = 19041;

/** Mapped in the second processor's process alone. */
export const USER = { address: 0x7ff712340000n, text: 'only in the second process' } as const;

/** Where the stacks say that the kernel's function was called from: in the driver. */
export const returnAddress = va(AT.images[1] + 0x1009);

const GENERAL = 'rax rcx rdx rbx rsp rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15'.split(' ');

/** What went into processor `cpu`. */
export function tinyRegisters(cpu: number): Record<string, bigint> {
  const registers: Record<string, bigint> = {};
  for (const [n, name] of GENERAL.entries())
    registers[name] = 0x1111_0000_0000_0000n * BigInt(cpu + 1) + BigInt(n) + 0x100n;
  return {
    ...registers,
    rsp: va(AT.stack + 0x1000 * cpu + 0x800),
    rip: va(AT.images[0] + 0x1000 + 0x20 * cpu),
    efl: 0x246n,
    cs: 0x10n,
    ss: 0x18n,
    ds: 0x2bn,
    es: 0x2bn,
    fs: 0x53n,
    gs: 0x2bn,
    cr0: 0x80050031n,
    cr3: BigInt(AT.pml4),
    cr4: 0x350ef8n,
    gdtr: va(AT.gdt),
    gdtl: 0x57n,
    idtr: va(AT.idt),
    idtl: 0xfffn,
    tr: 0x40n,
  };
}

export interface TinyDump {
  /** Physical memory from 0 to AT.end; page 0 is in no run. */
  readonly memory: Buffer;
  /** The 0x2000 bytes of the header. */
  readonly header: Buffer;
}

function pe(memory: Buffer, at: number, exportName: string, pdb: string) {
  memory.write('MZ', at);
  memory.writeUInt32LE(0x80, at + 0x3c);
  const nt = at + 0x80;
  memory.write('PE\0\0', nt);
  memory.writeUInt16LE(0x8664, nt + 4);
  memory.writeUInt16LE(1, nt + 6); // sections
  memory.writeUInt32LE(0x5f000000, nt + 8); // TimeDateStamp
  memory.writeUInt16LE(0xf0, nt + 0x14);
  memory.writeUInt16LE(0x22, nt + 0x16);
  memory.writeUInt16LE(0x20b, nt + 0x18);
  memory.writeUInt32LE(0x1000, nt + 0x28); // AddressOfEntryPoint
  memory.writeBigUInt64LE(va(at), nt + 0x30); // ImageBase
  memory.writeUInt32LE(0x1000, nt + 0x38);
  memory.writeUInt32LE(0x200, nt + 0x3c);
  memory.writeUInt32LE(0x8000, nt + 0x50); // SizeOfImage
  memory.writeUInt32LE(0x400, nt + 0x54);
  memory.writeUInt32LE(16, nt + 0x84);
  memory.writeUInt32LE(0x2000, nt + 0x88); // exports
  memory.writeUInt32LE(0x100, nt + 0x8c);
  memory.writeUInt32LE(0x3000, nt + 0x88 + 6 * 8); // debug directory
  memory.writeUInt32LE(0x1c, nt + 0x8c + 6 * 8);
  memory.write('.text', nt + 0x108);
  memory.writeUInt32LE(0x7000, nt + 0x110);
  memory.writeUInt32LE(0x1000, nt + 0x114);
  memory.writeUInt32LE(0x7000, nt + 0x118);
  memory.writeUInt32LE(0x1000, nt + 0x11c);
  memory.writeUInt32LE(0x60000020, nt + 0x12c);
  // One export, "Entry", at 0x1000; two functions of sub rsp,28h; call; add rsp,28h; ret.
  const exports = at + 0x2000;
  for (const [offset, value] of [
    [0x0c, 0x2050],
    [0x10, 1],
    [0x14, 1],
    [0x18, 1],
    [0x1c, 0x2028],
    [0x20, 0x202c],
    [0x24, 0x2030],
    [0x28, 0x1000],
    [0x2c, 0x2040],
  ] as const)
    memory.writeUInt32LE(value, exports + offset);
  memory.write('Entry\0', exports + 0x40);
  memory.write(`${exportName}\0`, exports + 0x50);
  for (const code of [0x1000, 0x1020]) memory.write('4883ec28e8f7ffffff904883c428c3', at + code, 'hex');
  const debug = at + 0x3000;
  memory.writeUInt32LE(2, debug + 0x0c);
  memory.writeUInt32LE(24 + pdb.length + 1, debug + 0x10);
  memory.writeUInt32LE(0x3040, debug + 0x14);
  memory.writeUInt32LE(0x3040, debug + 0x18);
  memory.write('RSDS', debug + 0x40);
  memory.write('00112233445566778899aabbccddeeff', debug + 0x44, 'hex');
  memory.writeUInt32LE(1, debug + 0x54);
  memory.write(`${pdb}\0`, debug + 0x58);
}

export function buildTinyDump(bug: { code: number; parameters: readonly bigint[] }): TinyDump {
  const memory = Buffer.alloc(AT.end);
  const u16 = (at: number, value: number) => memory.writeUInt16LE(value, at);
  const u32 = (at: number, value: number) => memory.writeUInt32LE(value, at);
  const u64 = (at: number, value: bigint | number) => memory.writeBigUInt64LE(BigInt.asUintN(64, BigInt(value)), at);

  // Page tables: 0xfffff80000000000 a 2 MiB page, 0xfffff78000000000 SharedUserData.
  u64(0x1000 + 496 * 8, 0x2063);
  u64(0x1000 + 495 * 8, 0x3063);
  u64(0x1000 + 493 * 8, 0x1063); // the tables themselves
  u64(0x2000, 0x4063);
  u64(0x3000, 0x5063);
  u64(0x4000, 0x00e3);
  u64(0x5000, 0x6063);
  u64(0x6000, 0x7063);
  const user = AT.sharedUserData;
  u16(user + 0x2c, 0x8664);
  u16(user + 0x2e, 0x8664);
  memory.write('C:\\Windows', user + 0x30, 'utf16le');
  u32(user + 0x260, BUILD);
  u32(user + 0x264, 1);
  u32(user + 0x26c, 10);
  u32(user + 0x2d0, 0x110);

  // Kernel and a driver.
  const modules = [
    { image: AT.images[0], file: '\\SystemRoot\\system32\\ntoskrnl.exe' },
    { image: AT.images[1], file: '\\SystemRoot\\System32\\drivers\\tiny.sys' },
  ] as const;
  pe(memory, AT.images[0], 'ntoskrnl.exe', 'ntkrnlmp.pdb');
  pe(memory, AT.images[1], 'tiny.sys', 'tiny.pdb');
  const links = [AT.moduleList, ...AT.modules];
  for (const [n, link] of links.entries()) {
    u64(link, va(links[(n + 1) % links.length]!));
    u64(link + 8, va(links.at(n - 1)!));
  }
  let name: number = AT.names;
  for (const [n, { image, file }] of modules.entries()) {
    const entry = AT.modules[n]!;
    const base = file.slice(file.lastIndexOf('\\') + 1);
    u64(entry + 0x30, va(image));
    u64(entry + 0x38, va(image + 0x1000));
    u32(entry + 0x40, 0x8000);
    for (const [at, from] of [
      [0x48, 0],
      [0x58, file.length - base.length],
    ] as const) {
      u16(entry + at, (file.length - from) * 2);
      u16(entry + at + 2, (file.length - from) * 2);
      u64(entry + at + 8, va(name + from * 2));
    }
    u32(entry + 0x9c, 0x5f000000);
    memory.write(file, name, 'utf16le');
    name += file.length * 2;
  }
  u64(AT.processHead, va(AT.processHead));
  u64(AT.processHead + 8, va(AT.processHead));

  // The debugger's data block.
  const kdbg = AT.kdbg;
  u64(kdbg, va(kdbg));
  u64(kdbg + 8, va(kdbg));
  memory.write('KDBG', kdbg + 0x10);
  u32(kdbg + 0x14, 0x380);
  for (const [at, value] of [
    [0x18, AT.images[0]],
    [0x48, AT.moduleList],
    [0x50, AT.processHead],
    [0x88, AT.bugCheckData],
    [0xc0, AT.bugCheckData + 0x40],
    [0x208, AT.buildLab],
    [0x218, AT.processorBlock],
  ] as const)
    u64(kdbg + at, va(value));
  for (const [at, value] of [
    [0x29a, 0xf0], // Teb
    [0x2a0, 0x220], // ApcProcess
    [0x2a8, 0xa40], // SizeEProcess
    [0x2aa, 0x550], // Peb
    [0x2ae, 0x28], // DirectoryTableBase
    [0x2b0, 0x9000], // SizePrcb
    [0x2b4, 8], // CurrentThread
    [0x2bc, OFFSET.contextFrame],
    [0x2be, 0x24], // Number
    [0x2e0, 0x9200], // SizePcr
    [0x2e2, 0x18],
    [0x2e4, 0x20],
    [0x2e6, OFFSET.prcb],
    [0x2f2, OFFSET.processorState],
    [0x2f4, 0x10],
    [0x2f6, 0x18],
    [0x2f8, 0x30],
    [0x2fa, 0x33],
    [0x2fc, 0x2b],
    [0x2fe, 0x53],
    [0x302, 0x40],
    [0x304, 0x23],
    [0x306, 0x53],
    [0x338, OFFSET.context],
  ] as const)
    u16(kdbg + at, value);
  memory.write('19041.1.amd64fre.vb_release.191206-1406\0', AT.buildLab);
  u64(AT.bugCheckData, bug.code);
  for (const [n, value] of bug.parameters.entries()) u64(AT.bugCheckData + 8 + n * 8, value);

  for (const [at, value] of [
    [0x10, 0x00209b0000000000n],
    [0x18, 0x00cf93000000ffffn],
    [0x20, 0x00cffb000000ffffn],
    [0x28, 0x00cff3000000ffffn],
    [0x30, 0x0020fb0000000000n],
    [0x50, 0x0040f30000003c00n],
  ] as const)
    u64(AT.gdt + at, value);

  // The second process: the kernel's part of the page tables, and one page of its own.
  const [pml4, pdpt, pd, pt] = [0, 1, 2, 3].map((n) => AT.userTables + n * 0x1000) as [number, number, number, number];
  memory.copy(memory, pml4, AT.pml4, AT.pml4 + 0x1000);
  const index = (shift: bigint) => Number((USER.address >> shift) & 511n) * 8;
  u64(pml4 + index(39n), pdpt + 0x67);
  u64(pdpt + index(30n), pd + 0x67);
  u64(pd + index(21n), pt + 0x67);
  u64(pt + index(12n), AT.userPage + 0x67);
  memory.write(USER.text, AT.userPage);

  // Processors.
  for (const [cpu, pcr] of AT.pcr.entries()) {
    const registers = tinyRegisters(cpu);
    const prcb = pcr + OFFSET.prcb;
    u64(AT.processorBlock + cpu * 8, va(prcb));
    u64(pcr, va(AT.gdt));
    u64(pcr + 0x18, va(pcr));
    u64(pcr + 0x20, va(prcb));
    u64(pcr + 0x38, va(AT.idt));
    u32(prcb + 0x24, cpu);
    const thread = AT.threads[cpu]!;
    const process = AT.processes[cpu]!;
    u64(prcb + 8, va(thread));
    u64(thread + 0x220, va(process));
    u64(process + 0x28, cpu === 0 ? AT.pml4 : AT.userTables);
    u64(prcb + OFFSET.context, va(AT.context[cpu]!));
    const special = prcb + OFFSET.processorState;
    u64(special, registers['cr0']!);
    u64(special + 0x10, registers['cr3']!);
    u64(special + 0x18, registers['cr4']!);
    u16(special + 0x56, Number(registers['gdtl']));
    u64(special + 0x58, registers['gdtr']!);
    u16(special + 0x66, Number(registers['idtl']));
    u64(special + 0x68, registers['idtr']!);
    u16(special + 0x70, Number(registers['tr']));
    u64(special + 0xa8, va(pcr));
    writeContext(memory, AT.context[cpu]!, registers);
    u64(AT.stack + 0x1000 * cpu + 0x800, returnAddress); // RIP is at the start of a function
  }

  // The header.
  const header = Buffer.alloc(0x2000, 'PAGE');
  const h32 = (at: number, value: number) => header.writeUInt32LE(value, at);
  const h64 = (at: number, value: bigint | number) => header.writeBigUInt64LE(BigInt.asUintN(64, BigInt(value)), at);
  header.write('PAGEDU64');
  h32(0x08, 0xf);
  h32(0x0c, BUILD);
  h64(0x10, AT.pml4);
  h64(0x18, va(AT.bugCheckData + 0x40));
  h64(0x20, va(AT.moduleList));
  h64(0x28, va(AT.processHead));
  h32(0x30, 0x8664);
  h32(0x34, AT.pcr.length);
  h32(0x38, bug.code);
  for (const [n, value] of bug.parameters.entries()) h64(0x40 + n * 8, value);
  header.fill(0, 0x60, 0x80);
  h64(0x80, va(kdbg));
  const pages = AT.end / 0x1000 - 1;
  h32(0x88, 1);
  h64(0x90, pages);
  h64(0x98, 1);
  h64(0xa0, pages);
  header.fill(0, 0x348, 0x348 + 0x4d0);
  writeContext(header, 0x348, tinyRegisters(0));
  header.fill(0, 0xf00, 0xf98);
  h32(0xf98, 1);
  h64(0xfa0, 0x2000 + pages * 0x1000);
  h64(0xfa8, 0x01d9_0000_0000_0000n);
  header.fill(0, 0xfb0, 0x1030);
  h64(0x1030, 3_723n * 10_000_000n);
  header.fill(0, 0x1038, 0x1060);
  h32(0x1040, 1);
  h32(0x1044, 0x110);
  return { memory, header };
}

/** A CONTEXT that holds control, integer and segment registers. */
export function writeContext(into: Buffer, at: number, registers: Record<string, bigint>, flags = 0x100007): void {
  into.writeUInt32LE(flags, at + 0x30);
  into.writeUInt32LE(0x1f80, at + 0x34);
  for (const [n, name] of ['cs', 'ds', 'es', 'fs', 'gs', 'ss'].entries())
    into.writeUInt16LE(Number(registers[name]), at + 0x38 + n * 2);
  into.writeUInt32LE(Number(registers['efl']), at + 0x44);
  for (const [n, name] of GENERAL.entries()) into.writeBigUInt64LE(registers[name]!, at + 0x78 + n * 8);
  into.writeBigUInt64LE(registers['rip']!, at + 0xf8);
  into.writeUInt32LE(0x1f80, at + 0x118);
}

/** The file of a full dump. */
export function fullDump({ header, memory }: TinyDump): Buffer {
  return Buffer.concat([header, memory.subarray(0x1000)]);
}

/** The file of a bitmap dump whose pages start at `firstPage`. */
export function bitmapDump({ header, memory }: TinyDump, firstPage: number, type = 5, magic = 'FDMP'): Buffer {
  const head = Buffer.alloc(firstPage);
  header.copy(head);
  head.writeUInt32LE(type, 0xf98);
  const pages = memory.length / 0x1000;
  head.write(`${magic}DUMP`, 0x2000);
  head.writeBigUInt64LE(BigInt(firstPage), 0x2020);
  head.writeBigUInt64LE(BigInt(pages - 1), 0x2028);
  head.writeBigUInt64LE(BigInt(pages), 0x2030);
  for (let page = 1; page < pages; page++) head[0x2038 + (page >> 3)]! |= 1 << (page & 7);
  head.writeBigUInt64LE(BigInt(firstPage + (pages - 1) * 0x1000), 0xfa0);
  return Buffer.concat([head, memory.subarray(0x1000)]);
}
