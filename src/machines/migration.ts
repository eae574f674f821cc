/** How a machine's CPU states come in QEMU's migration streams. */
import type { Registers } from './registers.ts';

/** Whether a stream with certain CPUs is of a machine's guest. */
export type Likelihood = 'sure' | 'likely' | 'unlikely' | 'never';

/** A section of a migration stream with the state of one CPU. */
export interface MigrationForm {
  /** Machine types of QEMU that are this machine: `pc-i440fx-7.2`. */
  machineTypes: RegExp;
  /** Name of the section, one for each CPU. */
  section: string;
  /** Another section with some of a CPU's state, one for each CPU; undefined where there is none. */
  also: string | undefined;
  /** Whether the guest can be one of this machine, by its CPUs' sections; of some machine types there are several. */
  likelihood(cpus: readonly MigratedState[]): Likelihood;
  /**
   * @param also the CPU's section of that name; undefined where there is none
   * @returns undefined when the section can't be one of this machine's
   */
  parse(state: MigratedState, also: MigratedState | undefined): Registers | undefined;
  /** Fields, by the JSON's names, of what the guest told its hypervisor; undefined where no such thing is known. */
  told: { crash: string; guestOsId: string } | undefined;
  /** Where RAM begins, which lies in one piece; undefined: as pc's. */
  ramStart: number | undefined;
}

/** A device's section, without its header. */
export interface MigratedState {
  version: number;
  bytes: Buffer;
}
