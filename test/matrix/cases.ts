/** The guests that every release is shown to convert right: what they are, how they reach us, what is to be expected. */
import type { ElfOptions } from '../guest/elf.ts';
import type { GenerationName } from '../guest/generations.ts';
import { buildGuest, type Guest, type GuestOptions } from '../guest/guest.ts';
import { buildTrueGuest, type TrueGuestOptions } from '../guest/true-guest.ts';

export interface MatrixCase {
  name: string;
  guest: GuestOptions;
  /** A guest of true size instead. */
  trueGuest?: TrueGuestOptions;
  /** Written by our own ELF writer with these options, where QEMU can't make it; else by a real QEMU. */
  elf?: ElfOptions;
  /**
   * A kdump instead of an ELF: flattened zlib by QEMU; the others, which Debian's QEMU can't write, by our own writer
   * with the real compressors.
   */
  format?: 'kdump-zlib' | 'kdump-lzo' | 'kdump-snappy' | 'kdump-raw-zlib' | 'pmemsave' | 'backend' | 'migrate';
  /** How the file reaches elf2dmp: compressed, through a pipe on standard input, or from QEMU's own hands. */
  via?: 'gzip' | 'zstd' | 'xz' | 'stdin' | 'fifo';
  /** First a crash dump of this type is made, and that is converted. */
  through?: 'full' | 'bitmap';
  /** Takes too long for every test run: `npm run matrix` has it. */
  slow?: boolean;
  /** All memory has to be searched. */
  searches?: boolean;
  /** Changes the guest before it is dumped: damage. */
  change?: (guest: Guest) => void;
  /** QEMU's paging mode (-p). */
  paging?: boolean;
  machineType?: 'pc' | 'q35';
  /** More arguments for elf2dmp. */
  args?: readonly string[];
  exitCode?: 0 | 3 | 5;
  /** Codes of the losses, all of them. */
  losses?: readonly string[];
  dumpType?: 'full' | 'bitmap';
  /** Processors whose registers the dump can't know. */
  unknown?: readonly number[];
  /** Modules that the debugger can still list. Default: all. */
  modules?: readonly string[];
  /** The kernel's header is gone: no name, no exports, no unwinding. */
  headless?: boolean;
  /** The debugger's complaints that are to be expected; default none. */
  complaints?: readonly RegExp[];
  /** The processor that the debugger opens on. Default: the first that is known. */
  opensOn?: number;
  /** Processors that show the captured frame. */
  captured?: readonly number[];
  /** Processors whose registers are known but can't be shown. */
  unshown?: readonly number[];
  /** Page-table root in the header, where it is not the kernel's. */
  fiveLevel?: boolean;
  crashFrom?: string;
}

/** The guest of a case. */
export const guestOf = (c: MatrixCase): Guest => (c.trueGuest ? buildTrueGuest(c.trueGuest) : buildGuest(c.guest));

const D1 = { code: 0xd1, parameters: [0x10n, 2n, 0n, 0xfffff8042c460004n], processor: 1 } as const;

