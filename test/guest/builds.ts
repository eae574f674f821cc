/** What differs between builds of Windows, as literal offsets. Where a build was not checked, the nearest known one's values stand. */

export interface Build {
  build: number;
  ntMajor: number;
  ntMinor: number;
  /** Bytes of KDDEBUGGER_DATA64. */
  kdbgSize: number;
  /** KPRCB.Context, a pointer; undefined: the frame is in the PRCB itself. */
  prcbContext: number | undefined;
  /** KPRCB.ProcessorState, which begins with the special registers. */
  processorState: number;
  /** Bytes from the special registers to the CONTEXT behind them. */
  specialSize: number;
  /** KPRCB.Number. */
  prcbNumber: number;
  /** SharedUserData.NtBuildNumber is set. */
  sharedBuild: boolean;
  /** KDBG is kept encoded while the system runs. */
  encoded: boolean;
  lab: string;
  /** KPCR + 0x108 leads to KdVersionBlock on processor 0; null on x64 since. */
  kpcrVersionBlock: boolean;
  /** The byte of an MMPFN that has PageLocation. */
  pageLocation: 0x19 | 0x1a | 0x22;
  eprocess: { size: number; links: number; pid: number; name: number; parent: number; peb: number };
}

const OLD = { size: 0x400, links: 0xe0, pid: 0xd8, name: 0x268, parent: 0x1e0, peb: 0x2c0 };
const WIN7 = { size: 0x4d0, links: 0x188, pid: 0x180, name: 0x2e0, parent: 0x290, peb: 0x338 };
const WIN11 = { size: 0x840, links: 0x1d8, pid: 0x1d0, name: 0x338, parent: 0x2d0, peb: 0x2e0 };
const WIN10 = { size: 0xa40, links: 0x448, pid: 0x440, name: 0x5a8, parent: 0x540, peb: 0x550 };

export const BUILDS = {
  server2003: {
    build: 3790,
    ntMajor: 5,
    ntMinor: 2,
    kdbgSize: 0x318,
    prcbContext: undefined,
    processorState: 0x40,
    specialSize: 0xe0,
    prcbNumber: 0x24,
    sharedBuild: false,
    encoded: false,
    lab: '3790.srv03_sp2_rtm.070216-1710',
    kpcrVersionBlock: true,
    pageLocation: 0x19,
    eprocess: OLD,
  },
  win7: {
    build: 7601,
    ntMajor: 6,
    ntMinor: 1,
    kdbgSize: 0x340,
    prcbContext: 0x4bd8,
    processorState: 0x40,
    specialSize: 0xe0,
    prcbNumber: 0x24,
    sharedBuild: false,
    encoded: false,
    lab: '7601.17514.amd64fre.win7sp1_rtm.101119-1850',
    kpcrVersionBlock: false,
    pageLocation: 0x1a,
    eprocess: WIN7,
  },
  win10: {
    build: 19041,
    ntMajor: 10,
    ntMinor: 0,
    kdbgSize: 0x380,
    prcbContext: 0x85c0,
    processorState: 0x100,
    specialSize: 0xf0,
    prcbNumber: 0x24,
    sharedBuild: true,
    encoded: true,
    lab: '19041.1.amd64fre.vb_release.191206-1406',
    kpcrVersionBlock: false,
    pageLocation: 0x22,
    eprocess: WIN10,
  },
  win11: {
    build: 26100,
    ntMajor: 10,
    ntMinor: 0,
    kdbgSize: 0x3a0,
    prcbContext: 0x9000,
    processorState: 0x100,
    specialSize: 0xf0,
    prcbNumber: 0x24,
    sharedBuild: true,
    encoded: true,
    lab: '26100.1.amd64fre.ge_release.240331-1435',
    kpcrVersionBlock: false,
    pageLocation: 0x22,
    eprocess: WIN11,
  },
} as const satisfies Record<string, Build>;

export type BuildName = keyof typeof BUILDS;
