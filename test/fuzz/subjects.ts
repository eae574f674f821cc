/** What is fuzzed: small files of every kind, and where in them the structures are that readers and locator believe. */
import { gzipSync } from 'node:zlib';
import { type Arm64Guest, buildArm64Guest } from '../guest/arm64.ts';
import { writeArm64Elf } from '../guest/arm64-elf.ts';
import { writeElf } from '../guest/elf.ts';
import { addFunctionTable, buildGuest, type Guest, type GuestOptions } from '../guest/guest.ts';
import { flatten, kdumpOf } from '../guest/kdump.ts';
import { writeStream } from '../guest/qevm.ts';
import { writeTriage, writeWinDump } from '../guest/win-dump.ts';
import { buildGuest32, type Guest32, type GuestOptions32 } from '../guest/x86/guest.ts';

/** Bytes of a file that mean something: mutations go here, now and then elsewhere. */
export interface Place {
  /** `page table`, `KDBG`, … */
  what: string;
  offset: number;
  length: number;
  /** Damage here changes what is known, not what is found: the oracle does not hold. */
  truth?: boolean;
  /** In the guest's memory: no reader looks there. */
  inMemory?: boolean;
}

export interface Subject {
  name: string;
  file: Buffer;
  places: readonly Place[];
  guest: Guest;
  /** Opening it takes milliseconds. */
  slow?: boolean;
  /** Where a CONTEXT of its machine has instruction and stack pointer; default: x64's. Of 8 bytes, or 4. */
  frame?: { instructionPointer: number; stackPointer: number; bytes?: 4 };
  /** File offset of a physical address, where memory lies in the file as it is. */
  offsetOf?: (physical: number) => number | undefined;
}

const GUESTS: Record<string, GuestOptions> = {
  live: { seed: 1, processors: 3, user: [1] },
  shadowed: { seed: 2, user: [0, 1], kernelRootAt: 0x9000 },
  crashed: {
    seed: 3,
    build: 'win11',
    crash: { code: 0xd1, parameters: [0x10n, 2n, 0n, 0xfffff8042c460004n], processor: 1 },
    vmcoreinfo: 'good',
  },
  old: { seed: 4, build: 'server2003', kdbg: 'plain' },
  hanging: {
    ...{ seed: 9, processors: 3, doing: { 0: 'spin lock', 1: 'dpc' }, user: [2] },
    lock: { number: 7, owner: 1, waiter: 0 },
  },
};