export const CASES: readonly MatrixCase[] = [
  { name: 'live, encoded KDBG, 2 processors', guest: {} },
  { name: 'live, one processor', guest: { processors: 1 } },
  { name: 'live, plain KDBG, no decoys', guest: { kdbg: 'plain', decoys: false, seed: 2 } },
  {
    name: 'live, 16 processors in permuted order',
    guest: { processors: 16, order: [5, 0, 15, 2, 9, 1, 12, 3, 4, 14, 6, 7, 13, 8, 10, 11], ramMiB: 24, seed: 3 },
    machineType: 'q35',
  },
  { name: 'kernel in 2 MiB pages', guest: { kernelPages: '2m', seed: 4 } },
  { name: 'kernel in a 1 GiB page', guest: { kernelPages: '1g', seed: 5 } },
  { name: 'Windows 11 KDBG', guest: { build: 'win11', seed: 6 } },
  { name: 'Windows 7', guest: { build: 'win7', seed: 7 } },
  { name: 'Server 2003: no OffsetPrcbContext, frame in the PRCB', guest: { build: 'server2003', seed: 8 } },
  { name: 'one processor in user mode', guest: { processors: 3, user: [1], seed: 9 } },
  { name: 'all processors in user mode', guest: { user: [0, 1], seed: 10 } },
  ...[0x7000, 0x9000, 0xa000].map((kernelRootAt) => ({
    name: `KVA shadow, all in user mode, kernel root at KPCR+0x${kernelRootAt.toString(16)}`,
    guest: { user: [0, 1], kernelRootAt, seed: 11 },
  })),
  { name: 'KVA shadow, one in user mode', guest: { user: [0], kernelRootAt: 0x9000, seed: 12 } },
  {
    name: 'hanging: a DPC, a spin lock and its owner, a user loop, in permuted order',
    guest: {
      ...{ processors: 4, order: [2, 0, 3, 1], seed: 71, doing: { 0: 'driver', 1: 'dpc', 2: 'spin lock' }, user: [3] },
      lock: { number: 7, owner: 0, waiter: 2 },
    },
  },
  { name: 'hanging: all idle', guest: { doing: {}, seed: 72, kernelPages: '2m' } },
  {
    name: 'crashed, stop 0xD1, captured frame',
    guest: { crash: D1, seed: 13 },
    opensOn: 1,
    captured: [1],
    crashFrom: 'captured-frame',
  },
  {
    name: 'crashed, --context cpu',
    guest: { crash: D1, seed: 14 },
    args: ['--context', 'cpu'],
    opensOn: 1,
    crashFrom: 'captured-frame',
  },
  {
    name: 'crashed, no captured frame: told by the stack',
    guest: { crash: { ...D1, captured: false }, seed: 15 },
    opensOn: 1,
    crashFrom: 'stack',
  },
  {
    name: 'crashed, code sign-extended',
    guest: { crash: { ...D1, code: 0xc000021a, signExtended: true }, build: 'win7', seed: 16 },
    opensOn: 1,
    captured: [1],
    crashFrom: 'captured-frame',
  },
  {
    name: 'crashed, flag in a version 2 note',
    guest: { crash: { ...D1, captured: false }, seed: 17 },
    elf: { noteSize: 448, crashedCpu: 0 },
    opensOn: 1,
    crashFrom: 'input',
  },
  { name: 'CPUs that were never started', guest: { neverStarted: 2, seed: 18 } },
  { name: 'the first CPU in 32-bit code: the file says i386', guest: { firstIn32Bit: true, user: [1], seed: 91 } },
  {
    name: 'a CPU outside Windows (hypervisor)',
    guest: { processors: 3, foreign: [0], seed: 19 },
    exitCode: 3,
    losses: ['cpu-without-processor', 'processor-without-state'],
    unknown: [0],
    opensOn: 1,
  },
  {
    name: 'all CPUs outside Windows: found by search',
    searches: true,
    guest: { foreign: [0, 1], seed: 20 },
    exitCode: 3,
    losses: ['cpu-without-processor', 'processor-without-state'],
    unknown: [0, 1],
  },
  {
    name: 'a CPU note that is too short',
    guest: { seed: 21 },
    elf: { withoutNote: [0] },
    exitCode: 3,
    losses: ['cpu-note-short', 'processor-without-state'],
    unknown: [1],
  },
  { name: 'notes without kernel_gs_base', guest: { seed: 22 }, elf: { noteSize: 432 } },
  { name: 'program headers in reverse order', guest: { seed: 23 }, elf: { reversed: true } },
  {
    name: '5-level paging',
    guest: { la57: true, seed: 24 },
    exitCode: 3,
    losses: ['five-level-paging'],
    fiveLevel: true,
  },
  {
    name: 'paging mode (-p): overlapping headers, unlisted RAM',
    guest: { seed: 25 },
    paging: true,
    // RAM behind the last header, and the ROM: nothing in the file tells their address.
    exitCode: 3,
    losses: ['memory-unaddressed', 'ram-missing'],
  },
  {
    name: '60 runs: bitmap dump',
    guest: { seed: 26 },
    elf: { runs: sixtyRuns() },
    dumpType: 'bitmap',
    // Windows counts the pages between them as RAM.
    exitCode: 3,
    losses: ['ram-missing'],
  },
  { name: 'a full dump of a bitmap dump', guest: { seed: 28 }, through: 'bitmap' },
  {
    name: 'a bitmap dump of a full dump, with a CPU in a program',
    guest: { seed: 29, user: [1] },
    through: 'full',
    args: ['--type', 'bitmap'],
    dumpType: 'bitmap',
  },
  { name: '--type bitmap', guest: { seed: 27 }, args: ['--type', 'bitmap'], dumpType: 'bitmap' },
  { name: '--ram windows', guest: { seed: 28 }, args: ['--ram', 'windows'] },
  {
    name: 'PCIDs in CR3',
    guest: { seed: 40 },
    // TCG knows no PCIDs.
    elf: {},
    change: (guest) => {
      for (const cpu of guest.cpus) cpu.cr3 |= 0x5n;
    },
  },
  {
    name: '60 runs and a forged address near 2^52',
    guest: { seed: 41 },
    elf: { runs: [...sixtyRuns(), [2 ** 52 - 0x2000, 2 ** 52]] },
    dumpType: 'bitmap',
    exitCode: 3,
    losses: ['extents-too-far', 'ram-missing'],
  },
  {
    name: 'a forged address near 2^52 in a full dump',
    guest: { seed: 42 },
    elf: {
      runs: [
        [0, 0xa0000],
        [0x100000, 0x1000000],
        [2 ** 52 - 0x2000, 2 ** 52],
      ],
    },
  },
  { name: 'a processor in 32-bit code (WoW64)', guest: { processors: 3, wow64: [0], seed: 30 }, opensOn: 1 },
  {
    name: 'no CPU notes: start block',
    searches: true,
    guest: { seed: 31 },
    elf: { withoutNotes: true },
    exitCode: 3,
    losses: ['no-cpu-states', 'processor-without-state'],
    unknown: [0, 1],
  },
  {
    name: 'no CPU notes: self-map',
    searches: true,
    guest: { seed: 32, startBlock: false },
    elf: { withoutNotes: true },
    exitCode: 3,
    losses: ['no-cpu-states', 'processor-without-state'],
    unknown: [0, 1],
  },
  {
    name: 'NT_PRSTATUS notes only: no control registers',
    searches: true,
    guest: { user: [1], seed: 60 },
    elf: { prstatusOnly: null },
    exitCode: 3,
    losses: ['cpu-notes-missing'],
  },
  { name: 'VMCOREINFO note of Windows', guest: { vmcoreinfo: 'good', seed: 61 } },
  { name: 'VMCOREINFO note that is out of date', guest: { vmcoreinfo: 'stale', seed: 62 } },
  {
    name: "gdb's script: no notes but VMCOREINFO",
    guest: { vmcoreinfo: 'good', startBlock: false, seed: 63 },
    elf: { withoutNotes: true },
    exitCode: 3,
    losses: ['no-cpu-states', 'processor-without-state'],
    unknown: [0, 1],
  },
  {
    name: 'damage: the KDBG overwritten, a copy known by the VMCOREINFO note',
    guest: { vmcoreinfo: 'good', seed: 64, decoys: 'stale' },
    change: (guest) => {
      overwrite(guest, guest.truth.kdbg);
      // The copy serves where it is.
      const copy = guest.vmcoreinfo!.note.readBigUInt64LE(24 + 0x40);
      Object.assign(guest.truth, { kdbg: copy, kdbgEncoded: false });
    },
  },
  {
    name: 'raw memory (pmemsave)',
    searches: true,
    guest: { seed: 65 },
    format: 'pmemsave',
    exitCode: 3,
    losses: ['no-cpu-states', 'processor-without-state'],
    unknown: [0, 1],
  },
  {
    name: 'a memory-backend file of a q35 machine with memory above 4 GiB',
    searches: true,
    guest: { seed: 67, highMiB: 1024 },
    machineType: 'q35',
    format: 'backend',
    slow: true,
    exitCode: 3,
    losses: ['no-cpu-states', 'processor-without-state'],
    unknown: [0, 1],
  },
  { name: 'ELF in .gz', guest: { seed: 66 }, via: 'gzip' },
  { name: 'ELF in .zst', guest: { seed: 66 }, via: 'zstd' },
  { name: 'kdump in .xz', guest: { seed: 66 }, format: 'kdump-zlib', via: 'xz' },
  { name: 'ELF from QEMU through a pipe', guest: { seed: 66 }, via: 'fifo' },
  { name: 'flattened kdump from QEMU through a pipe', guest: { seed: 66 }, format: 'kdump-zlib', via: 'fifo' },
  { name: 'zstd on standard input', guest: { seed: 66 }, elf: {}, via: 'stdin' },
  {
    name: 'damage: all IDTs overwritten',
    guest: { seed: 33 },
    change: (guest) => {
      for (const p of guest.truth.processors) overwrite(guest, p.idt);
    },
    exitCode: 3,
    losses: ['structures-damaged'],
  },
  {
    name: "damage: the kernel's header page overwritten",
    guest: { seed: 34 },
    change: (guest) => overwrite(guest, guest.truth.kernelBase),
    exitCode: 3,
    losses: ['kernel-header-missing'],
    headless: true,
  },
  {
    name: 'damage: the first page of a KPCR and PRCB overwritten',
    guest: { seed: 35 },
    change: (guest) => overwrite(guest, guest.truth.processors[1]!.kpcr),
    exitCode: 3,
    losses: ['processor-damaged'],
  },
  {
    name: "damage: a PRCB's frame pointer leads to the kernel's header",
    guest: { seed: 43 },
    change: (guest) => guest.kernel.u64(guest.truth.processors[1]!.prcb + 0x85c0n, guest.truth.kernelBase),
    exitCode: 3,
    losses: ['no-context-frame'],
    unshown: [1],
  },
  {
    name: "damage: a PRCB's frame pointer leads to the module list",
    guest: { seed: 44 },
    change: (guest) =>
      guest.kernel.u64(guest.truth.processors[1]!.prcb + 0x85c0n, guest.truth.psLoadedModuleList & ~0xfn),
    exitCode: 3,
    losses: ['no-context-frame'],
    unshown: [1],
  },
  {
    name: "damage: a PRCB's pointer to its frame overwritten",
    guest: { seed: 36 },
    change: (guest) => overwrite(guest, guest.truth.processors[1]!.prcb + 0x85c0n),
    exitCode: 3,
    losses: ['no-context-frame'],
    unshown: [1],
  },
  {
    name: 'damage: two entries of KiProcessorBlock zeroed: the CPUs lead to their PRCBs',
    guest: { seed: 45, processors: 3, user: [2] },
    change: (guest) => guest.kernel.write(guest.truth.kdbgBlock.readBigUInt64LE(0x218) + 8n, Buffer.alloc(16)),
  },
  {
    name: 'damage: a module entry overwritten',
    guest: { seed: 37 },
    change: (guest) => overwrite(guest, guest.kernel.read(guest.truth.psLoadedModuleList + 8n, 8).readBigUInt64LE()),
    exitCode: 3,
    losses: ['modules-broken'],
    modules: ['ntoskrnl.exe', 'hal.dll'],
    complaints: [/^.Unable to read/, /^Missing image name/, /reload failed, module list may be incomplete/],
  },
  {
    name: 'damage: the KDBG overwritten',
    // What is left are stale copies, which must not be believed.
    guest: { seed: 38, decoys: 'stale' },
    change: (guest) => overwrite(guest, guest.truth.kdbg),
    exitCode: 5,
  },
  ...(['transition', 'prototype'] as const).map((how) => ({
    name: `a module entry and the KDBG in ${how} pages`,
    guest: { seed: 39 },
    change: (guest: Guest) => {
      retire(guest, guest.truth.kdbg, how);
      if (how === 'transition')
        retire(guest, guest.kernel.read(guest.truth.psLoadedModuleList, 8).readBigUInt64LE(), how);
    },
  })),
  { name: 'migration stream, pc', guest: { seed: 45, processors: 2, user: [1] }, format: 'migrate' },
  { name: 'migration stream, q35', guest: { seed: 46, processors: 2 }, format: 'migrate', machineType: 'q35' },
  { name: 'kdump-zlib, flattened', guest: { seed: 40 }, format: 'kdump-zlib' },
  { name: 'kdump-zlib, raw', guest: { seed: 41 }, format: 'kdump-raw-zlib' },
  { name: 'kdump-lzo', guest: { seed: 42 }, format: 'kdump-lzo' },
  { name: 'kdump-snappy', guest: { seed: 43 }, format: 'kdump-snappy' },
  {
    name: 'a run that ends within a page',
    guest: { seed: 29 },
    elf: {
      runs: [
        [0, 0xa0000],
        [0x100000, 0x1000000 - 0x800],
      ],
    },
    exitCode: 3,
    losses: ['partial-pages', 'ram-missing'],
  },
  ...generations(),
];

