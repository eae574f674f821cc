/** Whose fault a crash is, as far as rules go, and what it is known by (docs/signatures.md). */
import { hex, hex64 } from '../core/units.ts';
import { type Contexts, chooseContexts, type ShownContext } from '../plan/contexts.ts';
import type { Symbols } from '../symbols/symbols.ts';
import { isIdle } from '../windows/activity.ts';
import type { Crash } from '../windows/crash.ts';
import {
  busyFrame,
  callsBugCheck,
  isPlumbing,
  isWindowsOwn,
  keptFrames,
  moduleName,
  rvaSignature,
  type Signature,
  type SignatureFrame,
  symbolSignature,
} from '../windows/signature.ts';
import { frameAt, type StackFrame, walkStack } from '../windows/stacks.ts';
import type { Windows } from '../windows/windows.ts';
import { reportFramePlace } from './frame-place.ts';
import type { AddressPlace, Places } from './places.ts';
import type { CodePlace } from './processors.ts';

/** Which driver probably caused a crash: a reading of the rules, not a verdict. */
export interface CulpritReport {
  module: string;
  /** Where in it; null for a module that was unloaded. */
  at: CodePlace | null;
  /** The rule that says so. */
  reason: string;
}

/** What a crash or a hang is known by. Only signatures of one basis are compared. */
export interface SignaturesReport {
  /** By functions of PDBs; null without them. */
  symbols: Signature | null;
  rva: Signature;
}

/** What is said of a crash besides its parameters. */
export interface Verdict {
  culprit: CulpritReport | null;
  signatures: SignaturesReport;
}

/** Index of the parameter that has the address of the instruction at fault; `instruction` in Microsoft's pages. */
const FAULT_PARAMETER: ReadonlyMap<number, number> = new Map([
  ...[0xa, 0xd1].map((code) => [code, 3] as const),
  ...[0x50, 0xcc, 0xd5, 0xd6].map((code) => [code, 2] as const),
  ...[0x1e, 0x3b, 0x7e, 0x8e].map((code) => [code, 1] as const),
]);

/** Index of the parameter that has the address of a CONTEXT with the registers at the fault. */
const CONTEXT_PARAMETER: ReadonlyMap<number, number> = new Map([
  [0x3b, 2],
  [0x7e, 3],
]);

/** Index of the parameter that lies in the responsible driver: its owner tag. */
const OWNER_PARAMETER: ReadonlyMap<number, number> = new Map([
  [0x116, 1],
  [0x117, 1],
]);

/** Index of the parameter that lies in the driver which broke a rule of Driver Verifier, by parameter 1 of 0xC4. */
const VERIFIED_PARAMETER: ReadonlyMap<bigint, number> = new Map([
  ...[0xe3n, 0xe4n, 0xe6n, 0xfan, 0xfbn, 0xfcn, 0x111n, 0x2000n, 0x2001n, 0x2002n].map((rule) => [rule, 1] as const),
  [0xf6n, 3],
]);

/**
 * Bug checks whose stack says who noticed, not who caused it: corrupt memory and file systems, hardware, a processor that
 * does not answer, a request of the user's, power requests, processes of user mode that ended.
 */
const NOTICED = new Set([
  ...[0x19, 0x1a, 0x24, 0x2e, 0x4e, 0x77, 0x7a, 0x7b, 0x9c, 0x9f, 0xc2, 0xe2, 0xed, 0xef, 0xf4],
  ...[0x101, 0x109, 0x124, 0x12b, 0x13a, 0x154, 0x161, 0x1c8, 0xc000_021a, 0xdead_dead],
]);

/** Culprit and signatures of what `windows` shows, whatever registers the report itself shows. */
export function judge(windows: Windows, places: Places, symbols: Symbols | undefined): Verdict {
  const contexts = chooseContexts(windows, 'auto');
  const { crash } = windows;
  if (!crash) return { culprit: null, signatures: signaturesOf(undefined, busyFrames(windows, contexts, symbols)) };
  const code = plainCode(crash);
  const fault = faultFrame(windows, crash, symbols);
  const stack = keptFrames(stackOf(windows, crash, contexts, symbols));
  const kept = stack.length === 0 && fault ? [fault] : stack;
  const culprit = NOTICED.has(code) ? null : culpritOf(crash, { fault, first: stack[0] }, places);
  return { culprit, signatures: signaturesOf(crash, kept) };
}

const signaturesOf = (crash: Crash | undefined, frames: readonly SignatureFrame[]): SignaturesReport => ({
  symbols: symbolSignature(crash?.bugCheck, frames) ?? null,
  rva: rvaSignature(crash?.bugCheck, frames),
});

/** The code without the bit 0x10000000 that some callers set. */
const plainCode = ({ bugCheck: { code } }: Crash): number => (code >>> 28 === 1 ? code - 0x1000_0000 : code);

const parameterOf = (crash: Crash, indexes: ReadonlyMap<number, number>): bigint | undefined =>
  crash.bugCheck.parameters[indexes.get(plainCode(crash)) ?? -1];

/** The frame of the instruction at fault, where a parameter has it and it lies in a module. */
function faultFrame(windows: Windows, crash: Crash, symbols: Symbols | undefined): StackFrame | undefined {
  const address = parameterOf(crash, FAULT_PARAMETER);
  const processor = crash.processor ?? windows.processors[0];
  if (address === undefined || !processor || address >> 63n === 0n) return undefined;
  const frame = frameAt(windows, processor, address, symbols);
  return frame.module && moduleName(frame) ? frame : undefined;
}

