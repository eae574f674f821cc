/**
 * Stacks without symbols: frame by frame through the unwind data of the modules that lie in memory, from
 * the kernel into user mode. Where unwinding stops, the stack is searched for return addresses; such frames are marked as guesses.
 */

import { isCanonical, isKernelAddress, pointerAt } from '../core/bits.ts';
import { Reason } from '../core/reason.ts';
import { hex64, MIB, pa, type VirtualAddress, va } from '../core/units.ts';
import { kernelStructures } from '../formats/win-kernel.ts';
import type { CodeImage, FrameState, UnwindStep } from '../machines/unwinding.ts';
import { AddressSpace, WatchedSpace } from '../memory/address-space.ts';
import type { CodeSymbol } from '../symbols/symbolizer.ts';
import type { Symbols } from '../symbols/symbols.ts';
import { symbolAt } from './code-symbols.ts';
import { currentTeb, tablesOf } from './current-process.ts';
import type { Kdbg } from './kdbg.ts';
import { type Module, moduleOf, readModules } from './modules.ts';
import {
  type ExportTable,
  exportName,
  functionEntry,
  nearestExport,
  type PeImage,
  readExports,
  readPeImage,
  readRva,
} from './pe-image.ts';
import type { Processor } from './processors.ts';
import { currentThreadStack, isOnStack, type StackBounds } from './thread-stack.ts';
import type { Windows } from './windows.ts';

/** A module from the kernel's list, from a process's list, or found in memory. */
type CodeModule = Pick<Module, 'name' | 'base' | 'size'>;

/** A frame, and how certain it is. */
export interface StackFrame {
  instructionPointer: VirtualAddress;
  /** RSP while that instruction runs (the debugger's Child-SP). */
  stackPointer: VirtualAddress;
  /** Where the function returns to: the next frame's instruction pointer, if there is one; undefined if unknown. */
  returnAddress: VirtualAddress | undefined;
  module: CodeModule | undefined;
  /** The module's export at or nearest below the instruction. The function that runs may well be another one. */
  nearestExport: { name: string; offset: number } | undefined;
  /**
   * By the module's PDB: function, line and inlined calls. For a caller they are those of its call, not of what
   * follows that.
   */
  symbol: CodeSymbol | undefined;
  /** RVA at which the function begins; undefined where the image does not say. For a caller, that of its call. */
  functionBegin: number | undefined;
  /** As symbol servers name the image: its time stamp and its size, hex; undefined where its header is not present. */
  imageId: string | undefined;
  /**
   * How the frame was found: from the processor's registers; by the unwind data of the frame before; because that
   * was a leaf function, or nothing that has run; through what the processor pushed at an interrupt, exception or system call; by the frame
   * pointer, which leaves out functions that keep none; or by a search of the stack for what looks like a return address.
   */
  how: 'registers' | 'unwound' | 'leaf' | 'trap' | 'frame-pointer' | 'guess';
  /**
   * false from the first guess on, where frame pointers led to it, and where it is at an address that no code can have.
   */
  certain: boolean;
}

/** The stack of one processor. */
export interface Stack {
  processor: Processor;
  /** From the innermost. */
  frames: readonly StackFrame[];
  /** Why it goes no further, without final stop. */
  end: string;
  /** Why frames were guessed, from the innermost. */
  doubts: readonly string[];
}

const MAX_FRAMES = 256;

/** Images of user mode begin at multiples of this. */
const IMAGE_STEP = 0x1_0000n;

/** How far below code its image is searched for, where no list names it. */
const MAX_IMAGE_SEARCH = BigInt(64 * MIB);
const MAX_USER_ADDRESS = 1n << 47n;

const isUserAddress = (address: bigint): boolean => address >= IMAGE_STEP && address < MAX_USER_ADDRESS;

/** Whether the frame's instruction is one that a call returns to. */
const isCaller = (how: StackFrame['how']): boolean => how !== 'registers' && how !== 'trap';

const imageId = ({ timeDateStamp, size }: PeImage): string =>
  `${timeDateStamp.toString(16).toUpperCase().padStart(8, '0')}${size.toString(16)}`;

/** A module with what unwinding asks of it. */
interface Code {
  module: CodeModule;
  /** Why its header can't be had, instead of the image. */
  image: CodeImage | Reason;
  /** Where it was read. */
  space: AddressSpace;
  pe: PeImage | undefined;
  /** Read when a frame is to be named. */
  exports?: ExportTable | undefined;
}

/** What a walk may be given besides registers. */
export interface WalkOptions {
  /** Names code, where PDBs are at hand. */
  symbols?: Symbols | undefined;
  /** Called with what the walk reads from memory. */
  onRead?: WatchedSpace['onRead'] | undefined;
}

