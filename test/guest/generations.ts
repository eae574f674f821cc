/**
 * What differs between generations of x64 Windows, as literal offsets. Sources: [R] a real 19041 crash dump, [P] public
 * symbols or published constants, [G] a real NT-compatible kernel; entries marked "nearest" repeat the nearest known build's.
 */

export interface Generation {
  /** NtBuildNumber and SharedUserData; enablement packages move only these two on. */
  build: number;
  /** KdVersionBlock and the lab string. */
  baseBuild: number;
  ntMajor: number;
  ntMinor: number;
  lab: string;
  /** SharedUserData.NtBuildNumber is set: since Windows 10 [P]. */
  sharedBuild: boolean;
  /** Bytes of KDDEBUGGER_DATA64. */
  kdbgSize: number;
  encoded: boolean;
  /** KPRCB.ProcessorState, and the bytes from there to its ContextFrame. */
  processorState: 0x40 | 0x100;
  specialSize: 0xe0 | 0xf0;
  /** KPRCB.Context; undefined: the KDBG is older than that pointer. */
  contextPointer: number | undefined;
  prcbSize: number;
  /** KPRCB.KernelDirectoryTableBase, from the KPCR. */
  shadowRootAt: number | undefined;
  /** MMPFN: the byte with PageLocation, and OriginalPte. */
  pfn: { stateAt: 0x19 | 0x1a | 0x22; originalPteAt: 0x10 | 0x20 };
  /** Of a large free page, only the first entry has the state; the others say Bad, with bit 40 of u4 [P, 22631]. */
  residentPages: boolean;
  /** PML4 slot of the page tables' own mapping: fixed until it was randomised in 14393. */
  selfMapSlot: number;
  /** Where sessions have win32k and its friends; undefined: session space was given up. */
  session: bigint | undefined;
  /** PTEs that are pointers, neither valid nor in transition: since 22621 [P]. */
  rawPointers: boolean;
  image: 'modern' | 'old';
  kernelBase: bigint;
  kernelPages: '2m' | '4k';
  /** The boot processor's KPCR is a variable of the kernel, not page aligned. */
  bootKpcrInImage: boolean;
  /** KPCR + 0x108 leads to KdVersionBlock on processor 0 [G]; null on 19041 [R]. */
  kpcrVersionBlock: boolean;
  /** Bytes of EPROCESS.ImageFileName: 16 with a NUL, later 15. */
  nameBytes: 15 | 16;
  eprocess: { size: number; links: number; pid: number; name: number; parent: number; peb: number };
  kthread: { initialStack: number; stackLimit: number; stackBase: number; kernelStack: number; process: number };
  /** KUSER_SHARED_DATA.BootId [P]: since 10240. */
  bootId: boolean;
}

type Kthread = Generation['kthread'];
const KTHREAD_OLD: Kthread = {
  initialStack: 0x28,
  stackLimit: 0x30,
  stackBase: 0x278,
  kernelStack: 0x38,
  process: 0x70,
};
// [R] 19041's KDBG.
const KTHREAD_NEW: Kthread = {
  initialStack: 0x28,
  stackLimit: 0x30,
  stackBase: 0x38,
  kernelStack: 0x58,
  process: 0xb8,
};

const OLD = {
  sharedBuild: false,
  encoded: false,
  processorState: 0x40,
  specialSize: 0xe0,
  contextPointer: undefined,
  shadowRootAt: undefined,
  pfn: { stateAt: 0x1a, originalPteAt: 0x20 },
  residentPages: false,
  selfMapSlot: 0x1ed,
  session: 0xfffff960_00000000n,
  rawPointers: false,
  image: 'old',
  kernelBase: 0xfffff800_02a49000n,
  kernelPages: '4k',
  bootKpcrInImage: true,
  kpcrVersionBlock: false,
  nameBytes: 16,
  kthread: KTHREAD_OLD,
  bootId: false,
} as const;

