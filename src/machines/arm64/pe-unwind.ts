/**
 * ARM64 unwind data of PE32+ images (Microsoft, "ARM64 exception handling"; the codes for trap frames are as the
 * unwinder that Microsoft published with .NET, unwinder/arm64, reads them).
 */
import { struct, u32, u64, u64s } from '../../core/struct.ts';
import type { CodeImage, FunctionTable } from '../unwinding.ts';
import { LR } from './registers.ts';

/** RUNTIME_FUNCTION of ARM64: an entry of the exception directory, sorted by BeginAddress. */
export const RuntimeFunction = struct({
  name: 'IMAGE_ARM64_RUNTIME_FUNCTION_ENTRY',
  size: 8,
  fields: {
    BeginAddress: u32(0),
    /** Flag in bits 0 and 1: the RVA of an .xdata record, or all of the unwind data. */
    UnwindData: u32(4),
  },
});

/** Of UnwindData: it is an RVA. */
export const FLAG_XDATA = 0;

/** Of UnwindData: of a part of a function, without its prologue and epilogue. */
const FLAG_FRAGMENT = 2;

/** Bytes of an instruction. */
export const INSTRUCTION = 4;

/** A word of an .xdata record. */
const XdataWord = struct({ name: 'IMAGE_ARM64_RUNTIME_FUNCTION_ENTRY_XDATA', size: 4, fields: { Word: u32(0) } });

/** KTRAP_FRAME of ARM64, as far as unwinding needs it: where the debugger's engine reads it. */
export const TrapFrame = struct({
  name: 'KTRAP_FRAME (ARM64)',
  size: 0x150,
  fields: {
    Spsr: u32(0x90),
    Sp: u64(0x98),
    /** X0 to X18. */
    X: u64s(0xa0, 19),
    Lr: u64(0x138),
    Fp: u64(0x140),
    Pc: u64(0x148),
  },
});

/** Its entries say how long functions are only where all of their unwind data is packed into them. */
export const FUNCTION_TABLE: FunctionTable = {
  entrySize: RuntimeFunction.size,
  read: (entry, read) => {
    const { BeginAddress: begin, UnwindData: unwindInfo } = RuntimeFunction.read(entry);
    if ((unwindInfo & 3) !== FLAG_XDATA) {
      return { begin, end: begin + ((unwindInfo >>> 2) & 0x7ff) * INSTRUCTION, unwindInfo };
    }
    const header = read(unwindInfo, XdataWord.size);
    const length = header && (XdataWord.read(header).Word & 0x3_ffff) * INSTRUCTION;
    return { begin, end: length === undefined ? undefined : begin + length, unwindInfo };
  },
};

/** Why a frame can't be unwound. */
export class Stop extends Error {}

/** What an instruction of a prologue did, to be undone. */
export type Operation =
  /** Registers were saved from `offset` above SP on, and SP then is `given` bytes higher. Numbers above 30: of vectors. */
  | { kind: 'move'; registers: readonly number[]; offset: number; given: number }
  /** The pair behind the one that the next operation but these saves. */
  | { kind: 'next' }
  /** FP was set, so many bytes above SP. */
  | { kind: 'frame-pointer'; above: number }
  /** LR was signed. */
  | { kind: 'signed' }
  | { kind: 'nothing' }
  /** No instruction did these: the code begins with them done. */
  | { kind: 'machine-frame' | 'trap-frame' | 'context' | 'not-a-call' };

/** Whether an instruction stands for the operation. */
export const isInstruction = ({ kind }: Operation): boolean =>
  kind !== 'machine-frame' && kind !== 'trap-frame' && kind !== 'context' && kind !== 'not-a-call';

/** The unwind data of a function. */
export interface UnwindData {
  /** Instructions of the prologue. */
  prologue: number;
  /** The last instruction of the prologue first. */
  body: readonly Operation[];
  /** In instructions from the function's beginning, without the return at the end; the first instruction first. */
  epilogues: readonly { start: number; size: number; operations: readonly Operation[] }[];
}

const VECTOR = LR + 1;

const move = (registers: readonly number[], offset: number, given = 0): Operation => ({
  kind: 'move',
  registers,
  offset,
  given,
});
const pair = (first: number) => [first, first + 1];
const allocation = (bytes: number) => move([], 0, bytes);

/** An operation, and how many bytes encode it. */
interface Code {
  operation: Operation | 'end' | 'end of chained scope';
  length: number;
}

/** Registers and their place in codes of two bytes: the first's low bits and the second's upper two are a number. */
function registerCode(first: number, second: number): Operation | undefined {
  const word = (first << 8) | second;
  const [z, x4] = [8 * (second & 0x3f), (word >> 6) & 0xf];
  const [z5, x3] = [8 * (second & 0x1f), (word >> 6) & 7];
  if ((first & 0xfc) === 0xc8) return move(pair(19 + x4), z);
  if ((first & 0xfc) === 0xcc) return move(pair(19 + x4), 0, z + 8);
  if ((first & 0xfc) === 0xd0) return move([19 + x4], z);
  if ((first & 0xfe) === 0xd4) return move([19 + ((word >> 5) & 0xf)], 0, z5 + 8);
  if ((first & 0xfe) === 0xd6) return move([19 + 2 * x3, LR], z);
  if ((first & 0xfe) === 0xd8) return move(pair(VECTOR + x3), z);
  if ((first & 0xfe) === 0xda) return move(pair(VECTOR + x3), 0, z + 8);
  if ((first & 0xfe) === 0xdc) return move([VECTOR + x3], z);
  return first === 0xde ? move([VECTOR + (second >> 5)], 0, z5 + 8) : undefined;
}

