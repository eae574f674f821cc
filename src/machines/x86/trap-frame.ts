/** KTRAP_FRAME of 32-bit Windows (types in public symbols). */
import { isKernelAddress } from '../../core/bits.ts';
import { struct, u32 } from '../../core/struct.ts';
import type { TrapFrame, TrapFrameForm } from '../trap-frames.ts';
import { address as widened } from './registers.ts';

const KTrapFrame = struct({
  name: 'KTRAP_FRAME (x86)',
  size: 0x8c,
  fields: {
    DbgArgMark: u32(0x8),
    Edx: u32(0x3c),
    Ecx: u32(0x40),
    Eax: u32(0x44),
    Edi: u32(0x54),
    Esi: u32(0x58),
    Ebx: u32(0x5c),
    Ebp: u32(0x60),
    Eip: u32(0x68),
    SegCs: u32(0x6c),
    EFlags: u32(0x70),
    /** Pushed only where user mode was interrupted: in the kernel its own stack goes on here. */
    HardwareEsp: u32(0x74),
  },
});

/** KGDT_R0_CODE. */
const KERNEL_CODE = 8;

/** What Windows puts into DbgArgMark of each frame. */
const MARK = 0xbadb_0d00;

/** Of EFlags: bit 1 is always set, bits 3, 5, 15 and those from 22 on never are. */
const ALWAYS = 0x2;
const NEVER = 0xffc0_8028;

/** What a frame of kernel code has: the fields after it are that code's stack. */
const SIZE = KTrapFrame.offsetOf('HardwareEsp');

function read(bytes: Buffer, address: bigint): TrapFrame | undefined {
  const f = KTrapFrame.readPartial(bytes, SIZE);
  const { Eax = 0, Ebx = 0, Ecx = 0, Edx = 0, Esi = 0, Edi = 0, Eip = 0, Ebp = 0, EFlags = 0, SegCs = 0 } = f;
  if ((SegCs & 0xffff) !== KERNEL_CODE || (EFlags & (ALWAYS | NEVER)) !== ALWAYS) return undefined;
  const stackPointer = address + BigInt(SIZE);
  if (!isKernelAddress(stackPointer)) return undefined;
  const esp = Number(BigInt.asUintN(32, stackPointer));
  const known = { eax: Eax, ebx: Ebx, ecx: Ecx, edx: Edx, esi: Esi, edi: Edi, eip: Eip, esp, ebp: Ebp, efl: EFlags };
  return {
    state: {
      instructionPointer: widened(BigInt(Eip)),
      stackPointer,
      integers: [Eax, Ecx, Edx, Ebx, esp, Ebp, Esi, Edi].map((value) => widened(BigInt(value))),
      native: true,
    },
    registers: [
      ...Object.entries(known).map(([name, value]) => ({ name, value: BigInt(value), bits: 32 })),
      { name: 'cs', value: BigInt(SegCs & 0xffff), bits: 16 },
    ],
    faultAddress: undefined,
    isMarked: f.DbgArgMark === MARK,
  };
}

/** Of 32-bit x86. */
export const TRAP_FRAMES: TrapFrameForm = { size: SIZE, alignment: 4, read };