const TEN = {
  ...OLD,
  ntMajor: 10,
  ntMinor: 0,
  sharedBuild: true,
  encoded: true,
  pfn: { stateAt: 0x22, originalPteAt: 0x10 },
  image: 'modern',
  session: 0xfffff961_00000000n,
  bootKpcrInImage: false,
  nameBytes: 15,
  kthread: KTHREAD_NEW,
  bootId: true,
} as const;

/** From 1803 on: ProcessorState at 0x100. From 14393 on: a random slot. */
const RANDOM = { selfMapSlot: 0x1b7, session: 0xffffbfde_00000000n, shadowRootAt: 0x7000 } as const;
const LATE = { ...TEN, ...RANDOM, processorState: 0x100, specialSize: 0xf0, kdbgSize: 0x380 } as const;

const EPROCESS_1607 = { size: 0x838, links: 0x2f0, pid: 0x2e8, name: 0x450, parent: 0x3e0, peb: 0x3f8 };
const EPROCESS_1709 = { size: 0x850, links: 0x2e8, pid: 0x2e0, name: 0x450, parent: 0x3e0, peb: 0x3f8 };
const EPROCESS_1903 = { size: 0x880, links: 0x2f0, pid: 0x2e8, name: 0x450, parent: 0x3e8, peb: 0x3f8 };
// [R] 19041: size, PEB and parent; the others [P].
const EPROCESS_2004 = { size: 0xa40, links: 0x448, pid: 0x440, name: 0x5a8, parent: 0x540, peb: 0x550 };
const EPROCESS_24H2 = { size: 0x840, links: 0x1d8, pid: 0x1d0, name: 0x338, parent: 0x2d0, peb: 0x2e0 };

const V1903 = {
  ...LATE,
  baseBuild: 18362,
  lab: '18362.1.amd64fre.19h1_release.190318-1202',
  contextPointer: 0x62c0, // nearest
  prcbSize: 0x7880,
  kernelBase: 0xfffff801_50e09000n,
  eprocess: EPROCESS_1903,
} as const;

// [R] PRCB, KDBG, sections; the kernel in 2 MiB pages.
const V2004 = {
  ...LATE,
  baseBuild: 19041,
  lab: '19041.1.amd64fre.vb_release.191206-1406',
  contextPointer: 0x85c0,
  prcbSize: 0xaf00,
  shadowRootAt: 0x9000,
  kernelBase: 0xfffff804_7ba00000n,
  kernelPages: '2m',
  eprocess: EPROCESS_2004,
} as const;

const V22H2 = {
  ...V2004,
  baseBuild: 22621,
  lab: '22621.1.amd64fre.ni_release.220506-1250',
  kdbgSize: 0x3a0,
  contextPointer: 0x89c0,
  prcbSize: 0xc000, // nearest
  shadowRootAt: 0xa000,
  residentPages: true,
  rawPointers: true,
  session: undefined,
} as const;

const V24H2 = {
  ...V22H2,
  baseBuild: 26100,
  lab: '26100.1.amd64fre.ge_release.240331-1435',
  contextPointer: 0x9000, // nearest
  shadowRootAt: 0xb000,
  eprocess: EPROCESS_24H2,
} as const;

