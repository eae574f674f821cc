/** In a crashed guest: the bug check, which processor crashed, and the registers that Windows captured then. */

import { isKernelAddress, pointerAt } from '../core/bits.ts';
import type { Diagnostics } from '../core/errors.ts';
import { Reason } from '../core/reason.ts';
import { hex, hex64, type VirtualAddress, va } from '../core/units.ts';
import type { ContextView } from '../machines/machine.ts';
import type { AddressSpace } from '../memory/address-space.ts';
import type { Evidence } from './evidence.ts';
import type { Kdbg } from './kdbg.ts';
import type { KernelImage } from './kernel-image.ts';
import { type Module, moduleOf } from './modules.ts';
import { findExport, functionAt, functionEntry, readExports, readPeImage } from './pe-image.ts';
import { type Processor, readContextFrame } from './processors.ts';
import { currentThreadStack, isOnStack, stackPieces } from './thread-stack.ts';

const STEP = 'crashing processor';

/** KeBugCheck is the form without parameters. */
const BUG_CHECK_FUNCTIONS = ['KeBugCheckEx', 'KeBugCheck'] as const;

/** The frame that a processor's PRCB points to, as the guest left it. */
export interface CapturedFrame {
  address: VirtualAddress;
  bytes: Buffer;
  view: ContextView;
  /** Why it must not be shown; undefined when nothing speaks against it. */
  doubt: string | undefined;
  /** Windows captured it in KeBugCheckEx: its instruction pointer lies there, or in what must be that. */
  atBugCheck: boolean;
  /** Its instruction pointer is a kernel function's first byte: KeBugCheckEx captures the frame of its own call. */
  startsFunction: boolean;
}

/** What the kernel stored in KiBugCheckData. */
export interface BugCheck {
  code: number;
  parameters: readonly [bigint, bigint, bigint, bigint];
  /** Where KiBugCheckData is. */
  address: VirtualAddress;
}

/** A crashed guest. */
export interface Crash {
  bugCheck: BugCheck;
  /** undefined: the guest crashed, but on which processor is unknown. */
  processor: Processor | undefined;
  /** What identified the processor. */
  how: 'input' | 'captured-frame' | 'stack' | 'only-processor' | 'unknown';
  captured: ReadonlyMap<Processor, CapturedFrame>;
}

interface CodeRange {
  from: bigint;
  to: bigint;
}

/** What a crash is looked for in. */
export interface CrashScene {
  space: AddressSpace;
  kernel: KernelImage;
  kdbg: Kdbg;
  modules: readonly Module[];
  processors: readonly Processor[];
}

/** The crash, or undefined in a guest that did not crash. Adds what is doubtful to the image's diagnostics. */
export function findCrash(scene: CrashScene, evidence: Evidence): Crash | undefined {
  const { space, kdbg, processors } = scene;
  const { diagnostics } = space.image;
  const bugCheck = readBugCheck(space, kdbg, diagnostics);
  if (bugCheck === 'unknown') return undefined;
  const { bugCheckCode, captured } = readFrames(scene, evidence);
  const flagged = processors.find((p) => p.cpu?.crashed);
  if (bugCheck === 'none') {
    const trace = traceOfCrash(scene, { flagged, captured });
    if (trace !== undefined) {
      diagnostics.add(
        'loss',
        'bug-check-missing',
        `KiBugCheckData at ${hex64(kdbg.fields.KiBugCheckData ?? 0n)} holds no bug check, but ${trace}: whether the guest crashed is unknown`,
      );
    }
    return undefined;
  }
  addDoubt(scene, bugCheck, captured);
  const identified = (processor: Processor, how: Crash['how'], detail: string): Crash => {
    evidence.accept(STEP, `processor ${processor.number}`, detail);
    return { bugCheck, processor, how, captured };
  };

  if (flagged)
    return identified(flagged, 'input', `the input says that the guest crashed on CPU ${flagged.cpu?.index}`);
  const framed = processors.filter((p) => captured.get(p)?.atBugCheck && captured.get(p)?.doubt === undefined);
  if (framed.length === 1)
    return identified(framed[0]!, 'captured-frame', 'its captured frame alone is in KeBugCheckEx');
  const stacked = processors.filter((p) => stackHolds(space, p, bugCheckCode));
  const onStack = new Set(stacked);
  const both = framed.filter((p) => onStack.has(p));
  const strongest = [both, framed, stacked].find((found) => found.length > 0) ?? [];
  if (strongest.length === 1) {
    return identified(strongest[0]!, 'stack', 'its stack alone holds a return address in KeBugCheckEx');
  }
  if (processors.length === 1) {
    if (hasOnlyOtherFrames(processors, captured)) {
      unconfirmed(diagnostics, bugCheck, "neither the processor's frame nor its stack is in KeBugCheckEx");
    }
    return identified(processors[0]!, 'only-processor', 'it is the only one');
  }
  diagnostics.add(
    'warning',
    'crashing-processor-unknown',
    'the guest crashed, but on which processor is unknown: the dump opens on the first one',
  );
  return { bugCheck, processor: undefined, how: 'unknown', captured };
}

