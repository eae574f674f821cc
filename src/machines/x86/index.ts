import { PAGE_SIZE } from '../../core/units.ts';
import { DUMP_HEADER_FORM_32 } from '../../formats/dump-header.ts';
import { EM_386, NT_PRSTATUS } from '../../formats/elf.ts';
import { IMAGE_FILE_MACHINE_I386 } from '../../formats/pe.ts';
import { SHARED_USER_DATA_32 } from '../../formats/win-kernel.ts';
import { gateReaders } from '../interrupt-gates.ts';
import type { MachineOf } from '../machine.ts';
import { createPageScan } from '../page-scan.ts';
import { rootIn } from '../paging-mode.ts';
import { PC_RAM } from '../x64/pc-ram.ts';
import { parseQemuNote } from '../x64/qemu-note.ts';
import { privilegeLevel, type X64Registers } from '../x64/registers.ts';
import { endsWithCall, LONGEST_CALL } from '../x64/unwind.ts';
import {
  areContextFlags,
  Context,
  decodeContext,
  encodeContext,
  encodeUnknownContext,
  frameState,
  interruptsEnabled,
  looksLikeContext,
  patchSpecialRegisters,
  SpecialRegisters,
  viewContext,
} from './context.ts';
import { Kpcr, kpcrCandidates, kpcrDoubt, runsKpcr } from './kpcr.ts';
import { MIGRATION } from './migration.ts';
import { pageClues, SCAN_PATTERNS } from './page-clues.ts';
import { PAGING_32_BIT, PAGING_PAE } from './paging.ts';
import { Prstatus32, parsePrstatus32 } from './prstatus.ts';
import { address, isPae, isPaging, namedRegisters, teb } from './registers.ts';
import { TRAP_FRAMES } from './trap-frame.ts';
import { callerOf, unwind } from './unwind.ts';

/** KIDTENTRY: offset 15..0 at 0, 31..16 at 6; type in byte 5, of which bit 7 is "present". Task gates have no offset. */
const GATE_SIZE = 8;
const GATE_TYPES: ReadonlySet<number> = new Set([0xe, 0xf]);

/** Where the gate at an offset leads; undefined for one that is not present, or leads to a task. */
function gateHandler(bytes: Buffer, at: number): bigint | undefined {
  const type = bytes.readUInt8(at + 5);
  if ((type & 0x80) === 0 || !GATE_TYPES.has(type & 0x1f)) return undefined;
  return address(BigInt(bytes.readUInt16LE(at) + bytes.readUInt16LE(at + 6) * 0x1_0000));
}