export const GENERATIONS = {
  '2003': {
    ...OLD,
    build: 3790,
    baseBuild: 3790,
    ntMajor: 5,
    ntMinor: 2,
    lab: '3790.srv03_sp2_rtm.070216-1710',
    kdbgSize: 0x318,
    prcbSize: 0x2480,
    pfn: { stateAt: 0x19, originalPteAt: 0x20 },
    kernelBase: 0xfffff800_01000000n,
    bootKpcrInImage: false,
    kpcrVersionBlock: true,
    eprocess: { size: 0x400, links: 0xe0, pid: 0xd8, name: 0x268, parent: 0x1e0, peb: 0x2c0 },
  },
  '2008': {
    ...OLD,
    build: 6003,
    baseBuild: 6003,
    ntMajor: 6,
    ntMinor: 0,
    lab: '6003.20706.amd64fre.vistasp2_ldr.190904-1830',
    kdbgSize: 0x330,
    prcbSize: 0x3780,
    eprocess: { size: 0x3e8, links: 0xe8, pid: 0xe0, name: 0x238, parent: 0x1e0, peb: 0x188 },
  },
  '7': {
    ...OLD,
    build: 7601,
    baseBuild: 7601,
    ntMajor: 6,
    ntMinor: 1,
    lab: '7601.17514.amd64fre.win7sp1_rtm.101119-1850',
    kdbgSize: 0x340,
    contextPointer: 0x4bd8,
    prcbSize: 0x4d00,
    nameBytes: 15,
    eprocess: { size: 0x4d0, links: 0x188, pid: 0x180, name: 0x2e0, parent: 0x290, peb: 0x338 },
  },
  '8.1': {
    ...OLD,
    build: 9600,
    baseBuild: 9600,
    ntMajor: 6,
    ntMinor: 3,
    lab: '9600.17415.amd64fre.winblue_r4.141028-1500',
    kdbgSize: 0x360,
    encoded: true,
    contextPointer: 0x5968,
    prcbSize: 0x5b80,
    nameBytes: 15,
    bootKpcrInImage: false,
    kernelBase: 0xfffff803_1e08a000n,
    eprocess: { size: 0x728, links: 0x2e8, pid: 0x2e0, name: 0x438, parent: 0x3e0, peb: 0x3e8 },
    kthread: KTHREAD_NEW,
  },
  '1507': {
    ...TEN,
    build: 10240,
    baseBuild: 10240,
    lab: '10240.16384.amd64fre.th1.150709-1700',
    kdbgSize: 0x360,
    contextPointer: 0x62c0, // nearest
    prcbSize: 0x6a00,
    kernelBase: 0xfffff802_1ac0d000n,
    eprocess: { ...EPROCESS_1607, name: 0x448, peb: 0x3f8 },
  },
  '1607': {
    ...TEN,
    ...RANDOM,
    build: 14393,
    baseBuild: 14393,
    lab: '14393.0.amd64fre.rs1_release.160715-1616',
    kdbgSize: 0x368,
    contextPointer: 0x6380, // nearest
    prcbSize: 0x7880,
    kernelBase: 0xfffff803_3fc85000n,
    eprocess: EPROCESS_1607,
  },
  '1709': {
    ...TEN,
    ...RANDOM,
    build: 16299,
    baseBuild: 16299,
    lab: '16299.15.amd64fre.rs3_release.170928-1534',
    kdbgSize: 0x368,
    contextPointer: 0x6380, // nearest
    prcbSize: 0x7880,
    kernelBase: 0xfffff801_4de0e000n,
    eprocess: EPROCESS_1709,
  },
  '1809': {
    ...LATE,
    build: 17763,
    baseBuild: 17763,
    lab: '17763.1.amd64fre.rs5_release.180914-1434',
    contextPointer: 0x62c0, // nearest
    prcbSize: 0x7880,
    kernelBase: 0xfffff805_610b3000n,
    eprocess: EPROCESS_1709,
  },
  '1903': { ...V1903, build: 18362 },
  '1909': { ...V1903, build: 18363 },
  '2004': { ...V2004, build: 19041 },
  '22H2': { ...V2004, build: 19045 },
  '11 21H2': {
    ...V2004,
    build: 22000,
    baseBuild: 22000,
    lab: '22000.1.amd64fre.co_release.210604-1628',
    kernelBase: 0xfffff802_33400000n,
  },
  '11 23H2': { ...V22H2, build: 22631 },
  '11 24H2': { ...V24H2, build: 26100 },
  '11 25H2': { ...V24H2, build: 26200 },
  '11 26H1': {
    ...V24H2,
    build: 28000,
    baseBuild: 28000,
    lab: '28000.1.amd64fre.br_release.251017-1200',
    kernelBase: 0xfffff806_14a00000n,
  },
} as const satisfies Record<string, Generation>;

export type GenerationName = keyof typeof GENERATIONS;