/** Every subject, made anew each time: tests change them in place. */
export function subjects(): Subject[] {
  const made: Subject[] = [];
  for (const [name, options] of Object.entries(GUESTS)) {
    const guest = buildGuest(options);
    addFunctionTable(guest);
    const file = writeElf(guest);
    made.push({
      name: `ELF, ${name}`,
      file,
      guest,
      places: [...elfPlaces(file), ...memoryPlaces(guest, elfOffset(file))],
      offsetOf: elfOffset(file),
    });
  }
  const guest = buildGuest({ seed: 5 });
  const withoutNotes = writeElf(guest, { withoutNotes: true });
  made.push({
    name: 'ELF without notes',
    file: withoutNotes,
    guest,
    places: memoryPlaces(guest, elfOffset(withoutNotes)),
  });
  const kdump = kdumpOf(guest);
  const { bitmap, descriptors, data } = kdump.places;
  const kdumpPlaces: Place[] = [
    { what: 'header', offset: 0, length: 0x200 },
    { what: 'sub header', offset: 0x1000, length: 0x68 },
    { what: 'notes', offset: 0x1068, length: 0x600, truth: true },
    { what: 'bitmap', offset: bitmap, length: 0x400, truth: true },
    { what: 'descriptors', offset: descriptors, length: 24 * 64, truth: true },
    { what: 'page data', offset: data, length: kdump.file.length - data, truth: true },
  ];
  made.push({ name: 'kdump', file: kdump.file, guest, places: kdumpPlaces });
  const flat = flatten(kdump);
  made.push({
    name: 'flattened kdump',
    file: flat,
    guest,
    places: [
      { what: 'flattened header', offset: 0, length: 0x20 },
      { what: 'records', offset: 0x1000, length: flat.length - 0x1000, truth: true },
    ],
  });
  for (const [type, name] of [
    [1, 'full crash dump'],
    [5, 'bitmap crash dump'],
    [2, 'summary crash dump'],
    [10, "crash dump by WinDbg's .dump"],
  ] as const) {
    const dumped = buildGuest({ seed: 6, kdbg: 'plain' });
    const file = writeWinDump(dumped, type);
    const pages = { 1: 0x2000, 2: 0x5000, 5: 0x5000, 10: 0x2050 }[type];
    made.push({
      name,
      file,
      guest: dumped,
      places: [
        { what: 'dump header', offset: 0, length: 0x1060, truth: true },
        ...(type === 1
          ? []
          : [{ what: 'list of pages', offset: 0x2000, length: Math.min(0x238, pages - 0x2000), truth: true }]),
        ...memoryPlaces(dumped, (physical) => {
          if (physical >= 0x1000 && physical < 0xa0000) return pages + physical - 0x1000;
          return physical >= 0x100000 ? pages + physical - 0x61000 : undefined;
        }),
      ],
    });
  }
  const minidumped = buildGuest({ seed: 8, kdbg: 'plain', processors: 3, user: [2] });
  const mini = writeTriage(minidumped);
  const listed = (what: string, offset: number, length: number): Place => ({ what, offset, length, truth: true });
  made.push({
    name: 'triage dump',
    file: mini.file,
    guest: minidumped,
    places: [
      listed('dump header', 0, 0x1060),
      listed('triage header', 0x2000, 0x80),
      listed('data blocks', mini.places.blocks, 16 * mini.places.blockCount),
      listed('drivers', mini.places.drivers, 0x90 * 3),
      listed('names', mini.places.strings, 0x80),
      listed('unloaded drivers', mini.places.unloaded, 8 + 0x38 * 50),
      listed('PRCB', mini.places.prcb, 0x200),
      listed('KDBG', mini.places.kdbg, 0x380),
      listed('blocks', 0x2080, mini.places.prcb - 0x2080),
    ],
  });
  for (const pages of ['plain', 'xbzrle'] as const) {
    const migrated = buildGuest({ seed: 7, processors: 2 });
    const file = writeStream(migrated, { pages });
    // Memory ends where the first CPU's section begins.
    const devices = file.indexOf(Buffer.from('\x03cpu\0\0\0\0\0\0\0\x0c', 'latin1')) - 5;
    made.push({
      name: `migration stream, ${pages}`,
      file,
      guest: migrated,
      slow: pages === 'xbzrle',
      places: [
        { what: 'stream header', offset: 0, length: 0x80, truth: true },
        { what: 'RAM records', offset: 0x80, length: devices - 0x80, truth: true },
        { what: 'device state', offset: devices, length: file.length - devices, truth: true },
      ],
    });
  }
  made.push(...ARM64_GUESTS.map(([name, options]) => arm64Subject(name, buildArm64Guest(options))));
  made.push(...X86_GUESTS.map(([name, options]) => x86Subject(name, buildGuest32(options))));
  return made;
}

const ARM64_GUESTS = [
  ['live', { seed: 21, processors: 3, user: [1] }],
  ['without architecture state', { seed: 22, archState: false, kernelPages: '2m' }],
  ['crashed', { seed: 23, crash: { code: 0xd1, parameters: [1n, 2n, 3n, 4n], processor: 1 } }],
] as const;

