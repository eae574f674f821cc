/**
 * What depends on the machine, as one value per machine: paging, CPU notes, CONTEXT layout, where
 * Windows keeps its per-processor data. Everything above this asks the machine and knows none by name.
 */
import type { VirtualAddress } from '../core/units.ts';
import type { DumpHeader, DumpHeaderForm } from '../formats/dump-header.ts';
import type { DebuggerFields } from '../formats/win-kernel.ts';
import type { CpuNote, CpuNoteForm } from './cpu-notes.ts';
import type { KpcrClaim, KpcrLayout } from './kpcr.ts';
import type { MigrationForm } from './migration.ts';
import type { NamedRegister } from './named-register.ts';
import type { ScanMemory } from './page-scan.ts';
import type { InterruptGate, InterruptTable, PageClue, PageScan } from './page-search.ts';
import type { PagingMode } from './paging-mode.ts';
import type { ReadVirtual } from './read-virtual.ts';
import type { Registers } from './registers.ts';
import type { TrapFrameForm } from './trap-frames.ts';
import type { CodeImage, FrameState, FunctionTable, UnwindStep } from './unwinding.ts';

export type { CpuNote, CpuNoteForm, NoteKind } from './cpu-notes.ts';
export type { KpcrClaim, KpcrLayout } from './kpcr.ts';
export type { InterruptGate, InterruptTable } from './page-search.ts';
export type { ReadVirtual } from './read-virtual.ts';
export type { Registers } from './registers.ts';

/** One CPU as the input describes it. */
export interface CpuState {
  /** Position among the input's CPUs: QEMU's cpu_index, which need not be Windows' processor number. */
  index: number;
  /** undefined: the input has a CPU here, but its state can't be read. */
  registers: Registers | undefined;
  /** The input's own word that the guest crashed on this CPU; undefined where it doesn't say. */
  crashed: boolean | undefined;
  /** Where the state came from, for the report. */
  origin: string;
}

/** The page tables that a CPU has loaded. */
export interface PageTables {
  /** Physical address of the root table. */
  root: number;
  mode: PagingMode;
}

/** What matters of a CONTEXT that Windows captured. */
export interface ContextView {
  /** Its flags say that it holds this machine's control and integer registers. */
  complete: boolean;
  instructionPointer: VirtualAddress;
  stackPointer: VirtualAddress;
  /** The registers that hold a function's first arguments when it begins; undefined where they are on the stack. */
  arguments: readonly [bigint, bigint, bigint, bigint] | undefined;
}

/** What an MMPFN, an entry of Windows' page frame database, tells (types in public symbols). */
export interface PageDatabaseFormat {
  /** Nothing says which one a build has: they are tried in this order. */
  layouts: readonly PageEntryLayout[];
  /** No build has another one. */
  complete: boolean;
}

/** Where an MMPFN of some builds has what. Offsets in bytes. */
export interface PageEntryLayout {
  /** Bytes of an entry. */
  entrySize: number;
  /** Its low three bits are MMPFNENTRY.PageLocation. */
  stateAt: number;
  /** Lowest of the two bits of CacheAttribute in that byte. */
  cacheShift: number;
  /** MMPTE: what the page's page-table entry becomes when the page is taken from it. */
  originalPteAt: number;
  /**
   * The bit that entries within a large free page have. undefined: they have their own state.
   */
  resident: { at: number; mask: number } | undefined;
}

/** What messages and displays call things. Registers as the debugger spells them. */
export interface MachineWords {
  instructionPointer: string;
  stackPointer: string;
  /** The register with the page-table root. */
  root: string;
  /** The register that leads to a processor's KPCR. */
  kpcr: string;
  interruptTable: string;
  /** By what a CPU shows that it was never started. */
  notStarted: string;
}

/**
 * Everything that depends on the machine. What takes registers is a method, so that a machine of one kind of
 * registers is a `Machine`: only those that it made are handed to it.
 */
