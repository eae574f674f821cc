/** KTRAP_FRAME of x64 (ntddk.h): code's volatile registers, and below them what the processor pushed. */
import { isKernelAddress } from '../../core/bits.ts';
import { struct, u16, u32, u64 } from '../../core/struct.ts';
import type { TrapFrame, TrapFrameForm } from '../trap-frames.ts';

/** RBX, RDI and RSI, which only frames of system calls hold, are left out. */
const KTrapFrame = struct({
  name: 'KTRAP_FRAME (AMD64)',
  size: 0x190,
  fields: {
    MxCsr: u32(0x2c),
    Rax: u64(0x30),
    Rcx: u64(0x38),
    Rdx: u64(0x40),
    R8: u64(0x48),
    R9: u64(0x50),
    R10: u64(0x58),
    R11: u64(0x60),
    FaultAddress: u64(0xd0),
    Rbp: u64(0x158),
    Rip: u64(0x168),
    SegCs: u16(0x170),
    EFlags: u32(0x178),
    Rsp: u64(0x180),
    SegSs: u16(0x188),
  },
});

/** KGDT64_R0_CODE and KGDT64_R0_DATA; the processor may push 0 for the latter. */
const KERNEL_CODE = 0x10;
const KERNEL_DATA = [0x18, 0];

/** Of EFlags: bit 1 is always set, bits 3, 5, 15 and those from 22 on never are. */
const ALWAYS = 0x2;
const NEVER = 0xffc0_8028;

/** The processor aligns the stack before it pushes. */
const PUSH_ALIGNMENT = 16n;

function read(bytes: Buffer, address: bigint): TrapFrame | undefined {
  const f = KTrapFrame.read(bytes);
  const areFlags = (f.EFlags & (ALWAYS | NEVER)) === ALWAYS;
  if (f.SegCs !== KERNEL_CODE || !KERNEL_DATA.includes(f.SegSs) || !areFlags || !isKernelAddress(f.Rsp))
    return undefined;
  const { Rax, Rcx, Rdx, Rsp, Rbp, R8, R9, R10, R11, Rip } = f;
  const known = { rax: Rax, rcx: Rcx, rdx: Rdx, rip: Rip, rsp: Rsp, rbp: Rbp, r8: R8, r9: R9, r10: R10, r11: R11 };
  return {
    state: {
      instructionPointer: Rip,
      stackPointer: Rsp,
      integers: [Rax, Rcx, Rdx, undefined, Rsp, Rbp, undefined, undefined, R8, R9, R10, R11, ...UNKNOWN],
      native: true,
    },
    registers: [
      ...Object.entries(known).map(([name, value]) => ({ name, value, bits: 64 })),
      { name: 'efl', value: BigInt(f.EFlags), bits: 32 },
      { name: 'cs', value: BigInt(f.SegCs), bits: 16 },
      { name: 'ss', value: BigInt(f.SegSs), bits: 16 },
    ],
    faultAddress: f.FaultAddress,
    isMarked: Rsp - (Rsp % PUSH_ALIGNMENT) === address + BigInt(KTrapFrame.size),
  };
}

/** R12 to R15. */
const UNKNOWN = [undefined, undefined, undefined, undefined];

/** Of x64. */
export const TRAP_FRAMES: TrapFrameForm = { size: KTrapFrame.size, alignment: 16, read };
