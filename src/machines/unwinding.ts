/** What unwinding a stack takes and gives, on any machine. */

/** The registers of one frame of a stack. */
export interface FrameState {
  instructionPointer: bigint;
  stackPointer: bigint;
  /** By the numbers that the machine's instructions encode; undefined where a register is not known. */
  integers: readonly (bigint | undefined)[];
  /** It runs the machine's own code, not that of WoW64. */
  native: boolean;
  /** The instruction pointer is a return address: behind a call, which can be the last instruction of its function. */
  afterCall?: boolean;
}

/** An entry of an image's exception directory: RVAs. */
export interface FunctionEntry {
  begin: number;
  end: number;
  unwindInfo: number;
}

/** An entry before its end is looked up, which not every form of entry has. */
export type FunctionBounds = Omit<FunctionEntry, 'end'> & { end: number | undefined };

/** The form of an exception directory: entries sorted by where functions begin. */
export interface FunctionTable {
  /** Bytes of an entry. */
  entrySize: number;
  /**
   * @param entry `entrySize` bytes
   * @param read bytes of the image at an RVA, for what an entry keeps elsewhere
   * @returns `end` is undefined where that is not in memory
   */
  read(entry: Buffer, read: CodeImage['read']): FunctionBounds;
}

/** An image as unwinding needs it. */
export interface CodeImage {
  base: bigint;
  /** Bytes. */
  size: number;
  /** Bytes at an RVA; undefined outside the image and where memory is missing. */
  read(rva: number, length: number): Buffer | undefined;
  /** The entry for an RVA; undefined: there is none; `missing`: the directory is not in memory. */
  functionAt(rva: number): FunctionEntry | 'missing' | undefined;
}

/** What comes of unwinding one frame. */
export type UnwindStep =
  /** `trap`: through an interrupt, exception or system call. `frame-pointer`: by a convention that not all code keeps. */
  | { how: 'unwound' | 'leaf' | 'trap' | 'frame-pointer'; state: FrameState }
  /** It can't be done: why, without final stop. */
  | { stopped: string };
