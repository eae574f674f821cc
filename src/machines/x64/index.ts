import { isKernelAddress } from '../../core/bits.ts';
import { PAGE_SIZE, va } from '../../core/units.ts';
import { DUMP_HEADER_FORM_64 } from '../../formats/dump-header.ts';
import { NT_PRSTATUS } from '../../formats/elf.ts';
import { IMAGE_FILE_MACHINE_AMD64 } from '../../formats/pe.ts';
import { SHARED_USER_DATA_64 } from '../../formats/win-kernel.ts';
import { gateReaders } from '../interrupt-gates.ts';
import type { MachineOf } from '../machine.ts';
import { createPageScan } from '../page-scan.ts';
import { rootIn } from '../paging-mode.ts';
import {
  areContextFlags,
  Context,
  decodeContext,
  encodeContext,
  encodeUnknownContext,
  interruptsEnabled,
  looksLikeContext,
  patchSpecialRegisters,
  SpecialRegisters,
  viewContext,
} from './context.ts';
import { Kpcr, kpcrCandidates, kpcrDoubt, PRCB_IN_KPCR, runsKpcr } from './kpcr.ts';
import { MIGRATION } from './migration.ts';
import { pageClues, SCAN_PATTERNS } from './page-clues.ts';
import { PAGING_4_LEVELS, PAGING_5_LEVELS } from './paging.ts';
import { PC_RAM } from './pc-ram.ts';
import { Prstatus, parsePrstatus } from './prstatus.ts';
import { parseQemuNote } from './qemu-note.ts';
import {
  has5Levels,
  is64BitCode,
  isLongModePaging,
  namedRegisters,
  privilegeLevel,
  type X64Registers,
} from './registers.ts';
import { TRAP_FRAMES } from './trap-frame.ts';
import { callerOf, endsWithCall, FUNCTION_TABLE, frameState, functionBegin, LONGEST_CALL, unwind } from './unwind.ts';
import { parseVirtualBoxNote } from './virtualbox-note.ts';
import { parseXenVcpu, XenVcpu } from './xen-vcpu.ts';

/** KIDTENTRY64: offset 15..0 at 0, 31..16 at 6, 63..32 at 8; type in byte 5, bit 7 present. */
const GATE_SIZE = 16;

/** Where the gate at an offset leads; undefined for one that is not present. */
function gateHandler(bytes: Buffer, at: number): bigint | undefined {
  if ((bytes.readUInt8(at + 5) & 0x80) === 0) return undefined;
  const low = bytes.readUInt16LE(at) | (bytes.readUInt16LE(at + 6) << 16);
  return (BigInt(bytes.readUInt32LE(at + 8)) << 32n) | BigInt(low >>> 0);
}

const MODES = [PAGING_4_LEVELS, PAGING_5_LEVELS];

/** 64-bit x86. */
export const X64: MachineOf<X64Registers> = {
  name: 'x64',
  title: '64-bit x86',
  takenFor: 'x86',
  elfMachine: 62,
  imageFileMachine: IMAGE_FILE_MACHINE_AMD64,
  otherImages: {},
  words: {
    instructionPointer: 'rip',
    stackPointer: 'rsp',
    root: 'cr3',
    kpcr: 'gs',
    interruptTable: 'IDT',
    notStarted: 'paging is off',
  },
  pointerSize: 8,
  sharedUserData: SHARED_USER_DATA_64,
  pagingModes: MODES,
  pagingModesOf: () => MODES,
  debuggerDefaults: {},
  pageDatabase: {
    complete: true,
    layouts: [
      // Since 10240. ResidentPage is bit 40 of u4; builds that lack it have a part of a frame number there.
      { entrySize: 0x30, stateAt: 0x22, cacheShift: 6, originalPteAt: 0x10, resident: { at: 0x2d, mask: 1 } },
      // Vista to 8.1: u3.e1 follows the 16-bit reference count.
      { entrySize: 0x30, stateAt: 0x1a, cacheShift: 6, originalPteAt: 0x20, resident: undefined },
      // Server 2003: the count comes last.
      { entrySize: 0x30, stateAt: 0x19, cacheShift: 4, originalPteAt: 0x20, resident: undefined },
    ],
  },

  cpuNotes: [
    { name: 'QEMU', type: 0, label: 'QEMU', more: [], whole: true, parse: parseQemuNote },
    { name: 'VBCPU', type: 0xb01, label: 'VBCPU', more: [], whole: true, parse: parseVirtualBoxNote },
    // General registers only.
    { name: 'CORE', type: NT_PRSTATUS, label: 'NT_PRSTATUS', more: [], whole: false, parse: parsePrstatus },
  ],
  prstatusSize: Prstatus.size,
  kdumpBlockSize: PAGE_SIZE,
  xenVcpu: { size: XenVcpu.size, parse: parseXenVcpu },

  migration: MIGRATION,
  namedRegisters,
  neverStarted: ({ control }) => control !== undefined && !isLongModePaging(control),
  outsideWindows: () => undefined,
  systemRegisters: true,
  rootRegister: ({ control }) => control?.cr3,
  pageTables: ({ control }) => {
    if (!control || !isLongModePaging(control)) return undefined;
    const mode = has5Levels(control) ? PAGING_5_LEVELS : PAGING_4_LEVELS;
    return { root: rootIn(mode, control.cr3), mode };
  },

  kpcr: {
    prcb: PRCB_IN_KPCR,
    kdVersionBlock: Kpcr.offsetOf('KdVersionBlock'),
    lockArray: Kpcr.offsetOf('LockArray'),
    size: Kpcr.size,
    // With the PRCB's first fields.
    reach: 2 * Kpcr.size,
  },
  kpcrCandidates,
  kpcrDoubt,
  runsKpcr,

  interruptTable: ({ tables }) => tables && { base: va(tables.idt.base), size: tables.idt.limit + 1 },

  descriptorTable: ({ tables }) => tables && { base: va(tables.gdt.base), size: tables.gdt.limit + 1 },

  ...gateReaders(GATE_SIZE, gateHandler),

  pageClues,
  createPageScan: (memory) => createPageScan(memory, SCAN_PATTERNS),

  isUserMode: (r) => privilegeLevel(r) === 3,
  runsNativeCode: is64BitCode,
  instructionPointer: (r) => va(r.rip),
  stackPointer: (r) => va(r.rsp),
  returnAddress: () => undefined,
  // Every CPU's interrupt table leads there.
  images: undefined,
  ram: PC_RAM,

  dumpHeader: DUMP_HEADER_FORM_64,
  contextSize: Context.size,
  // For the XMM registers in it.
  contextAlignment: 16,
  framesInPrcb: false,
  encodeContext,
  viewContext,
  areContextFlags,
  interruptsEnabled,
  priority: ({ cr8 }) => (cr8 === undefined ? undefined : { value: Number(cr8 & 0xfn), register: 'cr8' }),
  // PAUSE
  spinHint: Buffer.from([0xf3, 0x90]),
  looksLikeContext,
  decodeContext,
  encodeUnknownContext,
  specialRegistersSize: SpecialRegisters.size,
  // KPROCESSOR_STATE grew with 17134, where Xcr0 and MsrFsBase came.
  isProcessorState: (special, context) => special % 0x40 === 0 && [0xe0, 0xf0].includes(context - special),
  patchSpecialRegisters,

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
    const base = privilegeLevel(r) === 3 ? r.gs.base : r.kernelGsBase;
    return base === undefined || base === 0n || isKernelAddress(base) ? undefined : va(base);
  },
};
