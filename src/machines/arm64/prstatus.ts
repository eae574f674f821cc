/**
 * The notes of an ARM64 CPU as QEMU writes them (Linux' uapi: struct elf_prstatus with user_pt_regs, and struct
 * user_fpsimd_state). NT_ARM_SVE repeats the vectors, longer than Windows uses them.
 */
import { struct, u32, u64, u64s } from '../../core/struct.ts';
import type { CpuNote, NoteKind } from '../cpu-notes.ts';

/** The descriptor of an NT_PRSTATUS note. */
export const Prstatus = struct({
  name: 'elf_prstatus (AArch64)',
  size: 392,
  fields: {
    /** x0 to x30. */
    x: u64s(0x70, 31),
    sp: u64(0x168),
    pc: u64(0x170),
    pstate: u64(0x178),
  },
});

const VECTORS = 32;
const VECTOR_SIZE = 16;

/** The descriptor of an NT_PRFPREG note: 32 vector registers, then what controls them. */
const Fpsimd = struct({
  name: 'user_fpsimd_state',
  size: 528,
  fields: { fpsr: u32(0x200), fpcr: u32(0x204) },
});

/** NT_PRFPREG (elf.h). */
export const PRFPREG: NoteKind = { name: 'CORE', type: 2 };

/** NT_ARM_SVE (elf.h). */
export const ARM_SVE: NoteKind = { name: 'LINUX', type: 0x405 };

/** undefined for a descriptor of another size, or of a CPU that nothing is known of (all zero). */
export function parsePrstatus(desc: Buffer, [fpsimd]: readonly (Buffer | undefined)[]): CpuNote | undefined {
  if (desc.length !== Prstatus.size) return undefined;
  const general = Prstatus.read(desc);
  if (general.pstate === 0n && general.pc === 0n) return undefined;
  return { registers: { ...general, vectors: vectorsIn(fpsimd) }, crashed: undefined };
}

function vectorsIn(desc: Buffer | undefined) {
  if (desc?.length !== Fpsimd.size) return undefined;
  const { fpsr, fpcr } = Fpsimd.read(desc);
  const v = Array.from({ length: VECTORS }, (_, i) =>
    Buffer.from(desc.subarray(i * VECTOR_SIZE, (i + 1) * VECTOR_SIZE)),
  );
  return { v, fpcr, fpsr };
}