/**
 * The stack of a processor.
 *
 * @param context the registers that it shows, as a CONTEXT
 */
export const walkStack = (windows: Windows, processor: Processor, context: Buffer, options: WalkOptions = {}): Stack =>
  walkFrom(windows, processor, windows.image.machine.frameState(context), options);

/** As `walkStack`, from registers of which some may not be known. */
export function walkFrom(windows: Windows, processor: Processor, state: FrameState, options: WalkOptions = {}): Stack {
  return new Walk(windows, processor, options).run(state);
}

/** The address spaces that a processor's memory is read in: its CPU's own, if that is known, and the kernel's. */
export function spacesOf(windows: Windows, processor: Processor): AddressSpace[] {
  const { image, space } = windows;
  const tables = tablesOf(windows, processor);
  return [...(tables && !image.triage ? [new AddressSpace(image, pa(tables.root), tables.mode)] : []), space];
}

/** One frame for an address of code that no stack led to; its stack pointer is 0. */
export function frameAt(windows: Windows, processor: Processor, address: bigint, symbols?: Symbols): StackFrame {
  return new Walk(windows, processor, { symbols }).frameAt(address);
}

class Walk {
  readonly #windows: Windows;
  readonly #processor: Processor;
  readonly #symbols: Symbols | undefined;
  /** The CPU's own address space (user memory, and the session's part of the kernel's), and the kernel's. */
  readonly #spaces: readonly AddressSpace[];
  /** Of the kernel stack of the processor's thread. */
  readonly #bounds: StackBounds | undefined;
  readonly #code = new Map<CodeModule, Code>();
  #userModules: CodeModule[] | undefined;
  /** What is left of the search for return addresses: as much as a kernel stack has. */
  #guessBytes: number;

  constructor(windows: Windows, processor: Processor, { symbols, onRead }: WalkOptions) {
    this.#windows = windows;
    this.#processor = processor;
    this.#symbols = symbols;
    this.#bounds = currentThreadStack(windows.space, windows.kdbg.fields, processor.prcb);
    this.#guessBytes = windows.image.machine.kernelStackSize;
    const spaces = spacesOf(windows, processor);
    this.#spaces = onRead ? spaces.map((space) => new WatchedSpace(space, onRead)) : spaces;
  }

