/**
 * One step up a stack of x64 code, as RtlVirtualUnwind does it: by the unwind data of the image that the
 * code lies in, without symbols. Nothing in that data is believed: counts, chains and offsets are bounded.
 */
import { RuntimeFunction } from '../../formats/pe.ts';
import type { ReadVirtual } from '../machine.ts';
import type { CodeImage, FrameState, FunctionEntry, FunctionTable, UnwindStep } from '../unwinding.ts';
import { Context } from './context.ts';
import {
  MachineFrame,
  RUNTIME_FUNCTION_INDIRECT,
  UNW_FLAG_CHAININFO,
  UnwindCode,
  UnwindInfoHeader,
  UnwindOperand,
  UWOP,
  unwindSlots,
} from './pe-unwind.ts';

/** Windows' own limit for chained unwind data. */
const MAX_CHAIN = 32;

/** RSP as instructions encode it. */
const RSP = 4;

/** RAX, RCX, RDX, R8 to R11: a function may change them, so they are not known in its caller. */
const VOLATILE = [0, 1, 2, 8, 9, 10, 11];

/** KGDT64_R3_CMCODE with its privilege level: 32-bit code of user mode. */
const WOW64_CODE_SELECTOR = 0x23;
const MAX_POPS = 16;

/** The longest epilogue: lea rsp, pops of 2 bytes, a prefix, and a jump of 5 bytes. */
const EPILOGUE_BYTES = 7 + MAX_POPS * 2 + 1 + 5;

interface Operation {
  /** In the prologue: done when execution is there or behind. */
  offset: number;
  operation: number;
  info: number;
  /** Of the operand slots; 0 without any. */
  operand: number;
}

interface UnwindInfo {
  version: number;
  prologueSize: number;
  frameRegister: number;
  /** Bytes. */
  frameOffset: number;
  slots: Buffer;
  operations: Operation[];
  parent: FunctionEntry | undefined;
}

/** Why a frame can't be unwound. */
class Stop extends Error {}

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

/** Where the function begins that an RVA lies in: of the primary entry, where this one is chained to it. */
export function functionBegin(image: CodeImage, rva: number): number | undefined {
  const from = { instructionPointer: image.base + BigInt(rva), stackPointer: 0n, integers: [], native: true };
  try {
    return new Unwinder(from, image, () => undefined).functionBegin();
  } catch (error) {
    if (error instanceof Stop) return undefined;
    throw error;
  }
}

class Unwinder {
  readonly #from: FrameState;
  readonly #image: CodeImage;
  readonly #read: ReadVirtual;
  readonly #integers: (bigint | undefined)[];
  readonly #rva: number;
  #rsp: bigint;
  /** RSP came out of a register, which can lead to another stack: a DPC's, an interrupt's. */
  #switched = false;

  constructor(from: FrameState, image: CodeImage, read: ReadVirtual) {
    this.#from = from;
    this.#image = image;
    this.#read = read;
    this.#integers = [...from.integers];
    this.#rva = Number(from.instructionPointer - image.base);
    this.#rsp = from.stackPointer;
  }

  step(): UnwindStep {
    if (this.#rva < 0 || this.#rva >= this.#image.size) throw new Stop('it lies outside its image');
    const found = this.#image.functionAt(this.#rva);
    if (found === 'missing') throw new Stop('its exception directory is not in memory');
    // A function without an entry neither moves RSP nor saves registers: its return address is on top.
    if (!found) return this.#return('leaf');
    const entry = this.#direct(found);
    const info = this.#info(entry);
    const epilogue = info.version === 1 ? this.#codeEpilogue(entry, info) : this.#describedEpilogue(entry, info);
    return epilogue ?? this.#unwindPrologues(entry, info);
  }

  functionBegin(): number | undefined {
    const found = this.#image.functionAt(this.#rva);
    if (!found || found === 'missing') return undefined;
    const entry = this.#direct(found);
    return this.#primary(entry, this.#info(entry)).begin;
  }

  /** Follows RUNTIME_FUNCTIONs that stand for another one. */
  #direct(entry: FunctionEntry): FunctionEntry {
    if ((entry.unwindInfo & RUNTIME_FUNCTION_INDIRECT) === 0) return entry;
    const bytes = this.#image.read(entry.unwindInfo - RUNTIME_FUNCTION_INDIRECT, RuntimeFunction.size);
    if (!bytes) throw new Stop(`the function entry at RVA ${hex(entry.unwindInfo - 1)} is not in memory`);
    const other = entryOf(bytes, 0);
    if ((other.unwindInfo & RUNTIME_FUNCTION_INDIRECT) !== 0) {
      throw new Stop(`the function entry at RVA ${hex(entry.unwindInfo - 1)} stands for yet another one`);
    }
    return other;
  }

