/** The PDB of the made-up guest's kernel, with types as 19041 has them, by literal offsets. */
import { makePdb, type StructureSpec, typeRecord, u32 } from '../symbols/pdb-file.ts';

const U8 = 0x20;
const U32 = 0x75;
const U64 = 0x23;
const POINTER = 0x603;

/** See `Threads` and `placeActivity` in test/guest/guest.ts. */
export const KERNEL_TYPES: readonly StructureSpec[] = [
  {
    name: '_KPRCB',
    size: 0xaf00,
    members: [
      ['CurrentThread', 8, POINTER],
      ['IdleThread', 0x18, POINTER],
      ['DpcData', 0x30c0, POINTER],
      ['DpcStack', 0x3110, POINTER],
      ['DpcRoutineActive', 0x312a, U8],
      ['DpcWatchdogCount', 0x3180, U32],
      ['DpcWatchdogPeriod', 0x3184, U32],
      ['DpcTimeCount', 0x3188, U32],
      ['DpcTimeLimit', 0x318c, U32],
      ['IsrStack', 0x85d8, POINTER],
    ],
  },
  { name: '_KDPC_DATA', size: 0x28, members: [['ActiveDpc', 0x20, POINTER]] },
  { name: '_KDPC', size: 0x40, members: [['DeferredRoutine', 0x18, POINTER]] },
  {
    name: '_KTHREAD',
    size: 0x430,
    members: [
      ['StackLimit', 0x30, POINTER],
      ['StackBase', 0x38, POINTER],
      ['KernelTime', 0x28c, U32],
      ['UserTime', 0x2dc, U32],
    ],
  },
  {
    name: '_CLIENT_ID',
    size: 0x10,
    members: [
      ['UniqueProcess', 0, U64],
      ['UniqueThread', 8, U64],
    ],
  },
  { name: '_ETHREAD', size: 0x898, members: [['Cid', 0x478, U64]] },
];

/** Its file. */
export const kernelPdb = (structures: readonly StructureSpec[] = KERNEL_TYPES): Buffer =>
  makePdb({
    guid: KERNEL_GUID,
    age: 1,
    structures,
    // A record that is no structure.
    types: [typeRecord(0x1002, u32(POINTER, (8 << 13) | 0x1000c))],
  });

/** As the guest's kernel has it. */
export const KERNEL_GUID = 'D4C3B2A1F6E51807293A4B5C6D7E8F90';
