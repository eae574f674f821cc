/** The version that an image's resources name, where Windows kept them in memory. */
import {
  DIRECTORY_RESOURCE,
  FIXED_FILE_INFO_SIGNATURE,
  FIXED_FILE_INFO_SIZE,
  RESOURCE_SUBDIRECTORY,
  ResourceDataEntry,
  ResourceDirectory,
  ResourceDirectoryEntry,
  RT_VERSION,
  VERSION_INFO_KEY,
  VersionInfo,
} from '../formats/pe.ts';
import type { AddressSpace } from '../memory/address-space.ts';
import { type PeImage, readRva } from './pe-image.ts';

/** Types of resources in an image; there are some two dozen. */
const MAX_ENTRIES = 256;

/** The versions that an image names, each `10.0.19041.1`. */
export interface FileVersion {
  /** `10.0.19041.1` */
  file: string;
  product: string;
}

/** From VS_FIXEDFILEINFO; undefined where there is none, or it is not present (drivers' resources are often paged out). */
export function readFileVersion(space: AddressSpace, image: PeImage): FileVersion | undefined {
  const directory = image.directories[DIRECTORY_RESOURCE];
  if (!directory || directory.rva === 0) return undefined;
  /** The offset that an entry of the directory at `offset` holds: of the type given, or of the first one. */
  const follow = (offset: number, id: number | undefined): number | undefined => {
    const head = readRva(space, image, directory.rva + offset, ResourceDirectory.size);
    if (!head) return undefined;
    const { NumberOfNamedEntries, NumberOfIdEntries } = ResourceDirectory.read(head);
    const count = Math.min(NumberOfNamedEntries + NumberOfIdEntries, MAX_ENTRIES);
    for (let i = 0; i < count; i++) {
      const at = directory.rva + offset + ResourceDirectory.size + i * ResourceDirectoryEntry.size;
      const bytes = readRva(space, image, at, ResourceDirectoryEntry.size);
      const entry = bytes && ResourceDirectoryEntry.read(bytes);
      if (entry && (id === undefined || entry.Name === id)) return entry.OffsetToData;
    }
    return undefined;
  };
  // Type, name, language.
  let offset: number | undefined = RESOURCE_SUBDIRECTORY;
  for (const id of [RT_VERSION, undefined, undefined]) {
    if (offset === undefined || offset < RESOURCE_SUBDIRECTORY) return undefined;
    offset = follow(offset - RESOURCE_SUBDIRECTORY, id);
  }
  if (offset === undefined || offset >= RESOURCE_SUBDIRECTORY) return undefined;
  const data = readRva(space, image, directory.rva + offset, ResourceDataEntry.size);
  const bytes = data && readRva(space, image, ResourceDataEntry.read(data).OffsetToData, VersionInfo.size);
  if (!bytes) return undefined;
  const info = VersionInfo.read(bytes);
  if (
    !info.szKey.equals(VERSION_INFO_KEY) ||
    info.wValueLength < FIXED_FILE_INFO_SIZE ||
    info.dwSignature !== FIXED_FILE_INFO_SIGNATURE
  ) {
    return undefined;
  }
  const dotted = (high: number, low: number) =>
    [high >>> 16, high & 0xffff, low >>> 16, low & 0xffff].map(String).join('.');
  return {
    file: dotted(info.dwFileVersionMS, info.dwFileVersionLS),
    product: dotted(info.dwProductVersionMS, info.dwProductVersionLS),
  };
}