function arm64Subject(name: string, guest: Arm64Guest): Subject {
  const file = writeArm64Elf(guest);
  const { truth, kernel } = guest;
  const offsetOf = elfOffset(file);
  const places = elfPlaces(file);
  const add = (what: string, physical: number | undefined, length: number, changesTruth?: boolean) => {
    const offset = physical === undefined ? undefined : offsetOf(physical);
    if (offset !== undefined)
      places.push({ what, offset, length, inMemory: true, ...(changesTruth ? { truth: true } : {}) });
  };
  const virtual = (what: string, address: bigint, length: number, changesTruth?: boolean) =>
    add(what, kernel.translate(address), Math.min(length, 0x1000 - Number(address & 0xfffn)), changesTruth);
  add('root', truth.root, 0x1000);
  for (const process of truth.processes) add("a process's root", process.root, 0x1000);
  for (const table of tablesBelow(guest.memory, truth.root)) add('page table', table, 0x1000);
  virtual('SharedUserData', 0xfffff780_00000000n, 0x400, true);
  virtual('kernel header', truth.kernelBase, 0x400);
  virtual('export tables', truth.kernelBase + 0x2000n, 0x1000);
  virtual('exception directory', truth.kernelBase + 0x8000n, 8 * 10);
  virtual('KDBG', truth.kdbg, truth.kdbgBlock.length);
  virtual('PsLoadedModuleList', truth.psLoadedModuleList, 16);
  virtual('PsActiveProcessHead', truth.psActiveProcessHead, 16);
  for (const p of truth.processes) virtual('EPROCESS', p.address, 0xc80);
  virtual('KiProcessorBlock', truth.kdbgBlock.readBigUInt64LE(0x218), 8 * truth.processors.length);
  virtual('KiBugCheckData', truth.kdbgBlock.readBigUInt64LE(0x88), 40, true);
  for (const p of truth.processors) {
    virtual('KPCR', p.kpcr, 0x980);
    virtual('PRCB with its saved state', p.prcb, 0x680);
    virtual('frame pointer', p.prcb + 0x8a0n, 16);
    virtual('thread', kernel.read(p.prcb + 8n, 8).readBigUInt64LE(), 0x100);
    if (p.returns.length > 0) virtual('stack', guest.cpus[p.cpu]!.sp, 0xc0);
  }
  return {
    name: `ARM64 ELF, ${name}`,
    file,
    places,
    frame: { instructionPointer: 0x108, stackPointer: 0x100 },
    offsetOf,
    // As far as the oracle asks.
    guest: {
      ramBytes: guest.ramBytes,
      build: { build: 22000, prcbContext: 0x8a0 },
      kernel,
      // The level in the low bits, as a code selector has it: 0 is EL1, 3 is EL0.
      cpus: guest.cpus.map(({ pc, sp, pstate }) => ({
        cs: (pstate & 0xcn) === 0n ? 3 : 0,
        regs: { rip: pc, rsp: sp },
      })),
      truth: {
        ...truth,
        captured: truth.captured && { ...truth.captured, rip: truth.captured.pc, rsp: truth.captured.sp },
        processors: truth.processors.map((p) => ({ ...p, specialRegisters: p.prcb + 0x40n })),
      },
    } as unknown as Guest,
  };
}

const X86_CRASH = { code: 0xd1, parameters: [1, 2, 3, 4], processor: 1 } as const;
const X86_GUESTS: readonly (readonly [string, GuestOptions32])[] = [
  ['live with PAE', { seed: 31, processors: 3, user: [1] }],
  ['live without PAE', { seed: 32, build: 'xp', pae: false, user: [0], largePages: true }],
  ['crashed with PAE', { seed: 33, build: 'win10', crash: X86_CRASH, vmcoreinfo: 'good' }],
  ['crashed without PAE', { seed: 34, pae: false, crash: X86_CRASH }],
];

/** As 32-bit addresses are kept: sign-extended. */
const wide = (address: number | bigint): bigint => BigInt.asUintN(64, BigInt.asIntN(32, BigInt(address)));

const narrow = (address: bigint): number => Number(BigInt.asUintN(32, address));