/** SAVE_ANY_REG: any register or pair, of any kind. */
function anyRegister(second: number, third: number): Operation | undefined {
  const [isPair, isPreIndexed, kind] = [(second & 0x40) !== 0, (second & 0x20) !== 0, third >> 6];
  if ((second & 0x80) !== 0 || kind === 3) return undefined;
  const scale = isPreIndexed || isPair || kind === 2 ? 16 : 8;
  const size = scale * ((third & 0x3f) + (isPreIndexed ? 1 : 0));
  const first = kind === 0 ? second & 0x1f : VECTOR + (second & 0x1f);
  const registers = isPair ? pair(first) : [first];
  return isPreIndexed ? move(registers, 0, size) : move(registers, size);
}

const SINGLE: Readonly<Record<number, Code['operation']>> = {
  225: { kind: 'frame-pointer', above: 0 },
  227: { kind: 'nothing' },
  228: 'end',
  229: 'end of chained scope',
  230: { kind: 'next' },
  232: { kind: 'trap-frame' },
  233: { kind: 'machine-frame' },
  234: { kind: 'context' },
  236: { kind: 'not-a-call' },
  252: { kind: 'signed' },
};

/** undefined: there is no such code, or it ends beyond the data. */
function codeAt(codes: Buffer, at: number): Code | undefined {
  const [first, second, third, fourth] = [0, 1, 2, 3].map((i) => codes[at + i]);
  if (first === undefined) return undefined;
  if (first < 0x20) return { operation: allocation(16 * first), length: 1 };
  if (first < 0x40) return { operation: move(pair(19), 0, 8 * (first & 0x1f)), length: 1 };
  if (first < 0x80) return { operation: move(pair(29), 8 * (first & 0x3f)), length: 1 };
  if (first < 0xc0) return { operation: move(pair(29), 0, 8 * ((first & 0x3f) + 1)), length: 1 };
  const single = SINGLE[first];
  if (single !== undefined) return { operation: single, length: 1 };
  if (second === undefined) return undefined;
  if (first < 0xc8) return { operation: allocation(16 * (((first & 7) << 8) | second)), length: 2 };
  if (first === 0xe2) return { operation: { kind: 'frame-pointer', above: 8 * second }, length: 2 };
  const saved = first < 0xe0 ? registerCode(first, second) : undefined;
  if (saved) return { operation: saved, length: 2 };
  if (third === undefined) return undefined;
  const any = first === 0xe7 ? anyRegister(second, third) : undefined;
  if (any) return { operation: any, length: 3 };
  if (first !== 0xe0 || fourth === undefined) return undefined;
  return { operation: allocation(16 * ((second << 16) | (third << 8) | fourth)), length: 4 };
}

/** ARM64EC's frame of an emulated x64 context. */
const EC_CONTEXT = 0xeb;

/** Operations from a code on to the end; `scope`: how many instructions the innermost scope has. */
function operationsFrom(codes: Buffer, from: number, rva: number): { operations: Operation[]; scope: number } {
  const operations: Operation[] = [];
  let scope: number | undefined;
  for (let at = from; ; ) {
    if (codes[at] === EC_CONTEXT) throw new Stop('it is the frame of emulated x64 code (ARM64EC)');
    const code = codeAt(codes, at);
    if (!code) {
      const what = at >= codes.length ? 'has no end' : `has the unknown code 0x${codes[at]!.toString(16)}`;
      throw new Stop(`the unwind data at RVA 0x${rva.toString(16)} ${what}`);
    }
    const { operation, length } = code;
    at += length;
    if (operation === 'end') return { operations, scope: scope ?? operations.filter(isInstruction).length };
    if (operation === 'end of chained scope') scope ??= operations.filter(isInstruction).length;
    else operations.push(operation);
  }
}

