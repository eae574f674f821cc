/**
 * What a crash is known by: a short text and a hash that are the same on every boot, by the rules in docs/signatures.md.
 * A change here is a change of all signatures that users have kept.
 */
import { createHash } from 'node:crypto';
import { isKernelAddress } from '../core/bits.ts';
import { plainBugCheckCode } from './bug-checks.ts';
import type { StackFrame } from './stacks.ts';

/** A frame, as far as signatures need it. */
export type SignatureFrame = Pick<
  StackFrame,
  'module' | 'symbol' | 'nearestExport' | 'functionBegin' | 'imageId' | 'instructionPointer' | 'how' | 'certain'
>;

/** What a crash is known by, on one basis: signatures of the two are never compared. */
export interface Signature {
  basis: 'symbols' | 'rva';
  /** The bug check with its constant parameters, and the frames. */
  text: string;
  /** 12 hex digits; what is compared. */
  hash: string;
  /** Builds of the modules that it holds for, as symbol servers name images; none by symbols. */
  builds: readonly string[];
}

/** The bug check of a crash; undefined for a guest that did not crash. */
export type SignedBugCheck = { code: number; parameters: readonly bigint[] } | undefined;

const MAX_FRAMES = 3;

/**
 * Index of the parameter that says which kind of the bug check it is: the same on every boot, and never an address.
 * What they are: Microsoft's pages on each code.
 */
const KIND_PARAMETER: ReadonlyMap<number, number> = new Map([
  ...[0x19, 0x1a, 0x1e, 0x3b, 0x7e, 0x7f, 0x8e, 0x9f, 0xc2, 0xc4].map((code) => [code, 0] as const),
  ...[0x10d, 0x124, 0x133, 0x139, 0x13a, 0x1c8].map((code) => [code, 0] as const),
  ...[0x50, 0xc000_021a].map((code) => [code, 1] as const),
  ...[0xa, 0xd1, 0x10e, 0x116, 0x154].map((code) => [code, 2] as const),
  [0x109, 3],
]);

/** The kernel's file, by its kinds. */
const KERNELS = ['ntoskrnl.exe', 'ntkrnlmp.exe', 'ntkrnlpa.exe', 'ntkrpamp.exe', 'ntkrla57.exe'];
const HALS = ['hal.dll', 'halmacpi.dll', 'halacpi.dll', 'halaacpi.dll', 'halapic.dll', 'halmps.dll'];

/** What sits between Windows' kernel and drivers. A driver may take such a name with another extension. */
const BETWEEN = [
  ...['kdcom.dll', 'kdnet.dll', 'kdstub.dll', 'kdhvcom.dll', 'kdusb.dll', 'kd1394.dll'],
  ...['verifierext.sys', 'wdf01000.sys'],
];

const withoutExtension = (file: string): string => file.replace(/\.[a-z]+$/, '');

/** Names of modules that a crash is never known by, by their files. Some lists have names without extensions. */
const PLUMBING: ReadonlyMap<string, string> = new Map([
  ...KERNELS.flatMap((file) => [file, withoutExtension(file)]).map((file) => [file, 'nt'] as const),
  ...HALS.flatMap((file) => [file, withoutExtension(file)]).map((file) => [file, 'hal'] as const),
  ...BETWEEN.flatMap((file) => [file, withoutExtension(file)]).map((file) => [file, withoutExtension(file)] as const),
]);
const PLUMBING_NAMES: ReadonlySet<string> = new Set(PLUMBING.values());

/** Drivers that idle processors run. */
const IDLE = new Set(['intelppm', 'amdppm', 'processr']);

/** Functions of the kernel that lead from a fault to the bug check; PDBs name them. */
const GLUE = new Set([
  'KeBugCheck',
  'KeBugCheck2',
  'KeBugCheckEx',
  'KiBugCheckDispatch',
  'KiDispatchException',
  'KiExceptionDispatch',
  'KiFastFailDispatch',
  'KiPageFault',
  'KiRaiseException',
  'RtlDispatchException',
  'RtlpExecuteHandlerForException',
]);

/** A module as debuggers call it: lower case, no extension, `nt` for the kernel; undefined without a name. */
export function moduleName(frame: Pick<SignatureFrame, 'module'>): string | undefined {
  return frame.module?.name ? plainName(frame.module.name) || undefined : undefined;
}