function x86Subject(name: string, guest: Guest32): Subject {
  const file = writeElf(guest);
  const { truth, kernel, build } = guest;
  const offsetOf = elfOffset(file);
  const places = elfPlaces(file);
  const add = (what: string, physical: number | undefined, length: number, changesTruth?: boolean) => {
    const offset = physical === undefined ? undefined : offsetOf(physical);
    if (offset !== undefined)
      places.push({ what, offset, length, inMemory: true, ...(changesTruth ? { truth: true } : {}) });
  };
  const virtual = (what: string, address: number, length: number, changesTruth?: boolean) =>
    add(what, kernel.translate(address), Math.min(length, 0x1000 - (address & 0xfff)), changesTruth);
  /** Of a pointer in the KDBG. */
  const variable = (at: number) => truth.kdbgBlock.readUInt32LE(at);
  const pointedTo = (at: number) => kernel.read(variable(at), 4).readUInt32LE();
  if (guest.pae) add('root', truth.root, 32);
  for (const directory of [...kernel.directories, ...guest.user.directories]) add('page directory', directory, 0x1000);
  for (const table of kernel.tables()) add('page table', table, 0x1000);
  virtual('SharedUserData', 0xffdf0000, 0x400, true);
  virtual('kernel header', truth.kernelBase, 0x400);
  virtual('exports', truth.kernelBase + 0x1000, 40);
  virtual('export tables', truth.kernelBase + 0x2000, 0x1000);
  virtual('KDBG', truth.kdbg, truth.kdbgBlock.length);
  virtual('PsLoadedModuleList', truth.psLoadedModuleList, 8);
  for (const { entry } of truth.modules) virtual('module entry', entry, 0x5c);
  virtual('PsActiveProcessHead', truth.psActiveProcessHead, 8);
  for (const { address } of truth.processes) virtual('EPROCESS', address, build.eprocess.size);
  virtual('KiProcessorBlock', variable(0x218), 4 * truth.processors.length);
  virtual('KiBugCheckData', variable(0x88), 20, true);
  virtual('unloaded drivers', pointedTo(0x220), 0x18 * 50);
  virtual('MmPhysicalMemoryBlock', pointedTo(0x270), 0x40);
  for (const p of truth.processors) {
    virtual('KPCR', p.kpcr, 0x120);
    virtual('PRCB', p.prcb, 0x40);
    virtual('IDT', p.idt, 0x100);
    virtual('GDT', p.gdt, 0x40);
    virtual('thread', p.thread, 0x1a0);
    if (build.prcbContext !== undefined) virtual('frame pointer', p.prcb + build.prcbContext, 8);
    virtual('stack', Number(guest.cpus[p.cpu]!.regs.rsp), 0xc0);
  }
  return {
    name: `x86 ELF, ${name}`,
    file,
    places,
    frame: { instructionPointer: 0xb8, stackPointer: 0xc4, bytes: 4 },
    offsetOf,
    // As far as the oracle asks.
    guest: {
      ramBytes: guest.ramBytes,
      build,
      kernel: {
        read: (at: bigint, length: number) => kernel.read(narrow(at), length),
        translate: (at: bigint) => kernel.translate(narrow(at)),
      },
      cpus: guest.cpus.map(({ cs, regs }) => ({ cs, regs: { rip: wide(regs.rip), rsp: wide(regs.rsp) } })),
      truth: {
        ...truth,
        kernelBase: wide(truth.kernelBase),
        kdbg: wide(truth.kdbg),
        psLoadedModuleList: wide(truth.psLoadedModuleList),
        psActiveProcessHead: wide(truth.psActiveProcessHead),
        pfnDatabaseVariable: wide(truth.pfnDatabaseVariable),
        exports: new Map([...truth.exports].map(([name, at]) => [name, wide(at)])),
        modules: truth.modules.map((m) => ({ ...m, base: wide(m.base) })),
        captured: truth.captured && {
          ...truth.captured,
          ...{ rip: wide(truth.captured.eip), rsp: wide(truth.captured.esp) },
        },
        processors: truth.processors.map((p) => ({
          ...{ number: p.number, cpu: p.cpu, kpcr: wide(p.kpcr), prcb: wide(p.prcb), idt: wide(p.idt) },
          ...{ gdt: wide(p.gdt), context: wide(p.context), specialRegisters: wide(p.specialRegisters) },
        })),
      },
    } as unknown as Guest,
  };
}

/** Compressed: only their containers are looked at, so any byte may be hit. */
export function packedSubject(): Subject {
  const guest = buildGuest({ seed: 6 });
  const file = gzipSync(writeElf(guest));
  return { name: 'gzip', file, guest, places: [{ what: 'gzip', offset: 0, length: file.length, truth: true }] };
}

function elfPlaces(file: Buffer): Place[] {
  const phoff = Number(file.readBigUInt64LE(0x20));
  const headers = file.readUInt16LE(0x38);
  const notes = Number(file.readBigUInt64LE(phoff + 8));
  return [
    { what: 'ELF header', offset: 0, length: 64, truth: true },
    { what: 'program headers', offset: phoff, length: 56 * headers, truth: true },
    { what: 'notes', offset: notes, length: Number(file.readBigUInt64LE(phoff + 0x20)), truth: true },
  ];
}

/** File offset of a physical address, by the program headers. */
function elfOffset(file: Buffer): (physical: number) => number | undefined {
  const phoff = Number(file.readBigUInt64LE(0x20));
  const loads = Array.from({ length: file.readUInt16LE(0x38) }, (_, i) => phoff + 56 * i)
    .filter((p) => file.readUInt32LE(p) === 1)
    .map((p) => [8, 0x18, 0x20].map((field) => Number(file.readBigUInt64LE(p + field))) as [number, number, number]);
  return (physical) => {
    const load = loads.find(([, start, size]) => physical >= start && physical < start + size);
    return load && load[0] + physical - load[1];
  };
}

