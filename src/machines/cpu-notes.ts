/** How a machine's CPU states come as ELF notes. */
import type { Registers } from './registers.ts';

/** What a CPU's state in an input says. */
export interface CpuNote {
  registers: Registers;
  /** undefined where the input doesn't say. */
  crashed: boolean | undefined;
  /** What the note says of itself and cannot be, as a clause: its registers may be others. */
  doubt?: string | undefined;
}

/** Name and type of an ELF note. */
export interface NoteKind {
  name: string;
  type: number;
}

/** A form of CPU state: one note for each CPU, or several that belong together. */
export interface CpuNoteForm extends NoteKind {
  /** For people: `NT_PRSTATUS`. */
  label: string;
  /** Notes that add to the state of the CPU whose note came last before them: vector registers, say. */
  more: readonly NoteKind[];
  /** Inputs hold no more of a CPU of this machine, so nothing is lost where no other form is there. */
  whole: boolean;
  /**
   * @param desc the note's descriptor
   * @param more descriptors of `more`, in that order; undefined where the CPU has no such note
   * @returns undefined when the descriptor can't be one
   */
  parse(desc: Buffer, more: readonly (Buffer | undefined)[]): CpuNote | undefined;
}
