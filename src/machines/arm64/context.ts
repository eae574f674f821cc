/** CONTEXT of ARM64 Windows (winnt.h: ARM64_NT_CONTEXT). */
import { isCanonical } from '../../core/bits.ts';
import { raw, struct, u32, u64, u64s } from '../../core/struct.ts';
import { va } from '../../core/units.ts';
import type { ContextView } from '../machine.ts';
import type { Arm64Registers } from './registers.ts';

const CONTEXT_ARM64 = 0x40_0000;
const CONTEXT_CONTROL = 0x1;
const CONTEXT_INTEGER = 0x2;
const CONTEXT_FLOATING_POINT = 0x4;

/** CONTEXT. */
export const Context = struct({
  name: 'CONTEXT (ARM64)',
  size: 0x390,
  fields: {
    ContextFlags: u32(0),
    Cpsr: u32(4),
    /** X0 to X28, Fp, Lr. */
    X: u64s(0x8, 31),
    Sp: u64(0x100),
    Pc: u64(0x108),
    V: raw(0x110, 32 * 16),
    Fpcr: u32(0x310),
    Fpsr: u32(0x314),
  },
});

const VECTOR_SIZE = 16;

/** A whole CONTEXT for what the input holds; its flags claim nothing else. */
export function encodeContext({ x, sp, pc, pstate, vectors }: Arm64Registers): Buffer {
  const buffer = Buffer.alloc(Context.size);
  Context.write(buffer, 0, {
    ContextFlags: CONTEXT_ARM64 | CONTEXT_CONTROL | CONTEXT_INTEGER | (vectors ? CONTEXT_FLOATING_POINT : 0),
    Cpsr: Number(pstate & 0xffff_ffffn),
    X: x,
    Sp: sp,
    Pc: pc,
    ...(vectors && { V: Buffer.concat(vectors.v), Fpcr: vectors.fpcr, Fpsr: vectors.fpsr }),
  });
  return buffer;
}

/** The frame of a CPU whose registers are unknown: it harms no other CPU's (seen in the engine). */
export function encodeUnknownContext(): Buffer {
  const buffer = Buffer.alloc(Context.size);
  Context.write(buffer, 0, { ContextFlags: CONTEXT_ARM64 });
  return buffer;
}

/** Parts of a CONTEXT (low bits), its requests and states (bits 26 to 31), and the machine's bit. */
const FLAG_BITS = 0xfc40_003f;

/** See `Machine.areContextFlags`. */
export const areContextFlags = (flags: number): boolean => (flags & CONTEXT_ARM64) !== 0 && (flags & ~FLAG_BITS) === 0;

/** PSTATE.I: interrupts are masked. */
const PSTATE_INTERRUPTS_MASKED = 0x80;

/** See `Machine.interruptsEnabled`. */
export const interruptsEnabled = (frame: Buffer): boolean =>
  (Context.read(frame).Cpsr & PSTATE_INTERRUPTS_MASKED) === 0;

/** See `Machine.looksLikeContext`. */
export const looksLikeContext = (frame: Buffer): boolean =>
  areContextFlags(Context.read(frame).ContextFlags) || frame.every((byte) => byte === 0);

/** @param frame at least `Context.size` bytes */
export function viewContext(frame: Buffer): ContextView {
  const { ContextFlags: flags, Pc, Sp, X } = Context.read(frame);
  const needed = CONTEXT_CONTROL | CONTEXT_INTEGER;
  return {
    complete: areContextFlags(flags) && (flags & needed) === needed,
    instructionPointer: va(Pc),
    stackPointer: va(Sp),
    arguments: [X[0]!, X[1]!, X[2]!, X[3]!],
  };
}

/** See `Machine.decodeContext`: all registers that inputs have are in the frame. */
export function decodeContext(frame: Buffer): Arm64Registers | undefined {
  const c = Context.read(frame);
  // What is written for a CPU whose registers are unknown has no PC.
  if (!viewContext(frame).complete || c.Pc === 0n || !isCanonical(c.Pc)) return undefined;
  const piece = (i: number) => Buffer.from(c.V.subarray(i * VECTOR_SIZE, (i + 1) * VECTOR_SIZE));
  return {
    x: c.X,
    sp: c.Sp,
    pc: c.Pc,
    pstate: BigInt(c.Cpsr),
    vectors:
      (c.ContextFlags & CONTEXT_FLOATING_POINT) === 0
        ? undefined
        : { v: Array.from({ length: c.V.length / VECTOR_SIZE }, (_, i) => piece(i)), fpcr: c.Fpcr, fpsr: c.Fpsr },
  };
}