/** Every frame that Windows captured, and what KeBugCheckEx is. */
function readFrames(
  scene: CrashScene,
  evidence: Evidence,
): { bugCheckCode: CodeRange[]; captured: Map<Processor, CapturedFrame> } {
  const { space, kernel, processors } = scene;
  const { words } = space.image.machine;
  const exported = BUG_CHECK_FUNCTIONS.flatMap((name) => rangeOf(space, kernel, name) ?? []);
  const frames = processors.flatMap((processor) => {
    const frame = readCaptured(scene, processor);
    return frame ? [{ processor, frame }] : [];
  });
  const bugCheckCode = exported.length > 0 ? exported : codeOfFrames(scene, frames);
  const where =
    exported.length > 0 ? 'KeBugCheckEx' : 'the function that must be KeBugCheckEx: exports are not present';
  const captured = new Map<Processor, CapturedFrame>();
  for (const { processor, frame: read } of frames) {
    const code = read.view.instructionPointer;
    const frame = { ...read, atBugCheck: bugCheckCode.some(({ from, to }) => code >= from && code < to) };
    captured.set(processor, frame);
    const method = `captured frame of processor ${processor.number}`;
    if (frame.doubt) evidence.reject(STEP, method, frame.doubt);
    else
      evidence.accept(
        STEP,
        method,
        `${words.instructionPointer} ${hex64(frame.view.instructionPointer)}${frame.atBugCheck ? ` in ${where}` : ''}, ${words.stackPointer} ${hex64(frame.view.stackPointer)}`,
      );
  }
  return { bugCheckCode, captured };
}

/** What else shows that a guest without a bug check crashed, as a clause. */
function traceOfCrash(
  { space, kernel, processors }: CrashScene,
  { flagged, captured }: { flagged: Processor | undefined; captured: ReadonlyMap<Processor, CapturedFrame> },
): string | undefined {
  if (flagged) return `the input says that it crashed on CPU ${flagged.cpu?.index}`;
  // Only with exact bounds: what follows KeBugCheckEx runs in every guest.
  const code = BUG_CHECK_FUNCTIONS.flatMap((name) => {
    const from = findExport(space, kernel, name);
    if (from === undefined) return [];
    const listed = functionAt(space, kernel, from);
    return listed ?? (space.image.machine.functionTable ? [] : unlistedRange({ space, kernel }, from, FIRST_CALL));
  });
  const isBugCheck = (address: bigint) => code.some(({ from, to }) => address >= from && address < to);
  for (const processor of processors) {
    const frame = captured.get(processor);
    if (frame && frame.doubt === undefined && isBugCheck(frame.view.instructionPointer))
      return `the frame that Windows captured on processor ${processor.number} is in KeBugCheckEx`;
    if (stackHolds(space, processor, code))
      return `the stack of processor ${processor.number} holds a return address in KeBugCheckEx`;
  }
  return undefined;
}

/** On machines whose functions nothing lists, KeBugCheckEx calls on at once: +0x1b to +0x1e in public stack traces. */
const FIRST_CALL = 0x40n;

const unconfirmed = (diagnostics: Diagnostics, { address, code }: BugCheck, why: string): void =>
  diagnostics.add(
    'warning',
    'bug-check-unconfirmed',
    `KiBugCheckData at ${hex64(address)} has the bug check ${hex(code)}, but ${why}`,
  );

/**
 * What KeBugCheckEx was called with is in the frame of its own call. Windows stores another code for some, and
 * other parameters for some, but never all of them.
 */