function plainName(file: string): string {
  const whole = file.toLowerCase();
  const own = PLUMBING.get(whole);
  if (own !== undefined) return own;
  const name = withoutExtension(whole);
  // nt.sys is not nt.
  return PLUMBING_NAMES.has(name) || PLUMBING.has(name) ? whole : name;
}

/** Whether the frame's code is the kernel's own, or sits between it and drivers. */
export const isPlumbing = (frame: SignatureFrame): boolean => PLUMBING_NAMES.has(moduleName(frame) ?? '');

/** Likewise a module, by its name. */
export const isWindowsOwn = (name: string): boolean => PLUMBING_NAMES.has(plainName(name));

/**
 * The frames of a stack that a crash is known by.
 *
 * @param stack from the innermost; what called the bug check, or what ran at the fault
 */
export function keptFrames(stack: readonly SignatureFrame[]): readonly SignatureFrame[] {
  const below = belowBugCheck(certainFrames(stack));
  const leading = below.findIndex((frame) => !isPlumbing(frame));
  // The fault's own interrupt may be crossed. Behind another one is code that was only interrupted.
  const traps = below.slice(0, leading + 1).filter(({ how }) => how === 'trap').length;
  if (leading < 0 || traps > 1) return collapsed(ofKernel(below));
  const rest = below.slice(leading);
  const end = rest.findIndex((frame, i) => i > 0 && (isPlumbing(frame) || frame.how === 'trap'));
  return collapsed(end < 0 ? rest : rest.slice(0, end));
}

/** In a guest that runs: the innermost frame of a driver, across at most one interrupt; not of what idle processors run. */
export function busyFrame(stack: readonly SignatureFrame[]): SignatureFrame | undefined {
  const frames = certainFrames(stack);
  const at = frames.findIndex((frame) => !isPlumbing(frame));
  const found = frames[at];
  const traps = frames.slice(0, at + 1).filter(({ how }) => how === 'trap').length;
  return found && traps <= 1 && !IDLE.has(moduleName(found)!) ? found : undefined;
}

/** Up to the first guess, frame outside all named modules, or frame of user mode. */
function certainFrames(all: readonly SignatureFrame[]): readonly SignatureFrame[] {
  const stack = withoutBadCall(all);
  const end = stack.findIndex((frame) => !frame.certain || !isNamedKernelCode(frame));
  return end < 0 ? stack : stack.slice(0, end);
}

const isNamedKernelCode = (frame: SignatureFrame): boolean =>
  moduleName(frame) !== undefined && isKernelAddress(frame.instructionPointer);

/** A call through a bad pointer led to where nothing is: the fault is its caller's. */
function withoutBadCall(stack: readonly SignatureFrame[]): readonly SignatureFrame[] {
  const at = stack.findIndex((frame) => !isNamedKernelCode(frame));
  const [target, caller] = [stack[at], stack[at + 1]];
  if (!target || caller?.how !== 'leaf') return stack;
  return [...stack.slice(0, at), { ...caller, how: target.how }, ...stack.slice(at + 2)];
}

/** What called the bug check: what lies above (the dump's writer, the debugger's stub) came later. */
function belowBugCheck(frames: readonly SignatureFrame[]): readonly SignatureFrame[] {
  return frames.slice(frames.findLastIndex(isBugCheck) + 1);
}

/** Whether a stack surely leads through the bug check. */
export const callsBugCheck = (stack: readonly SignatureFrame[]): boolean => certainFrames(stack).some(isBugCheck);

/** In KeBugCheck or KeBugCheckEx, which kernels export; KeBugCheck2 they do not. */
const isBugCheck = (frame: SignatureFrame): boolean => isKernelFunction(frame, /^KeBugCheck(?:Ex|2)?$/);

/** In a function of the kernel with such a name: by its PDB, or by an export, which is certain where it begins the function. */
export function isKernelFunction(frame: SignatureFrame, name: RegExp): boolean {
  if (moduleName(frame) !== 'nt') return false;
  const { symbol, nearestExport, functionBegin, module, instructionPointer } = frame;
  if (symbol?.certain) return name.test(symbol.name);
  if (!nearestExport || !name.test(nearestExport.name)) return false;
  return (
    functionBegin === undefined || functionBegin === Number(instructionPointer - module!.base) - nearestExport.offset
  );
}