/** 32-bit x86. */
export const X86: MachineOf<X64Registers> = {
  name: 'x86',
  title: '32-bit x86',
  takenFor: undefined,
  elfMachine: EM_386,
  imageFileMachine: IMAGE_FILE_MACHINE_I386,
  otherImages: {},
  words: {
    instructionPointer: 'eip',
    stackPointer: 'esp',
    root: 'cr3',
    kpcr: 'GDT',
    interruptTable: 'IDT',
    notStarted: 'paging is off',
  },
  pointerSize: 4,
  sharedUserData: SHARED_USER_DATA_32,
  pagingModes: [PAGING_PAE, PAGING_32_BIT],
  pagingModesOf: ({ PaeEnabled }) => (PaeEnabled === 0 ? [PAGING_32_BIT, PAGING_PAE] : [PAGING_PAE, PAGING_32_BIT]),
  // Not every build was looked at.
  pageDatabase: {
    complete: false,
    layouts: [
      // Build 15063, which has PAE alone.
      { entrySize: 0x1c, stateAt: 0x16, cacheShift: 6, originalPteAt: 0x8, resident: undefined },
      // Vista to 8, with PAE and without.
      { entrySize: 0x1c, stateAt: 0xe, cacheShift: 6, originalPteAt: 0x10, resident: undefined },
      { entrySize: 0x18, stateAt: 0xe, cacheShift: 6, originalPteAt: 0x10, resident: undefined },
      // XP and Server 2003, likewise.
      { entrySize: 0x1c, stateAt: 0xd, cacheShift: 4, originalPteAt: 0x10, resident: undefined },
      { entrySize: 0x18, stateAt: 0xd, cacheShift: 4, originalPteAt: 0x10, resident: undefined },
    ],
  },
  // NT 5.1, whose block has 0x290 bytes (types in public symbols). It has no other form than this one.
  debuggerDefaults: {
    OffsetKThreadTeb: 0x20,
    OffsetKThreadInitialStack: 0x18,
    OffsetKThreadApcProcess: 0x44,
    SizeEProcess: 0x260,
    OffsetEprocessPeb: 0x1b0,
    OffsetEprocessParentCID: 0x14c,
    OffsetEprocessDirectoryTableBase: 0x18,
    OffsetPrcbCurrentThread: 4,
    OffsetPrcbProcStateContext: 0x1c,
    OffsetPrcbNumber: 0x10,
    OffsetPcrSelfPcr: Kpcr.offsetOf('SelfPcr'),
    OffsetPcrCurrentPrcb: Kpcr.offsetOf('Prcb'),
    OffsetPcrContainedPrcb: Kpcr.size,
    OffsetPrcbProcStateSpecialReg: 0x1c + Context.size,
  },

  cpuNotes: [
    { name: 'QEMU', type: 0, label: 'QEMU', more: [], whole: true, parse: parseQemuNote },
    // General registers only.
    { name: 'CORE', type: NT_PRSTATUS, label: 'NT_PRSTATUS', more: [], whole: false, parse: parsePrstatus32 },
  ],
  prstatusSize: Prstatus32.size,
  kdumpBlockSize: PAGE_SIZE,
  xenVcpu: undefined,
  migration: MIGRATION,
  namedRegisters,
  neverStarted: ({ control }) => control !== undefined && !isPaging(control),
  outsideWindows: () => undefined,
  systemRegisters: true,
  rootRegister: ({ control }) => control?.cr3,
  pageTables: ({ control }) => {
    if (!control || !isPaging(control)) return undefined;
    const mode = isPae(control) ? PAGING_PAE : PAGING_32_BIT;
    return { root: rootIn(mode, control.cr3), mode };
  },

  kpcr: {
    prcb: Kpcr.size,
    kdVersionBlock: Kpcr.offsetOf('KdVersionBlock'),
    lockArray: undefined,
    size: Kpcr.size,
    // With the PRCB's first fields.
    reach: Kpcr.size + 0x18,
  },
  kpcrCandidates,
  kpcrDoubt,
  runsKpcr,

  interruptTable: ({ tables }) => tables && { base: address(tables.idt.base), size: tables.idt.limit + 1 },

  descriptorTable: ({ tables }) => tables && { base: address(tables.gdt.base), size: tables.gdt.limit + 1 },

  ...gateReaders(GATE_SIZE, gateHandler),

  pageClues,
  createPageScan: (memory) => createPageScan(memory, SCAN_PATTERNS),

  isUserMode: (r) => privilegeLevel(r) === 3,
  runsNativeCode: () => true,
  instructionPointer: (r) => address(r.rip),
  stackPointer: (r) => address(r.rsp),
  returnAddress: () => undefined,
  // Every CPU's interrupt table leads there.
  images: undefined,
  ram: PC_RAM,

  dumpHeader: DUMP_HEADER_FORM_32,
  contextSize: Context.size,
  contextAlignment: 4,
  framesInPrcb: false,
  encodeContext,
  viewContext,
  areContextFlags,
  interruptsEnabled,
  // CR8 is of 64-bit mode.
  priority: () => undefined,
  // PAUSE
  spinHint: Buffer.from([0xf3, 0x90]),
  looksLikeContext,
  decodeContext,
  encodeUnknownContext,
  specialRegistersSize: SpecialRegisters.size,
  isProcessorState: (special, context) => special % 4 === 0 && special - context === Context.size,
  patchSpecialRegisters,

  functionTable: undefined,
  frameState,
  trapFrames: TRAP_FRAMES,
  callerOf,
  unwind,
  functionBegin: () => undefined,
  endsWithCall,
  longestCall: LONGEST_CALL,
  // KERNEL_LARGE_STACK_SIZE.
  kernelStackSize: 0xf000,
  teb,
};