export interface MachineOf<R extends Registers> {
  /** For people and reports: `x64`. */
  readonly name: string;
  /** For messages about inputs: `64-bit x86`. */
  readonly title: string;
  /** Name of the machine that QEMU takes its guests for while CPU 0 is in that one's mode. */
  readonly takenFor: string | undefined;
  /** e_machine of its ELF files. */
  readonly elfMachine: number;
  /** IMAGE_FILE_MACHINE_*, in PE and dump headers. */
  readonly imageFileMachine: number;
  /** What its Windows does with images of other machines, by their IMAGE_FILE_MACHINE_*. */
  readonly otherImages: Readonly<Record<number, string>>;
  readonly words: MachineWords;
  /** Bytes of a pointer, and of a word on the stack. */
  readonly pointerSize: 4 | 8;
  readonly sharedUserData: VirtualAddress;
  readonly pagingModes: readonly PagingMode[];
  /** The modes, the one first that a dump's header says; where it does not, in the order in which debuggers take them. */
  pagingModesOf(header: DumpHeader): readonly PagingMode[];
  readonly pageDatabase: PageDatabaseFormat;
  /** Fields that the oldest builds' KDBG ends before: the same in all builds whose block does. */
  readonly debuggerDefaults: DebuggerFields;

  /** Forms of CPU state in ELF notes, the one that says most first. */
  readonly cpuNotes: readonly CpuNoteForm[];
  /** Bytes of its NT_PRSTATUS: the notes of a kdump-compressed file show the machine by it. */
  readonly prstatusSize: number;
  /** Bytes of a block in its kdump-compressed files. */
  readonly kdumpBlockSize: number;
  /** An entry of .xen_prstatus in a core file of Xen's; undefined where Xen runs no Windows on this machine. */
  readonly xenVcpu: { size: number; parse(bytes: Buffer): CpuNote | undefined } | undefined;
  /** Its CPUs in migration streams; undefined where QEMU runs no such machine. */
  readonly migration: MigrationForm | undefined;
  /** What a display shows of a CPU: all integer registers, and the control registers that are known. */
  namedRegisters(registers: R): NamedRegister[];
  /** The CPU was never started: it runs without the paging that this Windows needs. */
  neverStarted(registers: R): boolean;
  /** What a CPU runs that is not this Windows, by its registers alone: `a hypervisor`; undefined where they don't say. */
  outsideWindows(registers: R): string | undefined;
  /**
   * Windows is found by its CPUs' system registers, page-table root and interrupt table. false: Windows' own structures are
   * all that leads to them, and a dump's header names System's page tables.
   */
  readonly systemRegisters: boolean;
  /** What the register with the page-table root holds; undefined where the input doesn't say. */
  rootRegister(registers: R): bigint | undefined;
  /** undefined where they are unknown, or the CPU was never started. */
  pageTables(registers: R): PageTables | undefined;
  readonly kpcr: KpcrLayout;
  /** Where the KPCR may be, by the registers that Windows keeps it in and what they lead to. */
  kpcrCandidates(registers: R, read: ReadVirtual): VirtualAddress[];
  /**
   * Why what is at `kpcr` is not a KPCR, as a clause; undefined when it is one.
   *
   * @param claim the PRCB that it should name; without, only the KPCR itself is looked at
   */
  kpcrDoubt(read: ReadVirtual, kpcr: VirtualAddress, claim?: KpcrClaim): string | undefined;
  /** Whether a CPU has the tables loaded that a KPCR names as its processor's own; undefined where either is unknown. */
  runsKpcr(registers: R, read: ReadVirtual, kpcr: VirtualAddress): boolean | undefined;
  /** Where exceptions and interrupts are dispatched from; undefined where the input doesn't say. */
  interruptTable(registers: R): InterruptTable | undefined;
  /** The segment descriptors that a CPU uses; undefined where the input doesn't say. Only of machines that have some. */
  descriptorTable?(registers: R): InterruptTable | undefined;
  /** Where the present gates of an interrupt table lead, in the order of their vectors; undefined if it can't be read. */
  interruptGates(table: InterruptTable, read: ReadVirtual): InterruptGate[] | undefined;
  /** Kernel code addresses that the gates for exceptions lead to. */
  interruptHandlers(table: InterruptTable, read: ReadVirtual): VirtualAddress[];
  /** What a page of physical memory shows of Windows: the page whose 32-bit words begin at `words[at]`. */
  pageClues(words: Uint32Array, at: number, physical: number): Iterable<PageClue>;
  /** The first look at pages in `memory`; undefined where this can't be had: then every page has to be looked at. */
  createPageScan(memory: ScanMemory): PageScan | undefined;
  isUserMode(registers: R): boolean;
  /** The CPU runs this machine's own code, not that of a compatibility mode (WoW64). */
  runsNativeCode(registers: R): boolean;
  instructionPointer(registers: R): VirtualAddress;
  stackPointer(registers: R): VirtualAddress;
  /** Where it returns to, in a register; undefined on machines that keep that on the stack. */
  returnAddress(registers: R): VirtualAddress | undefined;
  /** Where Windows maps the kernel and drivers, for where no address of code is known; undefined where it can be anywhere. */
  readonly images: { from: VirtualAddress; size: number } | undefined;
  /** Where its RAM begins, the likeliest first, and where it may end below 4 GiB, with the rest from there on. */
  readonly ram: { readonly starts: readonly number[]; readonly lowEnds: readonly number[] };

