/** What a build of Windows is called: Microsoft's release names. */

interface Release {
  build: number;
  client: string | undefined;
  server: string | undefined;
  /** The build whose kernel it runs: an enablement package made it of that one. undefined: its own. */
  of?: number;
}

const RELEASES: readonly Release[] = [
  { build: 2600, client: 'Windows XP', server: undefined },
  { build: 3790, client: 'Windows XP x64', server: 'Windows Server 2003' },
  { build: 6000, client: 'Windows Vista', server: undefined },
  { build: 6001, client: 'Windows Vista SP1', server: 'Windows Server 2008' },
  { build: 6002, client: 'Windows Vista SP2', server: 'Windows Server 2008 SP2' },
  // Updates of 2018 and later for Server 2008.
  { build: 6003, client: undefined, server: 'Windows Server 2008 SP2' },
  { build: 7600, client: 'Windows 7', server: 'Windows Server 2008 R2' },
  { build: 7601, client: 'Windows 7 SP1', server: 'Windows Server 2008 R2 SP1' },
  { build: 9200, client: 'Windows 8', server: 'Windows Server 2012' },
  { build: 9600, client: 'Windows 8.1', server: 'Windows Server 2012 R2' },
  { build: 10240, client: 'Windows 10 1507', server: undefined },
  { build: 10586, client: 'Windows 10 1511', server: undefined },
  { build: 14393, client: 'Windows 10 1607', server: 'Windows Server 2016' },
  { build: 15063, client: 'Windows 10 1703', server: undefined },
  { build: 16299, client: 'Windows 10 1709', server: 'Windows Server 1709' },
  { build: 17134, client: 'Windows 10 1803', server: 'Windows Server 1803' },
  { build: 17763, client: 'Windows 10 1809', server: 'Windows Server 2019' },
  { build: 18362, client: 'Windows 10 1903', server: 'Windows Server 1903' },
  { build: 18363, client: 'Windows 10 1909', server: 'Windows Server 1909', of: 18362 },
  { build: 19041, client: 'Windows 10 2004', server: 'Windows Server 2004' },
  { build: 19042, client: 'Windows 10 20H2', server: 'Windows Server 20H2', of: 19041 },
  { build: 19043, client: 'Windows 10 21H1', server: undefined, of: 19041 },
  { build: 19044, client: 'Windows 10 21H2', server: undefined, of: 19041 },
  { build: 19045, client: 'Windows 10 22H2', server: undefined, of: 19041 },
  { build: 20348, client: undefined, server: 'Windows Server 2022' },
  { build: 22000, client: 'Windows 11 21H2', server: undefined },
  { build: 22621, client: 'Windows 11 22H2', server: undefined },
  { build: 22631, client: 'Windows 11 23H2', server: undefined, of: 22621 },
  { build: 25398, client: undefined, server: 'Windows Server 23H2' },
  { build: 26100, client: 'Windows 11 24H2', server: 'Windows Server 2025' },
  { build: 26200, client: 'Windows 11 25H2', server: undefined, of: 26100 },
  { build: 28000, client: 'Windows 11 26H1', server: undefined },
];

/**
 * The build whose kernel a build runs. An enablement package moves on NtBuildNumber and SharedUserData; the version
 * text and KdVersionBlock, and some dump headers, keep the base build.
 */
export const baseBuild = (build: number): number => RELEASES.find((r) => r.build === build)?.of ?? build;

/** The first build of each NT version. */
const NT_VERSIONS: readonly (readonly [since: number, version: string])[] = [
  [10240, '10.0'],
  [9600, '6.3'],
  [9200, '6.2'],
  [7600, '6.1'],
  [6000, '6.0'],
  [3790, '5.2'],
  [2600, '5.1'],
];

/** The NT version of a build, where nothing says it. */
export const ntVersionOf = (build: number): string | undefined => NT_VERSIONS.find(([since]) => build >= since)?.[1];

/** What Windows calls a build; null where that is unknown. */
export function releaseName(build: number, productType: number): string | null {
  const release = RELEASES.find((r) => r.build === build);
  return (productType === 1 ? release?.client : release?.server) ?? null;
}

/** VER_SUITE_* of winnt.h, as the debugger's `vertarget` calls them. */
const SUITES: readonly (readonly [bit: number, name: string])[] = [
  [0x1, 'SmallBusiness'],
  [0x2, 'Enterprise'],
  [0x4, 'BackOffice'],
  [0x8, 'CommunicationServer'],
  [0x10, 'TerminalServer'],
  [0x20, 'SmallBusinessRestricted'],
  [0x40, 'EmbeddedNT'],
  [0x80, 'DataCenter'],
  [0x100, 'SingleUserTS'],
  [0x200, 'Personal'],
  [0x400, 'Blade'],
  [0x800, 'EmbeddedRestricted'],
  [0x1000, 'SecurityAppliance'],
  [0x2000, 'StorageServer'],
  [0x4000, 'ComputeServer'],
  [0x8000, 'HomeServer'],
  [0x20000, 'MultiUserTS'],
];

/** Words for a suite mask; bits without a known name as hex. */
export function suiteNames(mask: number): string[] {
  const names = SUITES.filter(([bit]) => (mask & bit) !== 0).map(([, name]) => name);
  const rest = SUITES.reduce((left, [bit]) => left & ~bit, mask) >>> 0;
  return rest === 0 ? names : [...names, `0x${rest.toString(16)}`];
}
