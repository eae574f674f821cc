/** Whose fault a crash is, as far as rules go, and what it is known by (docs/signatures.md). */
import { hex, hex64 } from '../core/units.ts';
import { type Contexts, chooseContexts, type ShownContext } from '../plan/contexts.ts';
import type { Symbols } from '../symbols/symbols.ts';
import { isIdle } from '../windows/activity.ts';
import { plainBugCheckCode } from '../windows/bug-checks.ts';
import type { Crash } from '../windows/crash.ts';
import { type Fault, instructionParameter } from '../windows/fault.ts';
import { holderOfPowerRequest } from '../windows/power-request.ts';
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
import { frameAt, type StackFrame, walkFrom, walkStack } from '../windows/stacks.ts';
import type { Windows } from '../windows/windows.ts';
import { reportFramePlace } from './frame-place.ts';
import type { AddressPlace, Places } from './places.ts';
import type { CodePlace } from './processors.ts';

/** Which driver probably caused a crash: a reading of the rules, not a verdict. */
export interface CulpritReport {
  module: string;
  /** Where in it; null where no code is known that did it, as in a module that was unloaded. */
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

/** A parameter, by index, that lies in the responsible driver, and what it is there. */
interface OwnerParameter {
  index: number;
  what: string;
}

const KNOWN_BY = { index: 1, what: 'by which the driver is known' };

const OWNER_PARAMETER: ReadonlyMap<number, OwnerParameter> = new Map([
  ...[0x116, 0x117, 0x141].map((code) => [code, KNOWN_BY] as const),
  ...[0xe1, 0x1d6].map((code) => [code, { index: 0, what: 'the worker routine' }] as const),
  [0x11b, { index: 1, what: 'the cancel routine that kept the lock' }],
  [0x135, { index: 2, what: "the driver's callback" }],
]);

/** Kinds of 0xC2, its first parameter, that are the caller's own doing, whatever memory is like: a rule was broken. */
const POOL_RULES = new Set([0x0n, 0x8n, 0x9n, 0x9an, 0x9bn, 0x9cn, 0x9dn]);

/** Those of which the fourth parameter is the caller's address. */
const POOL_CALLER = new Set([0x9bn, 0x9cn, 0x9dn]);

/** Index of the parameter that lies in the driver which broke a rule of Driver Verifier, by parameter 1 of 0xC4. */
const VERIFIED_PARAMETER: ReadonlyMap<bigint, number> = new Map([
  ...[0xc1n, 0xc3n, 0xc5n, 0xc6n, 0xdan, 0xddn].map((rule) => [rule, 1] as const),
  ...[0xe3n, 0xe4n, 0xe6n, 0xfan, 0xfbn, 0xfcn, 0x110n, 0x111n, 0x2000n, 0x2001n, 0x2002n].map(
    (rule) => [rule, 1] as const,
  ),
  [0xf6n, 3],
]);

/**
 * Bug checks whose stack says who noticed, not who caused it: corrupt memory and file systems, hardware, a processor that
 * does not answer, a request of the user's, power requests, processes of user mode that ended, watchdogs that found that
 * something else does not go on.
 */
const NOTICED = new Set([
  ...[0x19, 0x1a, 0x23, 0x24, 0x2e, 0x4e, 0x77, 0x7a, 0x7b, 0x9c, 0x9f, 0xc2, 0xe2, 0xea, 0xed, 0xef, 0xf4],
  ...[0x101, 0x109, 0x10e, 0x113, 0x116, 0x117, 0x119, 0x124, 0x12b, 0x12c, 0x13a, 0x141, 0x142, 0x14f, 0x154],
  ...[0x15c, 0x15f, 0x161, 0x162, 0x192, 0x19c, 0x1a1, 0x1a3, 0x1c8, 0x1ca, 0x1d5, 0xc000_021a, 0xdead_dead],
]);

/** Kinds of 0x139, its first parameter, that are noticed later: a list's entry or a tree's node was corrupted. */
const LINKS = new Set([3n, 29n]);

/**
 * The stack of a crash says who noticed; with 0x133 and 1, who ran when the time of several was up. A driver that
 * stumbles over the links of its own lists has mismanaged them; the kernel stumbles over anybody's.
 *
 * @param noticing the code that noticed, as far as the crash keeps its registers
 */
function isNoticed({ bugCheck }: Crash, noticing: StackFrame | undefined): boolean {
  const code = plainBugCheckCode(bugCheck.code);
  const [kind] = bugCheck.parameters;
  if (code === 0xc2) return !POOL_RULES.has(kind);
  if (code === 0x139 && LINKS.has(kind)) return noticing === undefined || isPlumbing(noticing);
  return NOTICED.has(code) || (code === 0x133 && kind === 1n);
}

/** What is known besides. */
interface Found {
  /** As `findFault` gives it. */
  fault: Fault | undefined;
  symbols: Symbols | undefined;
}

/** Culprit and signatures of what `windows` shows, whatever registers the report itself shows. */
export function judge(windows: Windows, places: Places, { fault, symbols }: Found): Verdict {
  const contexts = chooseContexts(windows, 'auto');
  const { crash } = windows;
  if (!crash) return { culprit: null, signatures: signaturesOf(undefined, busyFrames(windows, contexts, symbols)) };
  const instruction = codeFrame(windows, crash, instructionParameter(crash)?.value, symbols);
  const noticing = codeFrame(windows, crash, fault?.state.instructionPointer, symbols);
  const stack = keptFrames(stackOf(windows, crash, { contexts, symbols, fault }));
  const kept = stack.length === 0 && instruction ? [instruction] : stack;
  const culprit = culpritOf(windows, crash, { instruction, first: stack[0], noticing }, places);
  return { culprit, signatures: signaturesOf(crash, kept) };
}

const signaturesOf = (crash: Crash | undefined, frames: readonly SignatureFrame[]): SignaturesReport => ({
  symbols: symbolSignature(crash?.bugCheck, frames) ?? null,
  rva: rvaSignature(crash?.bugCheck, frames),
});

/** The frame of an instruction of the kernel's half, where it lies in a module. */
function codeFrame(
  windows: Windows,
  crash: Crash,
  address: bigint | undefined,
  symbols: Symbols | undefined,
): StackFrame | undefined {
  const processor = crash.processor ?? windows.processors[0];
  if (address === undefined || !processor || address >> 63n === 0n) return undefined;
  const frame = frameAt(windows, processor, address, symbols);
  return frame.module && moduleName(frame) ? frame : undefined;
}

/** What the stack of a crash is found by. */
interface StackClues {
  contexts: Contexts;
  symbols: Symbols | undefined;
  fault: Fault | undefined;
}

/** The stack of the code that crashed: from the fault's own registers, or of the processor that crashed. */
function stackOf(windows: Windows, crash: Crash, clues: StackClues): readonly StackFrame[] {
  const { fault, symbols } = clues;
  const processor = crash.processor ?? windows.processors[0];
  const walked = () => crashedStack(windows, crash, clues);
  if (!fault || !processor) return walked();
  const fromFault = () => walkFrom(windows, processor, fault.state, { symbols }).frames;
  if (fault.parameter !== undefined) return fromFault();
  // More registers are known at a frame that unwinding leads to.
  const frames = walked();
  const leadsThere = ({ how, certain, instructionPointer }: StackFrame) =>
    certain && how === 'trap' && instructionPointer === fault.state.instructionPointer;
  return frames.some(leadsThere) ? frames : fromFault();
}

/** Of the processor that crashed, from the registers that it shows. */
function crashedStack(
  windows: Windows,
  crash: Crash,
  { contexts: { shown }, symbols }: StackClues,
): readonly StackFrame[] {
  const own = shown.find(({ processor }) => processor === crash.processor);
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

/** Frames that a culprit is looked for in. */
interface Suspects {
  /** Of the instruction at fault. */
  instruction: StackFrame | undefined;
  /** The innermost that is kept of the stack. */
  first: SignatureFrame | undefined;
  /** That the crash keeps the registers of. */
  noticing: StackFrame | undefined;
}

function culpritOf(
  windows: Windows,
  crash: Crash,
  { instruction, first, noticing }: Suspects,
  places: Places,
): CulpritReport | null {
  const owner = ownerOf(crash, places) ?? holderOf(windows, crash) ?? unloadedOf(crash, places);
  if (owner) return owner;
  if (isNoticed(crash, noticing)) return null;
  const caller = first && !isPlumbing(first) ? first : undefined;
  if (instruction && !isPlumbing(instruction)) {
    if (caller && moduleName(caller) !== moduleName(instruction)) return null;
    const { number } = instructionParameter(crash)!;
    return blame(instruction, `parameter ${number} has the address of the instruction at fault, which is its code`);
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

function ownerParameter({ bugCheck: { code, parameters } }: Crash): OwnerParameter | undefined {
  const plain = plainBugCheckCode(code);
  const [kind] = parameters;
  if (plain === 0xc2) return POOL_CALLER.has(kind) ? { index: 3, what: "the caller's address" } : undefined;
  if (plain !== 0xc4) return OWNER_PARAMETER.get(plain);
  const index = VERIFIED_PARAMETER.get(kind);
  return index === undefined ? undefined : { index, what: 'the place that broke the rule' };
}

function ownerOf(crash: Crash, places: Places): CulpritReport | undefined {
  const owner = ownerParameter(crash);
  const address = owner && crash.bugCheck.parameters[owner.index];
  const place = address === undefined ? undefined : inModule(places.of(address));
  if (!owner || !place || isWindowsOwn(place.module!)) return undefined;
  const { in: _, section: __, ...at } = place;
  const { index, what } = owner;
  return { module: place.module!, at, reason: `parameter ${index + 1}, ${what}, lies in it: ${hex64(address!)}` };
}

/** Who holds the power request that does not end: 0x9F with 3. */
function holderOf(windows: Windows, { bugCheck: { code, parameters } }: Crash): CulpritReport | undefined {
  if (plainBugCheckCode(code) !== 0x9f || parameters[0] !== 3n) return undefined;
  const holder = holderOfPowerRequest(windows, parameters[3]);
  if (!holder?.name || isWindowsOwn(holder.name)) return undefined;
  const reason = 'parameter 4 is a power request (IRP), whose current stack location is of its device';
  return { module: holder.name, at: null, reason };
}

/** Code that runs where a module was, ran in that module. */
function unloadedOf(crash: Crash, places: Places): CulpritReport | undefined {
  const { code, parameters } = crash.bugCheck;
  const ran = plainBugCheckCode(code) === 0xce ? { number: 1, value: parameters[0] } : instructionParameter(crash);
  const place = ran && places.of(ran.value);
  if (place?.in !== 'unloaded-module' || place.module === '') return undefined;
  const reason = `parameter ${ran!.number} lies in what it had before it was unloaded, at ${hex(Number(place.offset))}`;
  return { module: place.module, at: null, reason };
}
