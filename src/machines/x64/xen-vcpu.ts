/**
 * vcpu_guest_context of an x86-64 guest of Xen (xen/include/public/arch-x86/xen.h), as `xl dump-core` puts
 * one for each CPU into .xen_prstatus. For HVM guests Xen fills general registers, selectors, CR0 to CR4
 * and the fs and gs bases; no descriptor tables. No file of a real Xen was at hand to check it on.
 */
import { struct, u16, u64, u64s } from '../../core/struct.ts';
import type { CpuNote } from '../cpu-notes.ts';
import { bareSegment } from './prstatus.ts';

/** An entry of .xen_prstatus. */
export const XenVcpu = struct({
  name: 'vcpu_guest_context',
  size: 0x1430,
  fields: {
    /** Behind 512 bytes of FPU state and 8 of flags. */
    r15: u64(0x208),
    r14: u64(0x210),
    r13: u64(0x218),
    r12: u64(0x220),
    rbp: u64(0x228),
    rbx: u64(0x230),
    r11: u64(0x238),
    r10: u64(0x240),
    r9: u64(0x248),
    r8: u64(0x250),
    rax: u64(0x258),
    rcx: u64(0x260),
    rdx: u64(0x268),
    rsi: u64(0x270),
    rdi: u64(0x278),
    rip: u64(0x288),
    cs: u16(0x290),
    rflags: u64(0x298),
    rsp: u64(0x2a0),
    ss: u16(0x2a8),
    es: u16(0x2b0),
    ds: u16(0x2b8),
    fs: u16(0x2c0),
    gs: u16(0x2c8),
    /** Behind 256 trap entries of 16 bytes, the LDT's two words, 17 of the GDT's, two of the kernel stack's. */
    ctrlreg: u64s(0x1378, 8),
    fs_base: u64(0x1418),
    gs_base_kernel: u64(0x1420),
    gs_base_user: u64(0x1428),
  },
});

/** undefined for a CPU that nothing is known of (all zero). */
export function parseXenVcpu(bytes: Buffer): CpuNote | undefined {
  const { cs, ds, es, fs, gs, ss, ctrlreg, fs_base, gs_base_kernel, gs_base_user, ...general } = XenVcpu.read(bytes);
  if (cs === 0 && general.rip === 0n) return undefined;
  const selector = (value: number, base?: bigint) => bareSegment(BigInt(value), base);
  const inUserMode = (cs & 3) === 3;
  const [cr0, , cr2, cr3, cr4] = ctrlreg as readonly [bigint, bigint, bigint, bigint, bigint];
  return {
    registers: {
      ...general,
      cs: selector(cs),
      ds: selector(ds),
      es: selector(es),
      fs: selector(fs, fs_base),
      gs: selector(gs, inUserMode ? gs_base_user : gs_base_kernel),
      ss: selector(ss),
      kernelGsBase: inUserMode ? gs_base_kernel : gs_base_user,
      control: { cr0, cr2, cr3, cr4 },
      tables: undefined,
    },
    crashed: undefined,
  };
}
