import type { VirtualAddress } from '../core/units.ts';

/** Which PRCB a KPCR should name, and where it does so if the KDBG says. */
export interface KpcrClaim {
  prcb: VirtualAddress;
  /** Offset of the KPCR's own address; 0 or undefined: where the machine has it. */
  selfAt: number | undefined;
  /** Offset of the PRCB's address, likewise. */
  currentPrcbAt: number | undefined;
}

/** Where a KPCR has what the rest of the program reads itself: the same in every build. */
export interface KpcrLayout {
  /** Offset of the PRCB, which is a part of the KPCR. */
  prcb: number;
  kdVersionBlock: number;
  /** A pointer to the processor's queued spin locks, by their numbers; undefined where that is not known. */
  lockArray: number | undefined;
  /** Bytes before the PRCB. */
  size: number;
  /** Bytes from its beginning in which no CONTEXT frame can lie. */
  reach: number;
}
