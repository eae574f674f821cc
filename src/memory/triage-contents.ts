/** What a triage dump holds in place of physical memory, as its reader found it. */

/** Memory at a virtual address, as it lies in the file. */
export interface VirtualRun {
  address: bigint;
  /** Bytes. */
  size: number;
  fileOffset: number;
}

/** A module as a triage dump lists it. */
export interface ListedModule {
  path: string;
  base: bigint;
  size: number;
  checkSum: number;
  timeDateStamp: number;
}

/** What a triage dump holds, by its own lists; nothing is believed but that it lies in the file. */
export interface TriageContents {
  /** Sorted and disjoint: blocks and parts with their addresses; where some overlap, the first that begins is taken. */
  runs: readonly VirtualRun[];
  /** How many blocks the dump lists. */
  blockCount: number;
  /** The bytes of a run, wholly or in part. */
  read(fileOffset: number, target: Buffer): void;
  modules: readonly ListedModule[];
  unloaded: readonly { name: string; from: bigint; to: bigint }[];
  /** The debugger data block, as long as the dump says. */
  kdbg: Buffer;
  /** The PRCB of the processor that the debugger opens on, by its number. */
  current: number | undefined;
  /** Of the stack that the dump has; undefined without one. */
  topOfStack: bigint | undefined;
}

/** Sorted and disjoint runs of what may overlap. */
export function disjoint(runs: readonly VirtualRun[]): VirtualRun[] {
  const sorted = runs.filter(({ size }) => size > 0).sort((a, b) => compare(a.address, b.address) || b.size - a.size);
  const result: VirtualRun[] = [];
  let end = 0n;
  for (const { address, size, fileOffset } of sorted) {
    const covered = end > address ? Number(end - address) : 0;
    if (covered >= size) continue;
    result.push({ address: address + BigInt(covered), size: size - covered, fileOffset: fileOffset + covered });
    end = address + BigInt(size);
  }
  return result;
}

function compare(a: bigint, b: bigint): number {
  if (a === b) return 0;
  return a < b ? -1 : 1;
}