  #info({ unwindInfo: rva }: FunctionEntry): UnwindInfo {
    const header = rva % 4 === 0 ? this.#image.read(rva, UnwindInfoHeader.size) : undefined;
    if (!header) throw new Stop(`the unwind data at RVA ${hex(rva)} is not in memory`);
    const { VersionAndFlags, SizeOfProlog, CountOfCodes, FrameRegisterAndOffset } = UnwindInfoHeader.read(header);
    const version = VersionAndFlags & 7;
    if (version !== 1 && version !== 2) throw new Stop(`the unwind data at RVA ${hex(rva)} has version ${version}`);
    const chained = ((VersionAndFlags >> 3) & UNW_FLAG_CHAININFO) !== 0;
    // An even number of slots, so that what follows is aligned.
    const slotBytes = UnwindCode.size * (CountOfCodes + (CountOfCodes & 1));
    const length = slotBytes + (chained ? RuntimeFunction.size : 0);
    const rest = length === 0 ? Buffer.alloc(0) : this.#image.read(rva + UnwindInfoHeader.size, length);
    if (!rest) throw new Stop(`the unwind codes at RVA ${hex(rva + UnwindInfoHeader.size)} are not in memory`);
    const slots = rest.subarray(0, UnwindCode.size * CountOfCodes);
    return {
      version,
      prologueSize: SizeOfProlog,
      frameRegister: FrameRegisterAndOffset & 15,
      frameOffset: (FrameRegisterAndOffset >> 4) * 16,
      slots,
      operations: parseOperations(slots, rva),
      parent: chained ? this.#direct(entryOf(rest, slotBytes)) : undefined,
    };
  }

  /** `entry` and those that it is chained to, from the outermost in. */
  *#chain(entry: FunctionEntry, info: UnwindInfo): Generator<{ entry: FunctionEntry; info: UnwindInfo }> {
    let at: { entry: FunctionEntry; info: UnwindInfo } | undefined = { entry, info };
    for (let count = 0; at; count++) {
      if (count > MAX_CHAIN) throw new Stop(`its unwind data is a chain of more than ${MAX_CHAIN}`);
      yield at;
      const { parent }: UnwindInfo = at.info;
      at = parent && { entry: parent, info: this.#info(parent) };
    }
  }

  #unwindPrologues(entry: FunctionEntry, info: UnwindInfo): UnwindStep {
    const base = this.#frameBase(entry, info);
    for (const { entry: part, info: each } of this.#chain(entry, info)) {
      const offset = this.#prologueOffset(part);
      for (const { offset: doneAt, operation, info: detail, operand } of each.operations) {
        if (offset < doneAt) continue;
        switch (operation) {
          case UWOP.PUSH_NONVOL:
            this.#restore(detail, this.#pop());
            break;
          case UWOP.ALLOC_LARGE:
            this.#rsp = wrap(this.#rsp + BigInt(detail === 0 ? operand * 8 : operand));
            break;
          case UWOP.ALLOC_SMALL:
            this.#rsp = wrap(this.#rsp + BigInt(detail * 8 + 8));
            break;
          case UWOP.SET_FPREG:
            this.#rsp = wrap(this.#integer(each.frameRegister) - BigInt(each.frameOffset));
            this.#switched = true;
            break;
          case UWOP.SAVE_NONVOL:
            this.#restore(detail, this.#word(base + BigInt(operand * 8)));
            break;
          case UWOP.SAVE_NONVOL_FAR:
            this.#restore(detail, this.#word(base + BigInt(operand)));
            break;
          case UWOP.PUSH_MACHFRAME:
            // What lies behind it is another stack: no code can follow.
            return this.#machineFrame(detail === 0 ? 0n : 8n);
          // XMM registers are not in the state; epilog codes concern epilogues only.
        }
      }
    }
    return this.#return('unwound');
  }

  /** What SAVE_NONVOL offsets count from. */
  #frameBase(entry: FunctionEntry, info: UnwindInfo): bigint {
    if (info.frameRegister === 0) return this.#rsp;
    const offset = this.#prologueOffset(entry);
    const established =
      offset >= info.prologueSize ||
      info.parent !== undefined ||
      info.operations.some((o) => o.operation === UWOP.SET_FPREG && offset >= o.offset);
    return established ? wrap(this.#integer(info.frameRegister) - BigInt(info.frameOffset)) : this.#rsp;
  }

  /** Bytes of the prologue that were run: all of them for code in another part of the function, also one below. */
  #prologueOffset({ begin }: FunctionEntry): number {
    return this.#rva >= begin ? this.#rva - begin : 2 ** 32;
  }

  /**
   * Version 1 has no data on epilogues: the code tells. Runs it to its end if execution is in one; undefined if
   * not, also where the code is not in memory, for execution there is a rare thing.
   */
  #codeEpilogue(entry: FunctionEntry, info: UnwindInfo): UnwindStep | undefined {
    const code = this.#code();
    const given = this.#stackGivenBack(code, info);
    const { pops, end } = popsAt(code, given?.end ?? 0);
    if (!this.#leavesFunction(code, end, entry, info)) return undefined;
    if (given) this.#rsp = wrap(given.stackPointer());
    for (const register of pops) {
      const value = this.#pop();
      // Volatile ones too: `pop rcx` is how 8 bytes are given back.
      if (register !== RSP) this.#integers[register] = value;
      else {
        // As Windows' unwinder has it. No compiler pops RSP.
        this.#rsp = wrap(value + 8n);
        this.#switched = true;
      }
    }
    return this.#return('unwound');
  }

  /** The instruction with which an epilogue can begin, where it ends, and the RSP that it leaves. */
  #stackGivenBack(code: Buffer, info: UnwindInfo): { end: number; stackPointer: () => bigint } | undefined {
    if (startsWith(code, 0x48, 0x83, 0xc4)) {
      return { end: 4, stackPointer: () => this.#rsp + BigInt(code.readInt8(3)) };
    }
    if (startsWith(code, 0x48, 0x81, 0xc4)) {
      return { end: 7, stackPointer: () => this.#rsp + BigInt(code.readInt32LE(3)) };
    }
    if ((code[0]! & 0xfe) !== 0x48 || code[1] !== 0x8d) return undefined;
    // lea rsp, disp[frame register]
    const register = ((code[0]! & 1) << 3) | (code[2]! & 7);
    const form = code[2]! & 0xf8;
    if (register === 0 || register !== info.frameRegister || (form !== 0x60 && form !== 0xa0)) return undefined;
    const displacement = form === 0x60 ? code.readInt8(3) : code.readInt32LE(3);
    this.#switched = true;
    return { end: form === 0x60 ? 4 : 7, stackPointer: () => this.#integer(register) + BigInt(displacement) };
  }

  /** Whether the instruction is a return, or a jump that is a call in disguise. */
  #leavesFunction(code: Buffer, start: number, entry: FunctionEntry, info: UnwindInfo): boolean {
    const at = code[start] === 0xf2 ? start + 1 : start;
    const [first, second, third] = [code[at], code[at + 1], code[at + 2]];
    if (first === 0xc3 || first === 0xc2 || (first === 0xf3 && second === 0xc3)) return true;
    if (first === 0xff && second === 0x25) return true;
    // REX.W, which such a jump has no need of, marks one that leaves the function.
    if (first !== undefined && (first & 0xf8) === 0x48 && second === 0xff && (third! & 0x38) === 0x20) return true;
    if (first !== 0xeb && first !== 0xe9) return false;
    const target = this.#rva + at + (first === 0xeb ? 2 + code.readInt8(at + 1) : 5 + code.readInt32LE(at + 1));
    if (target >= entry.begin && target < entry.end) return target === entry.begin && !info.parent;
    const other = target >= 0 && target < this.#image.size ? this.#image.functionAt(target) : undefined;
    if (!other || other === 'missing') return true;
    // Into another part of the same function, if both have the same primary entry.
    const primary = this.#primary(entry, info);
    const targetEntry = this.#direct(other);
    return this.#primary(targetEntry, this.#info(targetEntry)).begin !== primary.begin || target === primary.begin;
  }

  #primary(entry: FunctionEntry, info: UnwindInfo): FunctionEntry {
    let last = entry;
    for (const part of this.#chain(entry, info)) last = part.entry;
    return last;
  }

  /** Version 2 lists the epilogues: the pops that are left mirror the pushes. Runs them; undefined outside. */
  #describedEpilogue(entry: FunctionEntry, info: UnwindInfo): UnwindStep | undefined {
    const offset = epilogueOffset(entry, info.slots, this.#rva);
    if (offset === undefined) return undefined;
    const isPush = ({ operation }: Operation) => operation === UWOP.PUSH_NONVOL || operation === UWOP.PUSH_MACHFRAME;
    let pushes: Operation[] = [];
    for (const { info: each } of this.#chain(entry, info)) {
      const first = each.operations.findIndex(isPush);
      if (first < 0) continue;
      pushes = each.operations.slice(first);
      break;
    }
    let at = 0;
    for (const { operation, info: detail } of pushes) {
      if (operation === UWOP.PUSH_NONVOL) {
        if (at >= offset) this.#restore(detail, this.#pop());
        at += detail < 8 ? 1 : 2;
      } else if (operation === UWOP.ALLOC_SMALL && detail === 0) {
        // pushfq, given back by a pop of one byte.
        if (at >= offset) this.#rsp = wrap(this.#rsp + 8n);
        at += 1;
      } else if (operation === UWOP.PUSH_MACHFRAME) {
        // The error code is gone before IRETQ.
        return this.#machineFrame(0n);
      } else throw new Stop('it is in an epilogue that its unwind data does not describe');
    }
    return this.#return('unwound');
  }

  /** The code from RIP on, padded with zeros where it is not in memory. */
  #code(): Buffer {
    const code = Buffer.alloc(EPILOGUE_BYTES);
    const length = Math.min(EPILOGUE_BYTES, this.#image.size - this.#rva);
    const inPage = Math.min(length, 0x1000 - (this.#rva % 0x1000));
    (this.#image.read(this.#rva, length) ?? this.#image.read(this.#rva, inPage))?.copy(code);
    return code;
  }

  #return(how: 'unwound' | 'leaf'): UnwindStep {
    const instructionPointer = this.#pop();
    if (!this.#switched && this.#rsp <= this.#from.stackPointer)
      throw new Stop('its unwind data does not lead up the stack');
    return { how, state: this.#state(instructionPointer) };
  }

  #machineFrame(skip: bigint): UnwindStep {
    const frame = wrap(this.#rsp + skip);
    const [instructionPointer, selector, stackPointer] = [
      this.#word(frame + BigInt(MachineFrame.instructionPointer)),
      this.#word(frame + BigInt(MachineFrame.codeSelector)),
      this.#word(frame + BigInt(MachineFrame.stackPointer)),
    ];
    this.#rsp = stackPointer;
    return { how: 'trap', state: this.#state(instructionPointer, isNative(Number(selector & 0xffffn))) };
  }

  #state(instructionPointer: bigint, native = this.#from.native): FrameState {
    const integers = [...this.#integers];
    for (const register of VOLATILE) integers[register] = undefined;
    integers[RSP] = this.#rsp;
    return { instructionPointer, stackPointer: this.#rsp, integers, native };
  }

  #restore(register: number, value: bigint): void {
    if (register === RSP) throw new Stop('its unwind data restores RSP as if it were another register');
    this.#integers[register] = value;
  }

  #integer(register: number): bigint {
    const value = register === RSP ? this.#rsp : this.#integers[register];
    if (value === undefined) throw new Stop(`its frame register (number ${register}) is not known`);
    return value;
  }

  #pop(): bigint {
    const value = this.#word(this.#rsp);
    this.#rsp = wrap(this.#rsp + 8n);
    return value;
  }

  #word(address: bigint): bigint {
    const bytes = this.#read(wrap(address), 8);
    if (!bytes) throw new Stop(`the stack at 0x${wrap(address).toString(16)} is not in memory`);
    return bytes.readBigUInt64LE();
  }
}

const isNative = (codeSelector: number) => codeSelector !== WOW64_CODE_SELECTOR;

/** The registers that instructions from `start` on pop, and where they end. */
function popsAt(code: Buffer, start: number): { pops: readonly number[]; end: number } {
  const pops: number[] = [];
  let at = start;
  while (pops.length < MAX_POPS) {
    const extended = (code[at]! & 0xf0) === 0x40;
    const opcode = code[extended ? at + 1 : at]!;
    if ((opcode & 0xf8) !== 0x58) break;
    pops.push((extended ? (code[at]! & 1) << 3 : 0) | (opcode & 7));
    at += extended ? 2 : 1;
  }
  return { pops, end: at };
}

const startsWith = (code: Buffer, ...bytes: number[]) => bytes.every((byte, i) => code[i] === byte);

function entryOf(bytes: Buffer, at: number): FunctionEntry {
  const { BeginAddress: begin, EndAddress: end, UnwindInfo: unwindInfo } = RuntimeFunction.read(bytes, at);
  return { begin, end, unwindInfo };
}

/** Its entries are RUNTIME_FUNCTIONs. */
export const FUNCTION_TABLE: FunctionTable = { entrySize: RuntimeFunction.size, read: (entry) => entryOf(entry, 0) };

function parseOperations(slots: Buffer, rva: number): Operation[] {
  const operations: Operation[] = [];
  for (let at = 0; at < slots.length; ) {
    const { CodeOffset: offset, OperationAndInfo } = UnwindCode.read(slots, at);
    const [operation, info] = [OperationAndInfo & 15, OperationAndInfo >> 4];
    const count = unwindSlots(operation, info);
    if (count === undefined) throw new Stop(`the unwind data at RVA ${hex(rva)} has the unknown code ${operation}`);
    const end = at + UnwindCode.size * count;
    // Epilog codes go by twos, the last of which may be left out.
    if (end > slots.length && operation !== UWOP.EPILOG) {
      throw new Stop(`the unwind data at RVA ${hex(rva)} ends within a code`);
    }
    let operand = 0;
    for (let i = end > slots.length ? 0 : count - 1; i > 0; i--) {
      operand = operand * 0x1_0000 + UnwindOperand.read(slots, at + UnwindCode.size * i).Value;
    }
    operations.push({ offset, operation, info, operand });
    at = end;
  }
  return operations;
}

/** How far into one of its epilogues `rva` is, by the epilog codes; undefined outside. */
function epilogueOffset({ end }: FunctionEntry, slots: Buffer, rva: number): number | undefined {
  let size = 0;
  for (let at = 0; at < slots.length; at += UnwindCode.size) {
    const { CodeOffset, OperationAndInfo } = UnwindCode.read(slots, at);
    if ((OperationAndInfo & 15) !== UWOP.EPILOG) return undefined;
    const info = OperationAndInfo >> 4;
    let fromEnd = CodeOffset + info * 256;
    if (at === 0) {
      // The first one has the size of all, and says whether one is at the very end.
      size = CodeOffset;
      fromEnd = (info & 1) !== 0 ? size : 0;
    } else if (fromEnd === 0) return undefined;
    const offset = rva - (end - fromEnd);
    if (fromEnd !== 0 && offset >= 0 && offset < size) return offset;
  }
  return undefined;
}

/** By the numbers that instructions encode. */
const INTEGER_ORDER = [
  'Rax',
  'Rcx',
  'Rdx',
  'Rbx',
  'Rsp',
  'Rbp',
  'Rsi',
  'Rdi',
  'R8',
  'R9',
  'R10',
  'R11',
  'R12',
  'R13',
  'R14',
  'R15',
] as const;

/** @param frame a CONTEXT with control and integer registers */
export function frameState(frame: Buffer): FrameState {
  const context = Context.read(frame);
  return {
    instructionPointer: context.Rip,
    stackPointer: context.Rsp,
    integers: INTEGER_ORDER.map((name) => context[name]),
    native: isNative(context.SegCs),
  };
}

/** See `Machine.callerOf`. */
export function callerOf({ stackPointer, integers, native }: FrameState, read: ReadVirtual): FrameState | undefined {
  const instructionPointer = read(stackPointer, 8)?.readBigUInt64LE();
  if (instructionPointer === undefined) return undefined;
  return { instructionPointer, stackPointer: stackPointer + 8n, integers, native, afterCall: true };
}

/** FF /2 with SIB and a displacement of 4 bytes. */
export const LONGEST_CALL = 7;

/**
 * Whether `before`, the bytes that end where a return address points, ends with a call: E8 rel32, or FF /2
 * with any operand.
 */
export function endsWithCall(before: Buffer): boolean {
  const n = before.length;
  if (n >= 5 && before[n - 5] === 0xe8) return true;
  for (let length = 2; length <= LONGEST_CALL && length <= n; length++) {
    const at = n - length;
    if (before[at] === 0xff && indirectCallLength(before, at) === length) return true;
  }
  return false;
}

/** Bytes of `FF /2` at `at`; undefined if it is another instruction. */
function indirectCallLength(code: Buffer, at: number): number | undefined {
  const modrm = code[at + 1]!;
  if (((modrm >> 3) & 7) !== 2) return undefined;
  const [mode, rm] = [modrm >> 6, modrm & 7];
  if (mode === 3) return 2;
  const sib = rm === 4;
  if (sib && at + 2 >= code.length) return undefined;
  const head = sib ? 3 : 2;
  if (mode === 1) return head + 1;
  const disp32 = mode === 2 || rm === 5 || (sib && (code[at + 2]! & 7) === 5);
  return head + (disp32 ? 4 : 0);
}
