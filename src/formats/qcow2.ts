/** QEMU's qcow2 images (docs/interop/qcow2.txt), as far as their internal snapshots need: all numbers are big-endian. */

export const QCOW2_MAGIC = 'QFI\xfb';

/** Offsets in the image's header. */
export const Qcow2Header = {
  version: 4,
  backingFileOffset: 8,
  clusterBits: 20,
  size: 24,
  cryptMethod: 32,
  snapshotCount: 60,
  snapshotsOffset: 64,
  /** Version 3 only. */
  incompatibleFeatures: 72,
} as const;

/** Bytes of the header, at least. */
export const QCOW2_HEADER_V2 = 72;
export const QCOW2_HEADER_V3 = 104;

/** Incompatible features under which a snapshot's tables can't be read as here: an external data file, extended L2 entries. */
export const QCOW2_FOREIGN_FEATURES = 0x4n | 0x10n;

/** Offsets in a snapshot's entry, whose extra data, ID and name follow. */
export const Qcow2Snapshot = {
  l1Offset: 0,
  l1Size: 8,
  idLength: 12,
  nameLength: 14,
  stateSize: 32,
  extraLength: 36,
  /** Extra data: the state's size in 64 bits, then the disk's. */
  extra: 40,
} as const;

/** Of L1 and L2 entries. */
export const QCOW2_OFFSET = 0x00ff_ffff_ffff_fe00n;
export const QCOW2_COMPRESSED = 1n << 62n;
/** Of L2 entries of version 3: the cluster reads as zeros. */
export const QCOW2_ZERO = 1n;
