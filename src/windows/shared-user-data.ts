/** KUSER_SHARED_DATA: one page at a fixed address, the touchstone for a page-table root. */

import { because, type Reason } from '../core/reason.ts';
import type { StructOf } from '../core/struct.ts';
import { hex64 } from '../core/units.ts';
import { SharedUserData, type SystemTimeField } from '../formats/win-kernel.ts';
import { type AddressSpace, describeFault } from '../memory/address-space.ts';

/** What SharedUserData says, with values that make no sense left out. */
export interface SharedData {
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
  /** Counts boots; means something since Windows 10. */
  bootId: number;
}

/** NT versions that exist on 64-bit machines: 5.2, 6.0 to 6.3, 10.0. */
const plausibleVersion = (major: number, minor: number) =>
  (major === 5 && minor === 2) || (major === 6 && minor <= 4) || (major === 10 && minor <= 1);

/** The page's contents, or the reason why this is not it. */
export function readSharedUserData(space: AddressSpace): SharedData | Reason {
  const address = space.image.machine.sharedUserData;
  const page = space.read(address, SharedUserData.size);
  if (!page) {
    const fault = space.fault(address);
    return because(`SharedUserData is not there: ${fault ? describeFault(fault) : hex64(address)}`);
  }
  const data = SharedUserData.read(page);
  if (!plausibleVersion(data.NtMajorVersion, data.NtMinorVersion)) {
    return because(`SharedUserData has no Windows version: ${data.NtMajorVersion}.${data.NtMinorVersion}`);
  }
  const systemRoot = data.NtSystemRoot.toString('utf16le').replace(/\0.*$/s, '');
  const productTypeOk = data.NtProductType >= 1 && data.NtProductType <= 3;
  if (!productTypeOk && !/^[A-Za-z]:\\/.test(systemRoot)) {
    return because(`SharedUserData has neither a product type (${data.NtProductType}) nor a system directory`);
  }
  return {
    ntMajorVersion: data.NtMajorVersion,
    ntMinorVersion: data.NtMinorVersion,
    ntBuildNumber: data.NtBuildNumber & 0x0fff_ffff,
    productType: productTypeOk ? data.NtProductType : 0,
    suiteMask: data.SuiteMask,
    systemTime: time(data.SystemTime),
    interruptTime: time(data.InterruptTime),
    systemRoot,
    physicalPages: data.NumberOfPhysicalPages,
    bootId: data.BootId,
  };
}

/** High part of a FILETIME in the year 2514: larger values cannot be a time. */
const TIME_LIMIT = 2 ** 26;

function time(t: StructOf<typeof SystemTimeField>): bigint | undefined {
  if (t.High1Time !== t.High2Time || t.High1Time >= TIME_LIMIT) return undefined;
  return (BigInt(t.High1Time) << 32n) | BigInt(t.LowPart);
}
