/**
 * One step up a stack of ARM64 code, as RtlVirtualUnwind does it: by the unwind data of the image that the code lies in,
 * packed or in .xdata, without symbols. Nothing in that data is believed: counts and offsets are bounded.
 */
import type { ReadVirtual } from '../read-virtual.ts';
import type { CodeImage, FrameState, UnwindStep } from '../unwinding.ts';
import { Context } from './context.ts';
import {
  expandPacked,
  INSTRUCTION,
  isInstruction,
  type Operation,
  readXdata,
  Stop,
  TrapFrame,
  type UnwindData,
} from './pe-unwind.ts';
import { FP, LR, unsigned } from './registers.ts';

/** X0 to X17 and, between processors, X18: a function may change them, so they are not known in its caller. */
const VOLATILE = 19;

/** PSTATE.nRW: 32-bit code. */
const is32BitCode = (cpsr: number) => (cpsr & 0x10) !== 0;

/** @param frame a CONTEXT with control and integer registers */
export function frameState(frame: Buffer): FrameState {
  const { Pc, Sp, X, Cpsr } = Context.read(frame);
  return { instructionPointer: Pc, stackPointer: Sp, integers: X, native: !is32BitCode(Cpsr) };
}

/** Where the function begins that an RVA lies in. */
export function functionBegin(image: CodeImage, rva: number): number | undefined {
  const entry = image.functionAt(rva);
  return entry === undefined || entry === 'missing' ? undefined : entry.begin;
}

const hex = (value: number) => `0x${value.toString(16)}`;
const wrap = (value: bigint) => BigInt.asUintN(64, value);

/**
 * The caller's registers.
 *
 * @param image that `from`'s instruction pointer lies in
 */
export function unwind(from: FrameState, image: CodeImage, read: ReadVirtual): UnwindStep {
  try {
    return new Unwinder(from, image, read).step();
  } catch (error) {
    if (error instanceof Stop) return { stopped: error.message };
    throw error;
  }
}

/** See `Machine.callerOf`: a call leaves its return address in a register. */
export function callerOf({ stackPointer, integers, native }: FrameState): FrameState | undefined {
  const address = integers[LR];
  if (address === undefined) return undefined;
  return { instructionPointer: unsigned(address), stackPointer, integers, native, afterCall: true };
}

class Unwinder {
  readonly #from: FrameState;
  readonly #image: CodeImage;
  readonly #read: ReadVirtual;
  readonly #integers: (bigint | undefined)[];
  /** Of the instruction that ran last: a return address is behind its call, which can be a function's last instruction. */
  readonly #rva: number;
  #sp: bigint;
  /** SP came out of a register, which can lead to another stack: a DPC's, an interrupt's. */
  #switched = false;

  constructor(from: FrameState, image: CodeImage, read: ReadVirtual) {
    this.#from = from;
    this.#image = image;
    this.#read = read;
    this.#integers = [...from.integers];
    this.#rva = Number(from.instructionPointer - image.base) - (from.afterCall ? INSTRUCTION : 0);
    this.#sp = from.stackPointer;
  }

