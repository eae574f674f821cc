/**
 * Units that must not be mixed up. Physical addresses, page frame numbers and file offsets fit a
 * double's 53 bits (x64 has at most 52 physical address bits); virtual addresses need all 64.
 */

declare const unit: unique symbol;
type Unit<Base, Name extends string> = Base & { readonly [unit]: Name };

/** Guest physical address, in bytes. */
export type PhysicalAddress = Unit<number, 'PhysicalAddress'>;

/** Page frame number: physical address / 4096. */
export type Pfn = Unit<number, 'Pfn'>;

/** Guest virtual address, 64 bits, canonical when it comes from a walk. */
export type VirtualAddress = Unit<bigint, 'VirtualAddress'>;

/** A number as a physical address. */
export const pa = (value: number): PhysicalAddress => value as PhysicalAddress;

/** A 64-bit word as a virtual address; negative values wrap. */
export const va = (value: bigint): VirtualAddress => BigInt.asUintN(64, value) as VirtualAddress;

/** A page is 4 KiB on every machine whose crash dumps we write; dumps count in these. */
export const PAGE_SIZE = 4096;

/** The page that `address` lies in. */
export const pfnOf = (address: number): Pfn => Math.floor(address / PAGE_SIZE) as Pfn;

/** Physical addresses stop here: the architecture's 52 bits. */
export const PHYSICAL_ADDRESS_LIMIT = 2 ** 52;

/** Bytes. */
export const KIB = 1024;

/** Bytes. */
export const MIB = 1024 * KIB;

/** Bytes. */
export const GIB = 1024 * MIB;

/** `0x1f000`: how addresses and offsets are printed everywhere. */
export function hex(value: number | bigint): string {
  return value < 0 ? `-0x${(-value).toString(16)}` : `0x${value.toString(16)}`;
}

/** `0xfffff8001a200000`: a virtual address or register in full width. */
export function hex64(value: bigint): string {
  return `0x${BigInt.asUintN(64, value).toString(16).padStart(16, '0')}`;
}

/** `12.5 MiB`, exact for whole units. */
export function bytes(count: number): string {
  for (const [size, name] of [
    [GIB * KIB, 'TiB'],
    [GIB, 'GiB'],
    [MIB, 'MiB'],
    [KIB, 'KiB'],
  ] as const) {
    if (count >= size) return `${Number((count / size).toFixed(1))} ${name}`;
  }
  return `${count} bytes`;
}
