/** Which Windows: from KdVersionBlock, NtBuildNumber and SharedUserData, whichever exist, compared. */
import { isKernelAddress } from '../core/bits.ts';
import { hex64, type VirtualAddress, va } from '../core/units.ts';
import { KdVersion, readKdVersion } from '../formats/win-kernel.ts';
import type { AddressSpace } from '../memory/address-space.ts';
import type { Evidence } from './evidence.ts';
import type { Kdbg } from './kdbg.ts';
import type { KernelImage } from './kernel-image.ts';
import { findExport } from './pe-image.ts';
import type { Processor } from './processors.ts';
import { baseBuild } from './releases.ts';
import type { SharedData } from './shared-user-data.ts';

const STEP = 'Windows version';
const FREE_BUILD = 0xf;
const MAX_LAB = 128;

/** What Windows says of its version. */
export interface WindowsVersion {
  build: number;
  /** 0xf on free builds, 0xc on checked ones. */
  majorVersion: number;
  kdSecondaryVersion: number;
  /** `19041.1.amd64fre.vb_release.191206-1406` */
  lab: string | undefined;
  kdVersionBlock: VirtualAddress | undefined;
}

/** Where a version is looked for. */
export interface VersionSources {
  space: AddressSpace;
  kernel: KernelImage;
  kdbg: Kdbg;
  processors: readonly Processor[];
  shared: SharedData;
}

/** undefined where nothing names the build. Adds a warning to the image's diagnostics where the sources disagree. */
export function findVersion(sources: VersionSources, evidence: Evidence): WindowsVersion | undefined {
  const { space, kernel, kdbg, shared } = sources;
  const block = findKdVersionBlock(sources, evidence);
  const symbol = findExport(space, kernel, 'NtBuildNumber');
  const exported = symbol === undefined ? undefined : space.read(symbol, 4)?.readUInt32LE();
  const lab = readLab(space, kdbg.fields.NtBuildLab);
  const builds: [string, number | undefined][] = [
    ['KdVersionBlock', block?.fields.MinorVersion],
    ['NtBuildNumber', exported === undefined ? undefined : exported & 0xffff],
    ['SharedUserData', shared.ntBuildNumber ? shared.ntBuildNumber & 0xffff : undefined],
    // Kernels that are compatible to Windows begin theirs with a date.
    ['NtBuildLab', lab === undefined ? undefined : Number(/^(\d{4,5})\./.exec(lab)?.[1] ?? 0)],
  ];
  const known = builds.filter((s): s is [string, number] => s[1] !== undefined && s[1] !== 0);
  const [first] = known;
  const build = first && newestOf(outvoted(first[1], known) ?? first[1], known);
  if (!first || build === undefined) {
    evidence.reject(STEP, builds.map(([name]) => name).join(', '), 'none of them is present');
    return undefined;
  }
  evidence.accept(STEP, `build ${build}`, known.map(([name, build]) => `${name} ${build}`).join(', '));
  if (known.some(([, other]) => other !== build && other !== baseBuild(build))) {
    space.image.diagnostics.add(
      'warning',
      'build-disagrees',
      `the build number differs between its sources: ${known.map(([name, build]) => `${name} ${build}`).join(', ')}; ${build} was used`,
    );
  }
  // NtBuildNumber has 0xf in its top nibble on free builds and 0xc on checked ones.
  const majorVersion =
    block?.fields.MajorVersion ?? (exported === undefined ? FREE_BUILD : exported >>> 28 || FREE_BUILD);
  return {
    build,
    majorVersion: majorVersion & 0xff,
    kdSecondaryVersion: block?.fields.KdSecondaryVersion ?? 0,
    lab,
    kdVersionBlock: block?.address,
  };
}

/** Of sources that an enablement package made differ, the edition's: it is what Windows calls itself. */
const newestOf = (first: number, known: readonly (readonly [string, number])[]): number =>
  known.reduce(
    (newest, [, build]) => (baseBuild(build) === baseBuild(first) ? Math.max(newest, build) : newest),
    first,
  );

/** The build that two sources name where the one that counts most is alone with its own. */
function outvoted(first: number, known: readonly (readonly [string, number])[]): number | undefined {
  const agreeing = (build: number) => known.filter(([, other]) => baseBuild(other) === baseBuild(build)).length;
  return agreeing(first) > 1 ? undefined : known.find(([, build]) => agreeing(build) > 1)?.[1];
}

function findKdVersionBlock({ space, kernel, kdbg, processors }: VersionSources, evidence: Evidence) {
  const { machine } = space.image;
  // Set on the first processor only.
  for (const processor of processors) {
    const address = space.readPointer(processor.kpcr + BigInt(machine.kpcr.kdVersionBlock));
    if (address === undefined || !isKernelAddress(address)) continue;
    const bytes = space.read(address, KdVersion.size);
    const fields = bytes && readKdVersion(bytes, machine.pointerSize);
    const matches =
      fields?.KernBase === kernel.base &&
      fields.MachineType === machine.imageFileMachine &&
      fields.PsLoadedModuleList === kdbg.fields.PsLoadedModuleList;
    if (fields && matches) return { address: va(address), fields };
    evidence.reject(
      STEP,
      `KdVersionBlock ${hex64(address)} of processor ${processor.number}'s KPCR`,
      'not of this kernel',
    );
  }
  return undefined;
}

/** BuildLab; undefined where it is not present or no such text. */
export function readLab(space: AddressSpace, address: bigint | undefined): string | undefined {
  if (address === undefined || !isKernelAddress(address)) return undefined;
  const room = Math.min(MAX_LAB, 0x1000 - Number(address & 0xfffn));
  const text = space.read(address, room)?.toString('latin1').replace(/\0.*$/s, '');
  return text && /^\d{4,5}[.\w-]*$/.test(text) ? text : undefined;
}

/** The version of NT that a build is of. */
export function ntVersionOf(build: number): { major: number; minor: number } {
  const [, major, minor] = NT_VERSIONS.find(([from]) => build >= from) ?? [0, 0, 0];
  return { major, minor };
}

/** The first build of each, the newest first (public releases). */
const NT_VERSIONS: readonly (readonly [from: number, major: number, minor: number])[] = [
  [10240, 10, 0],
  [9600, 6, 3],
  [9200, 6, 2],
  [7600, 6, 1],
  [6000, 6, 0],
  [3790, 5, 2],
  [2600, 5, 1],
];