  /** Of its crash dumps. */
  readonly dumpHeader: DumpHeaderForm;
  readonly contextSize: number;
  /** Bytes; Windows aligns CONTEXT frames to it. */
  readonly contextAlignment: number;
  /**
   * Where a PRCB's pointer to its CONTEXT is null, the debugger shows nothing of the whole dump. The frame is in the
   * PRCB, so that the pointer can be mended.
   */
  readonly framesInPrcb: boolean;
  encodeContext(registers: R): Buffer;
  /** @param frame `contextSize` bytes */
  viewContext(frame: Buffer): ContextView;
  /** ContextFlags of this machine and no others. */
  areContextFlags(flags: number): boolean;
  /** Whether the CPU takes interrupts, but for those that can't be masked. @param frame with control registers */
  interruptsEnabled(frame: Buffer): boolean;
  /** The IRQL that the CPU itself holds, and in which register; undefined where the input doesn't say. */
  priority(registers: R): { value: number; register: string } | undefined;
  /** The instruction that loops have which wait for another processor. */
  readonly spinHint: Buffer;
  /** A frame that Windows has filled, or not used yet. */
  looksLikeContext(frame: Buffer): boolean;
  /**
   * The registers that a crash dump holds for a processor: `encodeContext` and `patchSpecialRegisters` backwards.
   *
   * @param frame `contextSize` bytes
   * @param special at least `specialRegistersSize` bytes
   * @returns undefined where the frame holds no registers
   */
  decodeContext(frame: Buffer, special: Buffer, read: ReadVirtual): R | undefined;
  /** A frame that claims no register yet keeps the debugger on this machine. */
  encodeUnknownContext(): Buffer;
  /** At least this many bytes of special registers are needed by `patchSpecialRegisters`. */
  readonly specialRegistersSize: number;
  /** Whether a PRCB's saved state can have its special registers and its CONTEXT at these offsets. */
  isProcessorState(special: number, context: number): boolean;
  /**
   * Sets what is known in a copy of a PRCB's special registers. Descriptor tables that the input doesn't
   * tell are those that the KPCR names, without which the debugger can't tell what code it runs; control
   * registers become 0. What else there is (debug registers, MSRs) stays as the guest had it.
   *
   * @param kpcr `kpcr.size` bytes
   * @param saved the guest saved them itself when it crashed: what the input doesn't tell stays
   */
  patchSpecialRegisters(original: Buffer, registers: R | undefined, kpcr: Buffer | undefined, saved: boolean): Buffer;

  /** Of its images; undefined where nothing in an image lists its functions. */
  readonly functionTable: FunctionTable | undefined;
  /** @param frame a CONTEXT with control and integer registers */
  frameState(frame: Buffer): FrameState;
  /**
   * Who called code of which no instruction has run, so that a call's return address is where the call has put it.
   * undefined where it is not in memory.
   */
  callerOf(state: FrameState, read: ReadVirtual): FrameState | undefined;
  /** Where a crash keeps the registers of the code at fault. */
  readonly trapFrames: TrapFrameForm;
  /** From a function to its caller. @param image that the instruction pointer lies in */
  unwind(from: FrameState, image: CodeImage, read: ReadVirtual): UnwindStep;
  /**
   * Where the function begins that an RVA lies in, with parts that the compiler split off; undefined where the image's
   * exception directory does not say.
   */
  functionBegin(image: CodeImage, rva: number): number | undefined;
  /** Whether a call ends where `before` ends: what precedes a return address. */
  endsWithCall(before: Buffer): boolean;
  /** Bytes of the longest call. */
  readonly longestCall: number;
  /** Bytes of the largest kernel stack. */
  readonly kernelStackSize: number;
  /** The TEB of the thread that a CPU runs, in user mode or entered from there; undefined where that is unknown. */
  teb(registers: R, read: ReadVirtual): VirtualAddress | undefined;
}

/** A machine, whichever it is. */
export type Machine = MachineOf<Registers>;
