/**
 * Registers of the code at fault that a crash itself keeps: the CONTEXT or trap frame that a parameter of the bug check
 * names (Microsoft's pages on each code), or a trap frame on the stack of the crash. Believed where something else says
 * the same.
 */
import { isKernelAddress } from '../core/bits.ts';
import { type VirtualAddress, va } from '../core/units.ts';
import { ExceptionRecord32, ExceptionRecord64 } from '../formats/win-dump.ts';
import type { TrapFrame } from '../machines/trap-frames.ts';
import type { FrameState } from '../machines/unwinding.ts';
import { plainBugCheckCode } from './bug-checks.ts';
import type { Crash } from './crash.ts';
import { stackPieces } from './thread-stack.ts';
import type { Windows } from './windows.ts';

/** Registers at the fault. */
export interface Fault {
  from: 'context' | 'trap-frame';
  /** Of the record that holds them. */
  address: VirtualAddress;
  /** Number of the parameter that names it, from 1; undefined: it was found on the stack. */
  parameter: number | undefined;
  /** What bears it out, as a clause. */
  witness: string;
  state: FrameState;
  /** Those that the record holds, as the debugger names them. */
  registers: TrapFrame['registers'];
}

/** Index of the parameter that has the address of the instruction at fault; `instruction` in Microsoft's pages. */
const INSTRUCTION_PARAMETER: ReadonlyMap<number, number> = new Map([
  ...[0xa, 0xd1].map((code) => [code, 3] as const),
  ...[0x50, 0xcc, 0xd5, 0xd6].map((code) => [code, 2] as const),
  ...[0x1e, 0x3b, 0x7e, 0x8e].map((code) => [code, 1] as const),
]);

/** Bug checks whose first parameter is the address that could not be accessed. */
const REFERENCED_FIRST = new Set([0xa, 0x50, 0xcc, 0xd1, 0xd5, 0xd6]);

/** The parameter that names a record of registers, and the one that names an exception record, by index. */
interface NamedRecord {
  from: Fault['from'];
  registers: number;
  exception?: number;
}

const IN_FILE_SYSTEM: NamedRecord = { from: 'context', registers: 2, exception: 1 };

const NAMED_RECORDS: ReadonlyMap<number, NamedRecord> = new Map<number, NamedRecord>([
  ...[0x22, 0x23, 0x24, 0x26, 0x27, 0x108, 0x12c, 0x149].map((code) => [code, IN_FILE_SYSTEM] as const),
  [0x3b, { from: 'context', registers: 2 }],
  [0x3d, { from: 'context', registers: 1, exception: 0 }],
  [0x7e, { from: 'context', registers: 3, exception: 2 }],
  [0x8e, { from: 'trap-frame', registers: 2 }],
  [0x139, { from: 'trap-frame', registers: 1, exception: 2 }],
]);

/** Number of the parameter that has the address of the instruction at fault, and its value; undefined for other codes. */
export function instructionParameter({ bugCheck }: Crash): { number: number; value: bigint } | undefined {
  const index = INSTRUCTION_PARAMETER.get(plainBugCheckCode(bugCheck.code));
  return index === undefined ? undefined : { number: index + 1, value: bugCheck.parameters[index]! };
}

/** undefined where the crash keeps no such registers, or nothing bears them out. */
export function findFault(windows: Windows): Fault | undefined {
  const { crash } = windows;
  return crash && (namedFault(windows, crash) ?? faultOnStack(windows, crash));
}

function namedFault(windows: Windows, crash: Crash): Fault | undefined {
  const named = NAMED_RECORDS.get(plainBugCheckCode(crash.bugCheck.code));
  const address = named && crash.bugCheck.parameters[named.registers];
  if (!named || address === undefined || !isKernelAddress(address)) return undefined;
  const read = named.from === 'context' ? readContext(windows, address) : readTrapFrame(windows, address);
  const witness = read && witnessOf(windows, crash, named, read.state.instructionPointer);
  if (!read || witness === undefined) return undefined;
  const { state, registers } = read;
  return { from: named.from, address: va(address), parameter: named.registers + 1, witness, state, registers };
}

type Registers = Pick<Fault, 'state' | 'registers'>;

function readContext({ space, image: { machine } }: Windows, address: bigint): Registers | undefined {
  const frame = space.read(address, machine.contextSize);
  if (!frame || !machine.viewContext(frame).complete) return undefined;
  const state = machine.frameState(frame);
  const special = Buffer.alloc(machine.specialRegistersSize);
  const decoded = machine.decodeContext(frame, special, () => undefined);
  return { state, registers: decoded ? machine.namedRegisters(decoded) : [] };
}