function addDoubt(
  { space, kernel }: CrashScene,
  bugCheck: BugCheck,
  captured: ReadonlyMap<Processor, CapturedFrame>,
): void {
  const begin = findExport(space, kernel, 'KeBugCheckEx');
  for (const [{ number }, { view, doubt }] of captured) {
    if (doubt !== undefined || !view.arguments || view.instructionPointer !== begin) continue;
    const [code, ...parameters] = view.arguments;
    const isSaved = view.arguments.some((value) => value !== 0n);
    const isSame =
      Number(BigInt.asUintN(32, code)) === bugCheck.code ||
      parameters.some((p, i) => p !== 0n && p === bugCheck.parameters[i]) ||
      [...parameters, ...bugCheck.parameters].every((p) => p === 0n);
    if (!isSaved || isSame) continue;
    unconfirmed(
      space.image.diagnostics,
      bugCheck,
      `the frame of processor ${number} shows that KeBugCheckEx was called with ${hex64(code)} and other parameters`,
    );
  }
}

/** Each processor has a frame that nothing speaks against, and none of them is in KeBugCheckEx. */
const hasOnlyOtherFrames = (
  processors: readonly Processor[],
  captured: ReadonlyMap<Processor, CapturedFrame>,
): boolean =>
  processors.every((processor) => {
    const frame = captured.get(processor);
    return frame !== undefined && frame.doubt === undefined && !frame.atBugCheck;
  });

/** The bug check in KiBugCheckData; `none` while the system runs: the code is 0. `unknown`: the data cannot be believed. */
function readBugCheck(space: AddressSpace, kdbg: Kdbg, diagnostics: Diagnostics): BugCheck | 'none' | 'unknown' {
  const { pointerSize } = space.image.machine;
  const address = kdbg.fields.KiBugCheckData;
  const bytes = address !== undefined && isKernelAddress(address) ? space.read(address, 5 * pointerSize) : undefined;
  if (address === undefined || !bytes) {
    diagnostics.add(
      'loss',
      'bug-check-unreadable',
      `KiBugCheckData at ${hex64(address ?? 0n)} is not present: whether the guest crashed is unknown`,
    );
    return 'unknown';
  }
  const word = (i: number) => pointerAt(bytes, pointerSize * i, pointerSize);
  // Kept as wide as a pointer, sign-extended: 0xffffffffc000021a is stop 0xc000021a.
  const code = bytes.readUInt32LE(0);
  if (code === 0) return 'none';
  const upper = pointerSize === 8 ? bytes.readUInt32LE(4) : 0;
  const isErased = bytes.every((byte) => byte === 0xff);
  if (isErased || (upper !== 0 && !(upper === 0xffff_ffff && code >= 0x8000_0000))) {
    diagnostics.add(
      'loss',
      'bug-check-implausible',
      `KiBugCheckData at ${hex64(address)} begins with ${hex64(word(0))}, which is not a bug check code: whether the guest crashed is unknown`,
      { virtual: hex64(address) },
    );
    return 'unknown';
  }
  return { code, parameters: [word(1), word(2), word(3), word(4)], address: va(address) };
}

/** Addresses of an exported function, by its unwind data where there is some. */
function rangeOf(space: AddressSpace, kernel: KernelImage, name: string): CodeRange | undefined {
  const from = findExport(space, kernel, name);
  if (from === undefined) return undefined;
  const bounds = functionAt(space, kernel, from);
  if (bounds) return bounds;
  return unlistedRange({ space, kernel }, from, 0x200n);
}

/** So many bytes of a function whose bounds are not known, at most up to the next export where that ends it. */
function unlistedRange(
  { space, kernel }: Pick<CrashScene, 'space' | 'kernel'>,
  from: bigint,
  bytes: bigint,
): CodeRange {
  const end = from + bytes;
  const next = space.image.machine.functionTable ? undefined : nextExport(space, kernel, from);
  return { from, to: next !== undefined && next < end ? next : end };
}

/** Where nothing lists functions, the next export ends one. */
function nextExport(space: AddressSpace, kernel: KernelImage, from: bigint): bigint | undefined {
  const rva = Number(from - kernel.base);
  const next = readExports(space, kernel)?.entries.find((entry) => entry.rva > rva);
  return next && kernel.base + BigInt(next.rva);
}

/**
 * What must be KeBugCheckEx where no export names it: the function that the only frame which Windows captured begins
 * or, of several, the only one that begins a function. Others are those of processors that were stopped.
 */