  step(): UnwindStep {
    if (this.#rva < 0 || this.#rva >= this.#image.size) throw new Stop('it lies outside its image');
    const entry = this.#image.functionAt(this.#rva);
    if (entry === 'missing') throw new Stop('its exception directory is not in memory');
    // A function without an entry neither moves SP nor saves registers.
    if (!entry) return this.#return('leaf');
    const { begin, end, unwindInfo } = entry;
    const data =
      (unwindInfo & 3) === 0
        ? readXdata(unwindInfo, end - begin, (rva, length) => this.#image.read(rva, length))
        : expandPacked(unwindInfo, end - begin);
    return this.#run(operationsAt(data, this.#rva - begin));
  }

  /** Undoes instructions, the last one first. */
  #run(operations: readonly Operation[]): UnwindStep {
    let nexts = 0;
    for (const operation of operations) {
      switch (operation.kind) {
        case 'next':
          nexts++;
          break;
        case 'move':
          this.#move(operation, nexts);
          nexts = 0;
          break;
        case 'frame-pointer':
          this.#sp = wrap(this.#integer(FP) - BigInt(operation.above));
          this.#switched = true;
          break;
        case 'signed':
          this.#integers[LR] = unsigned(this.#integer(LR));
          break;
        case 'machine-frame':
          return this.#trap(this.#word(this.#sp), this.#word(this.#sp + 8n));
        case 'trap-frame':
          return this.#trapFrame();
        case 'context':
          return this.#context();
        case 'not-a-call':
          return { how: 'trap', state: { ...this.#caller(), afterCall: false } };
        case 'nothing':
          break;
      }
    }
    return this.#return('unwound');
  }

  /** Pairs that were saved behind one with SAVE_NEXT follow it in memory. */
  #move({ registers, offset, given }: Extract<Operation, { kind: 'move' }>, nexts: number): void {
    const all = [...registers];
    if (nexts > 0 && registers.length !== 2) throw new Stop('its unwind data saves a next pair where there is no pair');
    for (let i = 0; i < 2 * nexts; i++) all.push(registers[1]! + 1 + i);
    all.forEach((register, i) => {
      if (register <= LR) this.#integers[register] = this.#word(this.#sp + BigInt(offset + 8 * i));
    });
    this.#sp = wrap(this.#sp + BigInt(given));
  }

  #return(how: 'unwound' | 'leaf'): UnwindStep {
    return { how, state: this.#caller() };
  }

  #caller(): FrameState {
    const instructionPointer = unsigned(this.#integer(LR));
    if (!this.#switched && this.#sp < this.#from.stackPointer) throw new Stop('its caller would have its stack below');
    return {
      instructionPointer,
      stackPointer: this.#sp,
      // A caller has called: it keeps its own return address in memory.
      integers: this.#integers.map((value, i) => (i < VOLATILE || i === LR ? undefined : value)),
      native: true,
      afterCall: true,
    };
  }

  #trap(stackPointer: bigint, instructionPointer: bigint): UnwindStep {
    const state = { instructionPointer, stackPointer, integers: this.#integers, native: true, afterCall: false };
    return { how: 'trap', state };
  }

  #trapFrame(): UnwindStep {
    const bytes = this.#read(this.#sp, TrapFrame.size);
    if (!bytes) throw new Stop(`the trap frame at 0x${this.#sp.toString(16)} is not in memory`);
    const { X, Lr, Fp, Sp, Pc, Spsr } = TrapFrame.read(bytes);
    const integers = [...X, ...this.#integers.slice(X.length, FP), Fp, Lr];
    const state = { instructionPointer: Pc, stackPointer: Sp, integers, native: !is32BitCode(Spsr), afterCall: false };
    return { how: 'trap', state };
  }

  #context(): UnwindStep {
    const bytes = this.#read(this.#sp, Context.size);
    if (!bytes) throw new Stop(`the context at 0x${this.#sp.toString(16)} is not in memory`);
    return { how: 'trap', state: { ...frameState(bytes), afterCall: false } };
  }

  #integer(register: number): bigint {
    const value = this.#integers[register];
    if (value === undefined) {
      const name = register === LR ? 'its return address (lr)' : `its register x${register}`;
      throw new Stop(`${name} is not known`);
    }
    return value;
  }

  #word(address: bigint): bigint {
    const bytes = this.#read(wrap(address), 8);
    if (!bytes) throw new Stop(`the stack at 0x${wrap(address).toString(16)} is not in memory`);
    return bytes.readBigUInt64LE();
  }
}

/** What is to be undone at an offset in a function: less in its prologue and in an epilogue. */
function operationsAt({ prologue, body, epilogues }: UnwindData, offset: number): readonly Operation[] {
  const at = offset / INSTRUCTION;
  if (!Number.isInteger(at)) throw new Stop(`it lies within an instruction, at ${hex(offset)} of its function`);
  for (const { start, size, operations } of epilogues) {
    // The last instruction is the return.
    if (at >= start && at <= start + size) return without(operations, at - start);
  }
  return at < prologue ? without(body, prologue - at) : body;
}

/** Operations without those of the first instructions, which have not run yet or are undone already. */
function without(operations: readonly Operation[], instructions: number): readonly Operation[] {
  let left = instructions;
  return operations.filter((operation) => !isInstruction(operation) || left-- <= 0);
}

/** Bytes of a call. */
export const LONGEST_CALL = INSTRUCTION;

/** BL, BLR, and BLR with its address authenticated. */
const CALLS: readonly (readonly [mask: number, value: number])[] = [
  [0xfc00_0000, 0x9400_0000],
  [0xffff_fc1f, 0xd63f_0000],
  [0xfeff_f800, 0xd63f_0800],
];

/** Whether the instruction that ends where a return address points is a call. */
export function endsWithCall(before: Buffer): boolean {
  if (before.length < INSTRUCTION) return false;
  const word = before.readUInt32LE(before.length - INSTRUCTION);
  return CALLS.some(([mask, value]) => (word & mask) >>> 0 === value);
}
