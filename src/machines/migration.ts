/** How a machine's CPU states come in QEMU's migration streams. */
import type { Registers } from './registers.ts';

/** A section of a migration stream with the state of one CPU. */
export interface MigrationForm {
  /** Machine types of QEMU that are this machine: `pc-i440fx-7.2`. */
  machineTypes: RegExp;
  /** Name of the section, one for each CPU. */
  section: string;
  /** @returns undefined when the section can't be one of this machine's */
  parse(state: { version: number; bytes: Buffer }): Registers | undefined;
}
