/** KTRAP_FRAME of ARM64, as a trap frame that a crash names. */
import { isKernelAddress } from '../../core/bits.ts';
import type { TrapFrame as Contents, TrapFrameForm } from '../trap-frames.ts';
import { TrapFrame } from './pe-unwind.ts';

/** Of Spsr: EL1, with either stack pointer; bit 4, of AArch32, is clear. */
const MODE = 0x1f;
const KERNEL_MODES = [4, 5];

/** X19 to X28. */
const UNKNOWN = Array.from({ length: 10 }, () => undefined);

function read(bytes: Buffer): Contents | undefined {
  const { Spsr, Sp, X, Lr, Fp, Pc } = TrapFrame.read(bytes);
  if (!KERNEL_MODES.includes(Spsr & MODE) || !isKernelAddress(Sp)) return undefined;
  const named = { fp: Fp, lr: Lr, sp: Sp, pc: Pc };
  return {
    state: { instructionPointer: Pc, stackPointer: Sp, integers: [...X, ...UNKNOWN, Fp, Lr], native: true },
    registers: [
      ...X.map((value, i) => ({ name: `x${i}`, value, bits: 64 })),
      ...Object.entries(named).map(([name, value]) => ({ name, value, bits: 64 })),
      { name: 'psr', value: BigInt(Spsr), bits: 32 },
    ],
    faultAddress: undefined,
    // Nothing in a frame says that it is one.
    isMarked: false,
  };
}

/** Of ARM64. */
export const TRAP_FRAMES: TrapFrameForm = { size: TrapFrame.size, alignment: 16, read };
