import type { MachineOf } from '../machine.ts';
import type { X64Registers } from './registers.ts';

/**
 * RAM of PCs: of QEMU's pc (3 GiB, and 3.5 where max-ram-below-4g says so) and q35 (2 GiB; 2.75 with up to that much), as
 * hw/i386/pc_piix.c and pc_q35.c have it; other hypervisors use 3 to 3.75 GiB.
 */
export const PC_RAM: MachineOf<X64Registers>['ram'] = {
  starts: [0],
  lowEnds: [0xc000_0000, 0x8000_0000, 0xb000_0000, 0xe000_0000, 0xf000_0000],
};