function codeOfFrames(
  { space, kernel }: CrashScene,
  frames: readonly { frame: Omit<CapturedFrame, 'atBugCheck'> }[],
): CodeRange[] {
  const sound = frames.filter(({ frame }) => frame.doubt === undefined);
  const starting = sound.filter(({ frame }) => frame.startsFunction);
  const [only] = starting.length > 0 ? starting : sound;
  if (!only || (starting.length > 0 ? starting : sound).length > 1) return [];
  const from = only.frame.view.instructionPointer;
  return [functionAt(space, kernel, from) ?? { from, to: from + 1n }];
}

function readCaptured(scene: CrashScene, processor: Processor): Omit<CapturedFrame, 'atBugCheck'> | undefined {
  const { space, kernel, modules } = scene;
  const { machine } = space.image;
  const { context: address } = processor;
  const bytes = readContextFrame(space, processor);
  if (!bytes || address === undefined || address instanceof Reason) return undefined;
  const view = machine.viewContext(bytes);
  const { instructionPointer: code, stackPointer: stack } = view;
  const { instructionPointer, stackPointer } = machine.words;
  const inKernel = code >= kernel.base && code < kernel.base + BigInt(kernel.size);
  let doubt: string | undefined;
  if (!view.complete) doubt = 'its flags claim no control and integer registers';
  else if (!inKernel && !moduleOf(modules, code)) doubt = `${instructionPointer} ${hex64(code)} lies in no module`;
  else if (!isKernelAddress(stack) || stack % BigInt(machine.pointerSize) !== 0n)
    doubt = `${stackPointer} ${hex64(stack)} is not on a kernel stack`;
  // Processor 0's stacks for boot, double faults and NMIs are data of the kernel image, so a module's data can be one.
  else if (isCode(space, modules, stack)) doubt = `${stackPointer} ${hex64(stack)} lies in a module's code`;
  else if (!space.read(stack, machine.pointerSize))
    doubt = `the stack at ${stackPointer} ${hex64(stack)} is not present`;
  else {
    const owner = otherOwner(scene, processor, stack);
    if (owner) doubt = `${stackPointer} ${hex64(stack)} is on the stack of processor ${owner.number}`;
  }
  const startsFunction = inKernel && functionAt(space, kernel, code)?.from === code;
  return { address, bytes, view, doubt, startsFunction };
}

/** The processor that uses the stack at an address, where `processor` does not: a frame like that is not its own. */
function otherOwner(
  { space, kdbg, processors }: CrashScene,
  processor: Processor,
  address: bigint,
): Processor | undefined {
  const { machine } = space.image;
  const uses = ({ prcb, cpu }: Processor): boolean => {
    const bounds = currentThreadStack(space, kdbg.fields, prcb);
    if (bounds && isOnStack(bounds, address)) return true;
    if (!cpu?.registers || machine.isUserMode(cpu.registers)) return false;
    return isOneStack(space, machine.stackPointer(cpu.registers), address);
  };
  return uses(processor) ? undefined : processors.find((other) => other !== processor && uses(other));
}

/** Guard pages are between stacks: where none is, and no more than a stack, two addresses are on one. */
function isOneStack(space: AddressSpace, a: bigint, b: bigint): boolean {
  const [from, to] = a < b ? [a, b] : [b, a];
  if (!isKernelAddress(from) || to - from >= BigInt(space.image.machine.kernelStackSize)) return false;
  return space.read(from, Number(to - from) + 1) !== undefined;
}

/** Whether an address lies in a function of a module, or in a module whose header is missing. */
function isCode(space: AddressSpace, modules: readonly Module[], address: bigint): boolean {
  const module = moduleOf(modules, address);
  if (!module) return false;
  const image = readPeImage(space, module.base, space.image.machine.imageFileMachine);
  if (image instanceof Reason) return true;
  const entry = functionEntry(space, image, Number(address - module.base));
  return entry !== undefined && entry !== 'missing';
}

/** Whether the stack above a processor's stack pointer holds a return address in `code`. */
function stackHolds(space: AddressSpace, processor: Processor, code: readonly CodeRange[]): boolean {
  const { machine } = space.image;
  const registers = processor.cpu?.registers;
  if (!registers || machine.isUserMode(registers)) return false;
  const { pointerSize } = machine;
  const pointer = machine.stackPointer(registers);
  const start = pointer - (pointer % BigInt(pointerSize));
  if (!isKernelAddress(start)) return false;
  for (const bytes of stackPieces(space, start)) {
    for (let i = 0; i + pointerSize <= bytes.length; i += pointerSize) {
      const word = pointerAt(bytes, i, pointerSize);
      if (code.some(({ from, to }) => word > from && word < to)) return true;
    }
  }
  return false;
}