function readTrapFrame({ space, image: { machine } }: Windows, address: bigint): TrapFrame | undefined {
  const { size, alignment, read } = machine.trapFrames;
  const bytes = address % BigInt(alignment) === 0n ? space.read(address, size) : undefined;
  return bytes && read(bytes, address);
}

/** What names the same instruction; undefined where nothing does, or something names another one. */
function witnessOf(windows: Windows, crash: Crash, { exception }: NamedRecord, at: bigint): string | undefined {
  const witnesses: { what: string; value: bigint }[] = [];
  const instruction = instructionParameter(crash);
  if (instruction) witnesses.push({ what: `parameter ${instruction.number}`, value: instruction.value });
  const record = exception === undefined ? undefined : exceptionAddress(windows, crash.bugCheck.parameters[exception]!);
  if (record !== undefined) {
    witnesses.push({ what: `the exception record that parameter ${exception! + 1} names`, value: record });
  }
  if (witnesses.length === 0 || witnesses.some(({ value }) => value !== at)) return undefined;
  return `${witnesses.map(({ what }) => what).join(' and ')} ${witnesses.length > 1 ? 'have' : 'has'} its instruction`;
}

/** EXCEPTION_RECORD.ExceptionAddress. */
function exceptionAddress({ space, image: { machine } }: Windows, address: bigint): bigint | undefined {
  if (!isKernelAddress(address)) return undefined;
  const layout = machine.pointerSize === 8 ? ExceptionRecord64 : ExceptionRecord32;
  // As many parameters as it has follow: that much need not be there.
  const bytes = space.read(address, layout.offsetOf('NumberParameters'));
  return bytes && layout.readPartial(bytes, bytes.length).ExceptionAddress;
}

/**
 * The only trap frame on the stack of the crash that has the bug check's instruction, and the address that could not be
 * accessed where the machine's frames hold it.
 */
function faultOnStack(windows: Windows, crash: Crash): Fault | undefined {
  const instruction = instructionParameter(crash);
  if (!instruction) return undefined;
  const code = plainBugCheckCode(crash.bugCheck.code);
  const referenced = REFERENCED_FIRST.has(code) ? crash.bugCheck.parameters[0] : undefined;
  const found = [...framesOnStack(windows, crash, instruction.value)].filter(
    ({ frame: { faultAddress } }) =>
      referenced === undefined || faultAddress === undefined || faultAddress === referenced,
  );
  const [only] = found;
  if (!only || found.length > 1) return undefined;
  const { address, frame } = only;
  const both = referenced !== undefined && frame.faultAddress !== undefined;
  return {
    from: 'trap-frame',
    address: va(address),
    parameter: undefined,
    witness: `on the stack of the crash it alone has the instruction of parameter ${instruction.number}${both ? ' and the address of parameter 1' : ''}`,
    state: frame.state,
    registers: frame.registers,
  };
}

/** Trap frames of kernel code that have an instruction, above the stack pointer of the crash as far as its pages are present. */
function* framesOnStack(
  windows: Windows,
  crash: Crash,
  instruction: bigint,
): Generator<{ address: bigint; frame: TrapFrame }> {
  const { trapFrames, pointerSize } = windows.image.machine;
  const pointer = stackPointerOf(windows, crash);
  if (pointer === undefined) return;
  const from = pointer - (pointer % BigInt(trapFrames.alignment));
  const stack = Buffer.concat([...stackPieces(windows.space, from)]);
  const word = Buffer.alloc(8);
  word.writeBigUInt64LE(BigInt.asUintN(64, instruction));
  if (!stack.includes(word.subarray(0, pointerSize))) return;
  for (let at = 0; at + trapFrames.size <= stack.length; at += trapFrames.alignment) {
    const address = from + BigInt(at);
    const frame = trapFrames.read(stack.subarray(at, at + trapFrames.size), address);
    if (frame?.isMarked && frame.state.instructionPointer === instruction) yield { address, frame };
  }
}

function stackPointerOf({ image: { machine } }: Windows, { processor, captured }: Crash): bigint | undefined {
  const frame = processor && captured.get(processor);
  if (frame && frame.doubt === undefined) return frame.view.stackPointer;
  const registers = processor?.cpu?.registers;
  const pointer = registers && machine.stackPointer(registers);
  return pointer !== undefined && isKernelAddress(pointer) ? pointer : undefined;
}
