import { isKernelAddress } from '../../core/bits.ts';
import { GIB, va } from '../../core/units.ts';
import { DUMP_HEADER_FORM_64 } from '../../formats/dump-header.ts';
import { NT_PRSTATUS } from '../../formats/elf.ts';
import { IMAGE_FILE_MACHINE_AMD64, IMAGE_FILE_MACHINE_ARM64, IMAGE_FILE_MACHINE_I386 } from '../../formats/pe.ts';
import { SHARED_USER_DATA_64 } from '../../formats/win-kernel.ts';
import type { MachineOf } from '../machine.ts';
import { createPageScan } from '../page-scan.ts';
import {
  areContextFlags,
  Context,
  decodeContext,
  encodeContext,
  encodeUnknownContext,
  interruptsEnabled,
  looksLikeContext,
  viewContext,
} from './context.ts';
import { Kpcr, kpcrCandidates, kpcrDoubt, SPECIAL_REGISTERS_SIZE } from './kpcr.ts';
import { MIGRATION } from './migration.ts';
import { pageClues, SCAN_PATTERNS } from './page-clues.ts';
import { PAGING_4K_GRANULE } from './paging.ts';
import { FUNCTION_TABLE } from './pe-unwind.ts';
import { ARM_SVE, PRFPREG, Prstatus, parsePrstatus } from './prstatus.ts';
import {
  type Arm64Registers,
  exceptionLevel,
  is32BitCode,
  LR,
  namedRegisters,
  neverStarted,
  outsideWindows,
  unsigned,
  x18,
} from './registers.ts';
import { TRAP_FRAMES } from './trap-frame.ts';
import { callerOf, endsWithCall, frameState, functionBegin, LONGEST_CALL, unwind } from './unwind.ts';

/** 64-bit Arm. */
export const ARM64: MachineOf<Arm64Registers> = {
  name: 'ARM64',
  title: '64-bit Arm',
  takenFor: undefined,
  elfMachine: 183,
  imageFileMachine: IMAGE_FILE_MACHINE_ARM64,
  otherImages: {
    [IMAGE_FILE_MACHINE_AMD64]: 'x64 code, which Windows emulates, or ARM64EC',
    [IMAGE_FILE_MACHINE_I386]: 'x86 code, which Windows emulates',
  },
  words: {
    instructionPointer: 'pc',
    stackPointer: 'sp',
    root: 'ttbr1_el1',
    kpcr: 'x18',
    interruptTable: 'vbar_el1',
    notStarted: 'its registers are as a reset leaves them',
  },
  pointerSize: 8,
  sharedUserData: SHARED_USER_DATA_64,
  pagingModes: [PAGING_4K_GRANULE],
  pagingModesOf: () => [PAGING_4K_GRANULE],
  debuggerDefaults: {},
  // As x64 has it since 10240: so in build 18290's types; not every build was looked at, and no real guest's memory.
  pageDatabase: {
    complete: false,
    layouts: [{ entrySize: 0x30, stateAt: 0x22, cacheShift: 6, originalPteAt: 0x10, resident: { at: 0x2d, mask: 1 } }],
  },

  cpuNotes: [
    {
      name: 'CORE',
      type: NT_PRSTATUS,
      label: 'NT_PRSTATUS',
      more: [PRFPREG, ARM_SVE],
      // QEMU writes no system registers of this machine.
      whole: true,
      parse: parsePrstatus,
    },
  ],
  prstatusSize: Prstatus.size,
  kdumpBlockSize: 0x1_0000,
  xenVcpu: undefined,
  migration: MIGRATION,
  namedRegisters,
  neverStarted,
  outsideWindows,
  systemRegisters: false,
  rootRegister: () => undefined,
  pageTables: () => undefined,

  kpcr: {
    prcb: Kpcr.size,
    kdVersionBlock: Kpcr.offsetOf('KdVersionBlock'),
    lockArray: Kpcr.offsetOf('LockArray'),
    size: Kpcr.size,
    // Up to the PRCB's own frame.
    reach: 0xce0,
  },
  kpcrCandidates,
  kpcrDoubt,
  runsKpcr: () => undefined,
  interruptTable: () => undefined,
  interruptGates: () => undefined,
  interruptHandlers: () => [],
  pageClues,
  createPageScan: (memory) => createPageScan(memory, SCAN_PATTERNS),

  isUserMode: (r) => exceptionLevel(r) === 0,
  runsNativeCode: (r) => !is32BitCode(r),
  instructionPointer: (r) => va(r.pc),
  stackPointer: (r) => va(r.sp),
  returnAddress: (r) => va(unsigned(r.x[LR]!)),
  // System PTEs, whose entry of the root is the same in each build so far.
  images: { from: va(0xffff_f800_0000_0000n), size: 2 ** 39 },
  // QEMU's virt (hw/arm/virt.c), with which UTM and libvirt run Windows; and others.
  ram: { starts: [GIB, 2 * GIB, 0], lowEnds: [] },

  dumpHeader: DUMP_HEADER_FORM_64,
  contextSize: Context.size,
  // For the vector registers in it.
  contextAlignment: 16,
  framesInPrcb: true,
  encodeContext,
  viewContext,
  areContextFlags,
  interruptsEnabled,
  // It is in a register of the interrupt controller.
  priority: () => undefined,
  // YIELD
  spinHint: Buffer.from([0x3f, 0x20, 0x03, 0xd5]),
  looksLikeContext,
  decodeContext,
  encodeUnknownContext,
  specialRegistersSize: SPECIAL_REGISTERS_SIZE,
  // Between them lies KARM64_ARCH_STATE.
  isProcessorState: (special, context) =>
    special % 8 === 0 && context % 16 === 0 && context - special >= SPECIAL_REGISTERS_SIZE && context < 0x1000,
  // Most inputs hold none, and Windows saves its own.
  patchSpecialRegisters: (original) => original,

  functionTable: FUNCTION_TABLE,
  frameState,
  trapFrames: TRAP_FRAMES,
  callerOf,
  unwind,
  functionBegin,
  endsWithCall,
  longestCall: LONGEST_CALL,
  // KERNEL_LARGE_STACK_SIZE.
  kernelStackSize: 0x12000,
  teb: (r) => {
    const base = x18(r);
    // In the kernel, until it has loaded its own.
    return exceptionLevel(r) > 1 || base === 0n || isKernelAddress(base) ? undefined : va(base);
  },
};