  #read(address: bigint, length: number): Buffer | undefined {
    for (const space of this.#spaces) {
      const bytes = space.read(address, length);
      if (bytes) return bytes;
    }
    return undefined;
  }

  #readPointer(address: bigint): bigint | undefined {
    const { pointerSize } = this.#windows.image.machine;
    const bytes = this.#read(address, pointerSize);
    return bytes && pointerAt(bytes, 0, pointerSize);
  }

  run(from: FrameState): Stack {
    const frames: StackFrame[] = [];
    const doubts: string[] = [];
    const seen = new Set<string>();
    let state = from;
    let how: StackFrame['how'] = 'registers';
    let certain = true;
    const stack = (end: string): Stack => ({ processor: this.#processor, frames, end, doubts });
    while (frames.length < MAX_FRAMES) {
      const place = `${state.instructionPointer} ${state.stackPointer}`;
      if (seen.has(place)) return stack('it comes back to a frame that was there before');
      seen.add(place);
      const code = this.#codeAt(state.instructionPointer);
      // Code is never at such an address: the registers that lead there are not what ran.
      if (!code && !isCanonical(state.instructionPointer, this.#windows.space.mode.addressBits)) certain = false;
      const step: UnwindStep | undefined = state.native ? this.#step(state, code, how) : undefined;
      const next = step && 'state' in step ? step.state : undefined;
      frames.push(this.#frame(state, { code, how, certain, next }));
      if (!step) return stack('it is in 32-bit code (WoW64)');
      if ('state' in step) {
        ({ how, state } = step);
        if (how === 'frame-pointer') certain = false;
        if (state.instructionPointer === 0n)
          return stack('the return address is 0, as in the first function of a thread');
        continue;
      }
      const guess = this.#guess(state.stackPointer);
      if (!guess) return stack(step.stopped);
      doubts.push(step.stopped);
      state = guess;
      how = 'guess';
      certain = false;
    }
    return stack(`there are more than ${MAX_FRAMES} frames`);
  }

  frameAt(instructionPointer: bigint): StackFrame {
    const code = this.#codeAt(instructionPointer);
    const state = { instructionPointer, stackPointer: 0n, integers: [], native: true };
    return this.#frame(state, { code, how: 'registers', certain: true, next: undefined });
  }

  #frame(
    { instructionPointer, stackPointer }: FrameState,
    {
      code,
      how,
      certain,
      next,
    }: Pick<StackFrame, 'how' | 'certain'> & { code: Code | undefined; next: FrameState | undefined },
  ): StackFrame {
    return {
      instructionPointer: va(instructionPointer),
      stackPointer: va(stackPointer),
      returnAddress: next && va(next.instructionPointer),
      module: code?.module,
      nearestExport: code && this.#nearestExport(code, instructionPointer),
      symbol: code && this.#symbol(code, instructionPointer, how),
      functionBegin: code && this.#functionBegin(code, instructionPointer, how),
      imageId: code?.pe && imageId(code.pe),
      how,
      certain,
    };
  }

  #nearestExport(code: Code, address: bigint): StackFrame['nearestExport'] {
    const { space, pe } = code;
    if (pe) code.exports ??= readExports(space, pe);
    return code.exports && nearestExport(space, code.exports, address);
  }

  #symbol({ space, pe }: Code, address: bigint, how: StackFrame['how']): CodeSymbol | undefined {
    if (!this.#symbols || !pe) return undefined;
    return symbolAt(this.#symbols, { space, image: pe }, address, { returnAddress: isCaller(how) });
  }

  #functionBegin({ image }: Code, address: bigint, how: StackFrame['how']): number | undefined {
    if (image instanceof Reason) return undefined;
    const rva = Number(address - image.base);
    return this.#windows.image.machine.functionBegin(image, isCaller(how) ? rva - 1 : rva);
  }

  #step(state: FrameState, code: Code | undefined, how: StackFrame['how']): UnwindStep {
    const { machine } = this.#windows.image;
    const { instructionPointer } = state;
    if (!code) return this.#fromNowhere(state, how) ?? { stopped: `${hex64(instructionPointer)} lies in no module` };
    const { image, module } = code;
    if (image instanceof Reason) return { stopped: `${module.name} at ${hex64(module.base)}: ${image}` };
    const step = machine.unwind(state, image, (address, length) => this.#read(address, length));
    if ('stopped' in step) return { stopped: `${hex64(instructionPointer)} in ${module.name}: ${step.stopped}` };
    if (step.how === 'unwound' || step.how === 'trap') return step;
    if (step.how === 'frame-pointer') return this.#byFramePointer(step, instructionPointer, module);
    // A caller cannot be a leaf function.
    if (isCaller(how)) {
      return { stopped: `${hex64(instructionPointer)} in ${module.name}: no unwind data describes this caller` };
    }
    const to = step.state.instructionPointer;
    if (this.#isReturnAddress(to, this.#codeAt(to))) return step;
    return {
      stopped: `${hex64(instructionPointer)} in ${module.name}: no unwind data, and no return address on top of the stack`,
    };
  }

  /** From where no memory is, so that nothing has run there: a call through a bad pointer led to it. */
  #fromNowhere(state: FrameState, how: StackFrame['how']): UnwindStep | undefined {
    const { machine } = this.#windows.image;
    if (isCaller(how) || this.#read(state.instructionPointer, 1)) return undefined;
    const caller = machine.callerOf(state, (address, length) => this.#read(address, length));
    if (!caller || !this.#isReturnAddress(caller.instructionPointer, this.#codeAt(caller.instructionPointer))) {
      return undefined;
    }
    return { how: 'leaf', state: caller };
  }

  /** Believed where a call ends there, or nothing follows. */
  #byFramePointer(step: UnwindStep & { state: FrameState }, from: bigint, { name }: CodeModule): UnwindStep {
    const { instructionPointer: to } = step.state;
    if (to === 0n || this.#isReturnAddress(to, this.#codeAt(to))) return step;
    return { stopped: `${hex64(from)} in ${name}: its frame pointer leads to ${hex64(to)}, which no call returns to` };
  }

  /** The next word up the stack that looks like a return address. All other registers are unknown then. */
  #guess(from: bigint): FrameState | undefined {
    // What follows a stack's base is another's.
    const bounds = this.#bounds && isOnStack(this.#bounds, from) ? this.#bounds : undefined;
    const { pointerSize } = this.#windows.image.machine;
    const size = BigInt(pointerSize);
    for (
      let at = (from + size - 1n) & ~(size - 1n);
      this.#guessBytes >= pointerSize;
      at += size, this.#guessBytes -= pointerSize
    ) {
      if (bounds && at + size > bounds.base) return undefined;
      const word = this.#readPointer(at);
      if (word === undefined) return undefined;
      if (isKernelAddress(word) !== isKernelAddress(from)) continue;
      // Only listed modules: a search for images below each word would take too long.
      const module = moduleOf(this.#modules(word), word);
      if (!module || !this.#isReturnAddress(word, this.#codeOf(module))) continue;
      return { instructionPointer: word, stackPointer: at + size, integers: [], native: true, afterCall: true };
    }
    return undefined;
  }

  /** Whether it lies in a module, after a call, and in a function that the exception directory lists (if present). */
  #isReturnAddress(address: bigint, code: Code | undefined): boolean {
    if (!code) return false;
    const { module, image } = code;
    const { machine } = this.#windows.image;
    const before = BigInt(machine.longestCall);
    const bytes = address - module.base > before ? this.#read(address - before, machine.longestCall) : undefined;
    if (!bytes || !machine.endsWithCall(bytes)) return false;
    if (image instanceof Reason || !machine.functionTable) return true;
    return image.functionAt(Number(address - module.base)) !== undefined;
  }

  #codeAt(address: bigint): Code | undefined {
    const known = moduleOf(this.#modules(address), address);
    const module = known ?? (isUserAddress(address) ? this.#imageBelow(address) : undefined);
    return module && this.#codeOf(module);
  }

  #codeOf(module: CodeModule): Code {
    const known = this.#code.get(module);
    if (known) return known;
    const { space, image: pe } = this.#peImage(module.base);
    const code: Code =
      pe instanceof Reason
        ? { module, image: pe, space, pe: undefined }
        : {
            module,
            image: {
              base: pe.base,
              size: Math.min(pe.size, module.size),
              read: (rva, length) => readRva(space, pe, rva, length),
              functionAt: (rva) => functionEntry(space, pe, rva),
            },
            space,
            pe,
          };
    this.#code.set(module, code);
    return code;
  }

  /** The image at `base`, or why there is none, in the first address space that has it. */
  #peImage(base: bigint): { space: AddressSpace; image: PeImage | Reason } {
    const { imageFileMachine } = this.#windows.image.machine;
    const found = this.#spaces.map((space) => ({ space, image: readPeImage(space, base, imageFileMachine) }));
    return found.find(({ image }) => !(image instanceof Reason)) ?? found[0]!;
  }

  #modules(address: bigint): readonly CodeModule[] {
    if (isKernelAddress(address)) return this.#windows.modules;
    this.#userModules ??= this.#readUserModules();
    return this.#userModules;
  }

  /** Modules on the loader's list whose pages are present. */
  #readUserModules(): CodeModule[] {
    const registers = this.#processor.cpu?.registers;
    const { image, space, kdbg } = this.#windows;
    const teb =
      registers &&
      (image.machine.teb(registers, (address, length) => this.#read(address, length)) ?? this.#threadsTeb(space, kdbg));
    const { tebPeb, pebLdr, loadOrderList } = kernelStructures(this.#windows.image.machine);
    const pointer = (at: bigint | undefined, offset: number) => {
      const value = at === undefined ? undefined : this.#readPointer(at + BigInt(offset));
      return value !== undefined && isUserAddress(value) ? value : undefined;
    };
    const loader = pointer(pointer(teb, tebPeb), pebLdr);
    if (loader === undefined) return [];
    return readModules(this.#spaces[0]!, loader + BigInt(loadOrderList), isUserAddress).modules;
  }

  /** Size of the aligned block around `address` that no address space maps; that of an image's step where there is none. */
  #unmappedAround(address: bigint): bigint {
    const regions = this.#spaces.map((space) => BigInt(space.fault(address)?.region ?? 0));
    return regions.reduce((least, region) => (region < least ? region : least)) || IMAGE_STEP;
  }

  /** Of the processor's thread, where no register has it in the kernel. */
  #threadsTeb(space: AddressSpace, { fields }: Kdbg): bigint | undefined {
    if (this.#windows.image.machine.systemRegisters) return undefined;
    return currentTeb(space, fields, this.#processor.prcb);
  }

  /** An image of user mode that no list names. */
  #imageBelow(address: bigint): CodeModule | undefined {
    const top = address - (address % IMAGE_STEP);
    for (let base = top; base > 0n && top - base <= MAX_IMAGE_SEARCH; base -= IMAGE_STEP) {
      const { space, image } = this.#peImage(base);
      if (image instanceof Reason) {
        base -= base % this.#unmappedAround(base);
        continue;
      }
      if (address >= base + BigInt(image.size)) return undefined;
      const module = { name: exportName(space, image) ?? '', base: image.base, size: image.size };
      this.#userModules?.push(module);
      return module;
    }
    return undefined;
  }
}