function memoryPlaces(guest: Guest, offsetOf: (physical: number) => number | undefined): Place[] {
  const places: Place[] = [];
  const add = (what: string, physical: number | undefined, length: number, truth?: boolean) => {
    const offset = physical === undefined ? undefined : offsetOf(physical);
    if (offset !== undefined) places.push({ what, offset, length, inMemory: true, ...(truth ? { truth } : {}) });
  };
  const virtual = (what: string, address: bigint, length: number, truth?: boolean) =>
    add(what, guest.kernel.translate(address), Math.min(length, 0x1000 - Number(address & 0xfffn)), truth);
  const { truth } = guest;
  add('root', truth.root, 0x1000);
  for (const table of pageTables(guest)) add('page table', table, 0x1000);
  virtual('SharedUserData', 0xfffff780_00000000n, 0x400, true);
  virtual('kernel header', truth.kernelBase, 0x400);
  virtual('exports', truth.kernelBase + 0x1000n, 40);
  virtual('export tables', truth.kernelBase + 0x2000n, 0x1000);
  virtual('unwind data', truth.kernelBase + 0x7200n, 8);
  virtual('exception directory', truth.kernelBase + 0x8000n, 12 * 19);
  virtual('KDBG', truth.kdbg, truth.kdbgBlock.length);
  virtual('PsLoadedModuleList', truth.psLoadedModuleList, 16);
  const first = guest.kernel.read(truth.psLoadedModuleList, 8).readBigUInt64LE();
  virtual('module entry', first, 0xa0);
  virtual('PsActiveProcessHead', truth.psActiveProcessHead, 16);
  for (const p of truth.processes) virtual('EPROCESS', p.address, guest.build.eprocess.size);
  const unloaded = guest.kernel.read(truth.kdbgBlock.readBigUInt64LE(0x220), 8).readBigUInt64LE();
  virtual('unloaded drivers', unloaded, 0x28 * 50);
  virtual('exports', truth.kernelBase + 0x1000n, 0x28);
  virtual('resources', truth.kernelBase + 0x7400n, 0x100);
  virtual('KiProcessorBlock', truth.kdbgBlock.readBigUInt64LE(0x218), 8 * truth.processors.length);
  virtual('KiBugCheckData', truth.kdbgBlock.readBigUInt64LE(0x88), 40, true);
  virtual('MmPhysicalMemoryBlock', truth.kdbgBlock.readBigUInt64LE(0x270), 8);
  for (const p of truth.processors) {
    virtual('KPCR', p.kpcr, 0x180);
    const { rsp } = guest.cpus[p.cpu]!.regs;
    if (p.returns.length > 0) virtual('stack', rsp, 0xc0);
    virtual('PRCB', p.prcb, 0x200);
    virtual('IDT', p.idt, 0x200);
    if (guest.options.doing) {
      virtual('spin locks', p.prcb + 0x670n, 17 * 16);
      virtual('DPC state', p.prcb + 0x3110n, 0x20);
      virtual('thread', guest.kernel.read(p.prcb + 8n, 8).readBigUInt64LE(), 0x600);
    }
    if (guest.build.prcbContext !== undefined) virtual('frame pointer', p.prcb + BigInt(guest.build.prcbContext), 8);
  }
  return places;
}

/** Physical pages of ARM64 page tables below a root. */
function tablesBelow(memory: Arm64Guest['memory'], root: number): Set<number> {
  const tables = new Set<number>();
  const visit = (table: number, level: number) => {
    const page = memory.page(table);
    for (let i = 0; i < 512; i++) {
      const entry = page.readBigUInt64LE(8 * i);
      const below = Number(entry & 0xffff_ffff_f000n);
      if ((entry & 3n) !== 3n || below === root || tables.has(below)) continue;
      tables.add(below);
      if (level < 2) visit(below, level + 1);
    }
  };
  visit(root, 0);
  return tables;
}

/** Physical pages of the kernel's page tables below the root. */
function pageTables(guest: Guest): Set<number> {
  const tables = new Set<number>();
  const visit = (table: number, level: number) => {
    const page = guest.memory.page(table);
    for (let i = 0; i < 512; i++) {
      const entry = page.readBigUInt64LE(8 * i);
      const next = Number(entry & 0x000f_ffff_ffff_f000n);
      if ((entry & 1n) === 0n || (entry & 0x80n) !== 0n || next === table || tables.has(next)) continue;
      tables.add(next);
      if (level > 2) visit(next, level - 1);
    }
  };
  visit(guest.kernel.root, guest.kernel.levels);
  return tables;
}