/** Only the kernel's own: from the code at fault on, or else from the caller of the bug check. */
function ofKernel(frames: readonly SignatureFrame[]): readonly SignatureFrame[] {
  const fault = frames.findIndex(({ how }) => how === 'trap');
  const from = fault < 0 ? frames : frames.slice(fault);
  const named = from.findIndex(({ symbol }) => !symbol?.certain || !GLUE.has(symbol.name));
  const rest = named < 0 ? from : from.slice(named);
  const end = rest.findIndex((frame, i) => i > 0 && (!isPlumbing(frame) || frame.how === 'trap'));
  return end < 0 ? rest : rest.slice(0, end);
}

/** The first frames, calls of a function by itself counted once. */
function collapsed(frames: readonly SignatureFrame[]): readonly SignatureFrame[] {
  return frames.filter((frame, i) => i === 0 || byRva(frame) !== byRva(frames[i - 1]!)).slice(0, MAX_FRAMES);
}

/** `demo+0x1140`: where the function begins, or the instruction where no function is known. */
function byRva(frame: SignatureFrame): string {
  const { functionBegin, module, instructionPointer } = frame;
  const rva = functionBegin ?? Number(instructionPointer - module!.base);
  return `${moduleName(frame)}+0x${rva.toString(16)}`;
}

/** `demo!DemoDispatch`; undefined where no PDB is sure of the function. */
function bySymbol(frame: SignatureFrame): string | undefined {
  const { symbol } = frame;
  return symbol?.certain ? `${moduleName(frame)}!${withoutTemplateArguments(symbol.name)}` : undefined;
}

/** `list::add<int>` without `<int>`. `operator<` and `<lambda_1>` stay. */
function withoutTemplateArguments(name: string): string {
  let text = '';
  let depth = 0;
  for (const [i, c] of [...name].entries()) {
    if (c === '<' && (depth > 0 || /\w$/.test(name.slice(0, i))) && !/operator$/.test(name.slice(0, i))) depth++;
    else if (c === '>' && depth > 0) depth--;
    else if (depth === 0) text += c;
  }
  return text;
}

/** `0xd1_0`: the bug check, and the parameter that says which kind of it. `live`: the guest did not crash. */
function titleOf(bugCheck: SignedBugCheck): string {
  if (!bugCheck) return 'live';
  const code = plainBugCheckCode(bugCheck.code);
  const title = `0x${code.toString(16)}`;
  const value = bugCheck.parameters[KIND_PARAMETER.get(code) ?? -1];
  if (value === undefined) return title;
  // Status codes are sign-extended by some callers. A larger value is no kind: an address is never kept.
  const kind = value >> 31n === 0x1_ffff_ffffn ? BigInt.asUintN(32, value) : value;
  return kind >> 32n === 0n ? `${title}_${kind.toString(16)}` : title;
}

function signed(
  basis: Signature['basis'],
  title: string,
  names: readonly string[],
  builds: readonly string[],
): Signature {
  const text = names.length > 0 ? `${title} ${names.join('|')}` : title;
  const hash = createHash('sha256')
    .update([basis, text, ...builds].join('\n'))
    .digest('hex')
    .slice(0, 12);
  return { basis, text, hash, builds };
}

/** By where functions begin: holds within one build of each module that it names. */
export function rvaSignature(bugCheck: SignedBugCheck, frames: readonly SignatureFrame[]): Signature {
  const builds = frames.map((frame) => `${moduleName(frame)}/${frame.imageId ?? 'unknown'}`);
  return signed('rva', titleOf(bugCheck), frames.map(byRva), [...new Set(builds)].sort());
}

/** By the names of functions, up to the first frame without one; undefined where the first has none. */
export function symbolSignature(bugCheck: SignedBugCheck, frames: readonly SignatureFrame[]): Signature | undefined {
  const names: string[] = [];
  for (const frame of frames) {
    const name = bySymbol(frame);
    if (name === undefined) break;
    if (names.at(-1) !== name) names.push(name);
  }
  return names.length > 0 ? signed('symbols', titleOf(bugCheck), names, []) : undefined;
}