/** A guest of true size for each generation: live, crashed, behind KVA shadow, or without XSAVE. */
function generations(): MatrixCase[] {
  const crash = { code: 0x7e, parameters: [0xffffffff_c0000005n, 2n, 3n, 4n], processor: 1 } as const;
  const live = (generation: GenerationName, more: TrueGuestOptions = {}): MatrixCase => ({
    name: `Windows ${generation}, true size`,
    guest: {},
    trueGuest: { generation, ...more },
  });
  const crashed = (generation: GenerationName): MatrixCase => ({
    ...live(generation, { crash }),
    name: `Windows ${generation}, true size, crashed`,
    opensOn: 1,
    captured: [1],
    crashFrom: 'captured-frame',
  });
  const shadowed = (generation: GenerationName): MatrixCase => ({
    ...live(generation, { kvaShadow: true, user: [0, 1] }),
    name: `Windows ${generation}, true size, behind KVA shadow`,
  });
  return [
    live('2003'),
    crashed('2008'),
    live('7'),
    crashed('8.1'),
    live('1507'),
    { ...shadowed('1607'), slow: true },
    { ...crashed('1709'), slow: true },
    shadowed('1809'),
    { ...live('1909'), slow: true },
    crashed('2004'),
    { ...live('22H2', { xsave: false }), slow: true },
    { ...shadowed('11 21H2'), slow: true },
    live('11 23H2'),
    crashed('11 24H2'),
    { ...live('11 26H1'), slow: true },
  ];
}

/** Overwrites the page at a kernel address. */
function overwrite(guest: Guest, virtual: bigint): void {
  guest.memory.page(guest.kernel.translate(virtual)!).fill(0xcc);
}

/** Takes a kernel page out of the hardware's page tables, as Windows' memory manager does. */
function retire(guest: Guest, virtual: bigint, how: 'transition' | 'prototype'): void {
  const physical = BigInt(guest.kernel.translate(virtual)!);
  if (how === 'transition') {
    guest.kernel.setEntry(virtual, physical | 0x880n);
    return;
  }
  // The prototype entry lies in pool: a present one.
  const prototype = guest.truth.samples[0]!.virtual + 0x100n;
  guest.kernel.u64(prototype, physical | 0x121n);
  guest.kernel.setEntry(virtual, ((prototype & 0xffff_ffff_ffffn) << 16n) | 0x400n);
}

/** RAM without single pages near its end, which the guest does not use. */
function sixtyRuns(): [number, number][] {
  const runs: [number, number][] = [
    [0, 0xa0000],
    [0x100000, 0xe00000],
  ];
  for (let at = 0xe01000; runs.length < 60; at += 0x4000) runs.push([at, at + 0x3000]);
  return runs;
}