/** An .xdata record. @param length bytes of the function */
export function readXdata(rva: number, length: number, read: CodeImage['read']): UnwindData {
  const words = (at: number, count: number): number[] => {
    const bytes = read(at, 4 * count);
    if (!bytes) throw new Stop(`the unwind data at RVA 0x${at.toString(16)} is not in memory`);
    return Array.from({ length: count }, (_, i) => bytes.readUInt32LE(4 * i));
  };
  const [header] = words(rva, 1) as [number];
  const version = (header >>> 18) & 3;
  if (version !== 0) throw new Stop(`the unwind data at RVA 0x${rva.toString(16)} has version ${version}`);
  const onlyEpilogue = (header & (1 << 21)) !== 0;
  let [epilogues, codeWords, at] = [(header >>> 22) & 0x1f, header >>> 27, rva + 4];
  if (epilogues === 0 && codeWords === 0) {
    const [extension] = words(at, 1) as [number];
    [epilogues, codeWords, at] = [extension & 0xffff, (extension >>> 16) & 0xff, at + 4];
  }
  const scopes = onlyEpilogue || epilogues === 0 ? [] : words(at, epilogues);
  const codes = read(at + 4 * scopes.length, 4 * codeWords);
  if (!codes) throw new Stop(`the unwind codes at RVA 0x${(at + 4 * scopes.length).toString(16)} are not in memory`);
  const { operations, scope } = operationsFrom(codes, 0, rva);
  const epilogueAt = (start: number | undefined, index: number) => {
    const { operations: own, scope: size } = operationsFrom(codes, index, rva);
    // At the function's end, with the return behind.
    return { start: start ?? length / INSTRUCTION - size - 1, size, operations: own };
  };
  return {
    prologue: scope,
    body: operations,
    epilogues: onlyEpilogue
      ? [epilogueAt(undefined, epilogues)]
      : scopes.map((word) => epilogueAt(word & 0x3_ffff, word >>> 22)),
  };
}

/** How LR is kept. */
const CR = { unsaved: 0, saved: 1, chainedSigned: 2 } as const;

/** What one SUB can give. */
const MAX_SUB = 4080;
const allocations = (bytes: number): Operation[] => {
  if (bytes <= 0) return [];
  return bytes <= MAX_SUB ? [allocation(bytes)] : [allocation(MAX_SUB), allocation(bytes - MAX_SUB)];
};

/** Saves of a canonical prologue, in its order; the first one lowers SP by `size`. */
function saves(integers: number, vectors: number, keepsLr: boolean): { registers: number[]; offset: number }[] {
  const list: { registers: number[]; offset: number }[] = [];
  for (let i = 0; i < integers; i += 2) {
    if (i + 1 < integers) list.push({ registers: pair(19 + i), offset: 8 * i });
    else list.push({ registers: keepsLr ? [19 + i, LR] : [19 + i], offset: 8 * i });
  }
  if (keepsLr && integers % 2 === 0) list.push({ registers: [LR], offset: 8 * integers });
  const above = 8 * (integers + (keepsLr ? 1 : 0));
  for (let i = 0; i < vectors; i += 2) {
    list.push({ registers: i + 1 < vectors ? pair(VECTOR + i) : [VECTOR + i], offset: above + 8 * i });
  }
  return list;
}

/** Unwind data that is packed into a function's entry: of a canonical prologue, and its reverse at the end. */
export function expandPacked(data: number, length: number): UnwindData {
  const [flag, regF, integers, homes] = [data & 3, (data >>> 13) & 7, (data >>> 16) & 0xf, (data >>> 20) & 1];
  const [cr, frame] = [(data >>> 21) & 3, 16 * (data >>> 23)];
  if (flag > FLAG_FRAGMENT || integers > 10) throw new Stop('its packed unwind data is not one');
  const vectors = regF === 0 ? 0 : regF + 1;
  const keepsLr = cr === CR.saved;
  const saved = Math.ceil((8 * (integers + vectors + (keepsLr ? 1 : 0)) + 64 * homes) / 16) * 16;
  const locals = frame - saved;
  if (locals < 0) throw new Stop('its packed unwind data has a frame smaller than what it saves');
  // Both in the order of the prologue; an epilogue does not load parameters, nor FP.
  const prologue: { operation: Operation; inEpilogue: boolean }[] = [];
  const add = (operation: Operation, inEpilogue = true) => prologue.push({ operation, inEpilogue });
  if (cr === CR.chainedSigned) add({ kind: 'signed' });
  const list = saves(integers, vectors, keepsLr);
  list.forEach(({ registers, offset }, i) => {
    // No code lowers SP for X19 with LR: the instruction before does.
    const isLrPair = registers.length === 2 && registers[1] === LR;
    if (i === 0 && isLrPair) add(allocation(saved));
    add(i === 0 && !isLrPair ? move(registers, 0, saved) : move(registers, offset));
  });
  for (let i = 0; homes === 1 && i < 4; i++) {
    if (i === 0 && list.length === 0) add(allocation(saved));
    else add({ kind: 'nothing' }, false);
  }
  const isChained = cr >= CR.chainedSigned;
  if (isChained && locals > 0 && locals <= 512) add(move(pair(29), 0, locals));
  else {
    for (const operation of allocations(locals)) add(operation);
    if (isChained) add(move(pair(29), 0));
  }
  if (isChained) add({ kind: 'frame-pointer', above: 0 }, false);
  const reversed = [...prologue].reverse();
  const body = reversed.map(({ operation }) => operation);
  if (flag === FLAG_FRAGMENT) return { prologue: 0, body, epilogues: [] };
  const operations = reversed.flatMap(({ operation, inEpilogue }) => (inEpilogue ? [operation] : []));
  return {
    prologue: body.length,
    body,
    epilogues: [{ start: length / INSTRUCTION - operations.length - 1, size: operations.length, operations }],
  };
}
