/** KUSER_SHARED_DATA: one page at a fixed address, the touchstone for a page-table root. */

import { because, type Reason } from '../core/reason.ts';
import type { StructOf } from '../core/struct.ts';
import { hex64 } from '../core/units.ts';
import { IMAGE_FILE_MACHINE_AMD64, IMAGE_FILE_MACHINE_ARM64, IMAGE_FILE_MACHINE_I386 } from '../formats/pe.ts';
import { SharedUserData, type SystemTimeField } from '../formats/win-kernel.ts';
import type { Machine } from '../machines/machine.ts';
import { type AddressSpace, describeFault } from '../memory/address-space.ts';

/** What SharedUserData says, with values that make no sense left out. */
export interface SharedData {
  /** Why it does not say which Windows it is; undefined where it does. */
  unset: string | undefined;
  ntMajorVersion: number;
  ntMinorVersion: number;
  /** 0 before Windows 10. */
  ntBuildNumber: number;
  /** 0 where the guest holds none. */
  productType: number;
  suiteMask: number;
  /** FILETIME, UTC; undefined where the two high parts disagree (it was being updated) or it is impossible. */
  systemTime: bigint | undefined;
  /** Units of 100 ns since boot; likewise. */
  interruptTime: bigint | undefined;
  systemRoot: string;
  physicalPages: number;
  /** Processors that Windows has started; 0 where it does not say, as before Windows 7. */
  activeProcessors: number;
  /** Counts boots; means something since Windows 10. */
  bootId: number;
}

/** NT versions that exist: 5.0 to 5.2, of which 64-bit machines have the last alone, 6.0 to 6.3, 10.0. */
const plausibleVersion = (major: number, minor: number, { pointerSize }: Machine) =>
  (major === 5 && minor <= 2 && (minor === 2 || pointerSize === 4)) ||
  (major === 6 && minor <= 4) ||
  (major === 10 && minor <= 1);

/** The page's contents, or the reason why this is not it. */
export function readSharedUserData(space: AddressSpace): SharedData | Reason {
  const address = space.image.machine.sharedUserData;
  const page = space.read(address, SharedUserData.size);
  if (!page) {
    const fault = space.fault(address);
    return because(`SharedUserData is not there: ${fault ? describeFault(fault) : hex64(address)}`);
  }
  const data = SharedUserData.read(page);
  if (!plausibleVersion(data.NtMajorVersion, data.NtMinorVersion, space.image.machine)) {
    return because(`SharedUserData has no Windows version: ${data.NtMajorVersion}.${data.NtMinorVersion}`);
  }
  const { imageFileMachine } = space.image.machine;
  if (data.ImageNumberLow !== imageFileMachine && WINDOWS_MACHINES.has(data.ImageNumberLow)) {
    return because(`SharedUserData is of another machine: its images are 0x${data.ImageNumberLow.toString(16)}`);
  }
  const productTypeOk = isProductType(data.NtProductType);
  if (!productTypeOk && !SYSTEM_ROOT.test(textOf(data.NtSystemRoot))) {
    return because(`SharedUserData has neither a product type (${data.NtProductType}) nor a system directory`);
  }
  return describe(data);
}

/**
 * What the page holds where it does not say which Windows it is: it has no version until late in boot.
 *
 * @param why from `readSharedUserData`
 */
export function readUnsetSharedUserData(space: AddressSpace, why: Reason): SharedData {
  const page = space.read(space.image.machine.sharedUserData, SharedUserData.size);
  const data = SharedUserData.read(page ?? Buffer.alloc(SharedUserData.size));
  // Anything else than zeros where the version will be is not a page that Windows has begun to fill.
  if (data.NtMajorVersion === 0 && data.NtMinorVersion === 0 && page) return { ...describe(data), unset: why.text };
  const empty = describe(SharedUserData.read(Buffer.alloc(SharedUserData.size)));
  return { ...empty, systemTime: undefined, interruptTime: undefined, unset: why.text };
}

/** IMAGE_FILE_MACHINE_*: what a page of another machine has, and a damaged one need not have. */
const WINDOWS_MACHINES = new Set<number>([IMAGE_FILE_MACHINE_I386, IMAGE_FILE_MACHINE_AMD64, IMAGE_FILE_MACHINE_ARM64]);

const countsProcessors = (major: number, minor: number): boolean => major > 6 || (major === 6 && minor > 0);

const SYSTEM_ROOT = /^[A-Za-z]:\\/;
const textOf = (bytes: Buffer): string => bytes.toString('utf16le').replace(/\0.*$/s, '');
const isProductType = (value: number): boolean => value >= 1 && value <= 3;

const describe = (data: StructOf<typeof SharedUserData>): SharedData => ({
  unset: undefined,
  ntMajorVersion: data.NtMajorVersion,
  ntMinorVersion: data.NtMinorVersion,
  ntBuildNumber: data.NtBuildNumber & 0x0fff_ffff,
  productType: isProductType(data.NtProductType) ? data.NtProductType : 0,
  suiteMask: data.SuiteMask,
  systemTime: time(data.SystemTime),
  interruptTime: time(data.InterruptTime),
  systemRoot: textOf(data.NtSystemRoot),
  physicalPages: data.NumberOfPhysicalPages,
  activeProcessors: countsProcessors(data.NtMajorVersion, data.NtMinorVersion) ? data.ActiveProcessorCount : 0,
  bootId: data.BootId,
});

/** High part of a FILETIME in the year 2514: larger values cannot be a time. */
const TIME_LIMIT = 2 ** 26;

function time(t: StructOf<typeof SystemTimeField>): bigint | undefined {
  if (t.High1Time !== t.High2Time || t.High1Time >= TIME_LIMIT) return undefined;
  return (BigInt(t.High1Time) << 32n) | BigInt(t.LowPart);
}