/** The stack of the code that crashed: from the CONTEXT of the fault, or of the processor that crashed. */
function stackOf(
  windows: Windows,
  crash: Crash,
  { shown }: Contexts,
  symbols: Symbols | undefined,
): readonly StackFrame[] {
  const own = shown.find(({ processor }) => processor === crash.processor);
  const processor = crash.processor ?? windows.processors[0];
  const context = faultContext(windows, crash);
  if (context && processor) return walkStack(windows, processor, context, { symbols }).frames;
  if (!crash.processor) return onlyBugCheck(windows, shown, symbols);
  if (!own || own.source === 'unknown') return [];
  const { frames } = walkStack(windows, own.processor, own.frame, { symbols });
  const captured = crash.captured.get(own.processor);
  // Where the kernel's exports are missing, only this says that the frame is KeBugCheckEx's.
  const atBugCheck = captured?.atBugCheck && frames[0]?.instructionPointer === captured.view.instructionPointer;
  return atBugCheck ? frames.slice(1) : frames;
}

/** Where nothing says which processor crashed: the only stack that leads through the bug check. */
function onlyBugCheck(
  windows: Windows,
  shown: readonly ShownContext[],
  symbols: Symbols | undefined,
): readonly StackFrame[] {
  const stacks = shown
    .filter(({ source }) => source !== 'unknown')
    .map(({ processor, frame }) => walkStack(windows, processor, frame, { symbols }).frames)
    .filter(callsBugCheck);
  return stacks.length === 1 ? stacks[0]! : [];
}

/** Believed where its instruction pointer is the one that the other parameter names. */
function faultContext({ image: { machine }, space }: Windows, crash: Crash): Buffer | undefined {
  const address = parameterOf(crash, CONTEXT_PARAMETER);
  const frame = address === undefined ? undefined : space.read(address, machine.contextSize);
  if (!frame) return undefined;
  const { complete, instructionPointer } = machine.viewContext(frame);
  return complete && instructionPointer === parameterOf(crash, FAULT_PARAMETER) ? frame : undefined;
}

/** Of a guest that runs: what its processors do in drivers, in an order that does not depend on which does what. */
function busyFrames(windows: Windows, { shown }: Contexts, symbols: Symbols | undefined): readonly SignatureFrame[] {
  const frames = shown.flatMap(({ processor, source, frame }) => {
    if (source === 'unknown') return [];
    const stack = walkStack(windows, processor, frame, { symbols }).frames;
    return isIdle(windows, { processor, frame }, stack) ? [] : (busyFrame(stack) ?? []);
  });
  const keyOf = (frame: SignatureFrame) => `${moduleName(frame)} ${frame.functionBegin ?? frame.instructionPointer}`;
  return [...new Map(frames.map((frame) => [keyOf(frame), frame])).entries()]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([, frame]) => frame);
}

function culpritOf(
  crash: Crash,
  { fault, first }: { fault: StackFrame | undefined; first: SignatureFrame | undefined },
  places: Places,
): CulpritReport | null {
  const owner = ownerOf(crash, places) ?? unloadedOf(crash, places);
  if (owner) return owner;
  const caller = first && !isPlumbing(first) ? first : undefined;
  if (fault && !isPlumbing(fault)) {
    if (caller && moduleName(caller) !== moduleName(fault)) return null;
    const number = FAULT_PARAMETER.get(plainCode(crash))! + 1;
    return blame(fault, `parameter ${number} has the address of the instruction at fault, which is its code`);
  }
  if (!caller) return null;
  return blame(caller, "on the stack of the crash, the first code that is not Windows' own is its");
}

const blame = (frame: SignatureFrame, reason: string): CulpritReport => ({
  module: frame.module!.name,
  at: reportFramePlace(frame),
  reason,
});

const inModule = (place: AddressPlace | null) => (place?.in === 'module' && place.module ? place : undefined);

function ownerOf(crash: Crash, places: Places): CulpritReport | undefined {
  const code = plainCode(crash);
  const { parameters } = crash.bugCheck;
  const index = code === 0xc4 ? VERIFIED_PARAMETER.get(parameters[0]) : OWNER_PARAMETER.get(code);
  const address = index === undefined ? undefined : parameters[index];
  const place = address === undefined ? undefined : inModule(places.of(address));
  if (!place || isWindowsOwn(place.module!)) return undefined;
  const { in: _, section: __, ...at } = place;
  const how = code === 0xc4 ? 'the place that broke the rule' : 'by which the driver is known';
  return { module: place.module!, at, reason: `parameter ${index! + 1}, ${how}, lies in it: ${hex64(address!)}` };
}

/** Code that runs where a module was, ran in that module. */
function unloadedOf(crash: Crash, places: Places): CulpritReport | undefined {
  const indexes = plainCode(crash) === 0xce ? [0] : [FAULT_PARAMETER.get(plainCode(crash)) ?? -1];
  for (const index of indexes) {
    const address = crash.bugCheck.parameters[index];
    const place = address === undefined ? null : places.of(address);
    if (place?.in !== 'unloaded-module' || place.module === '') continue;
    const reason = `parameter ${index + 1} lies in what it had before it was unloaded, at ${hex(Number(place.offset))}`;
    return { module: place.module, at: null, reason };
  }
  return undefined;
}
