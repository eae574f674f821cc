/** The machines whose guests are converted. A new one is a folder beside this file and an entry here. */
import type { DumpHeaderForm } from '../formats/dump-header.ts';
import { ARM64 } from './arm64/index.ts';
import type { Machine } from './machine.ts';
import type { MigratedState } from './migration.ts';
import { X64 } from './x64/index.ts';
import { X86 } from './x86/index.ts';

/** In the order in which they are tried where an input doesn't say whose it is. */
export const MACHINES: readonly Machine[] = [X64, X86, ARM64];

/** What an input says of its machine: e_machine of an ELF file, IMAGE_FILE_MACHINE_*, or the bytes of its NT_PRSTATUS notes. */
export type MachineMark = { elfMachine: number } | { imageFileMachine: number } | { prstatusSize: number };

/** undefined: a machine whose guests are not converted. */
export const machineOf = (mark: MachineMark): Machine | undefined =>
  MACHINES.find((machine) => Object.entries(mark).every(([key, value]) => machine[key as keyof Machine] === value));

/**
 * The machines of which an input with this mark can be, the one that it names first. QEMU names the one whose mode
 * CPU 0 is in, which need not be the guest's: in reset, in SMM, or after a triple fault. Empty: none that is converted.
 */
export function machinesOf(mark: MachineMark): readonly Machine[] {
  const named = machineOf(mark);
  return named ? [named, ...MACHINES.filter(({ takenFor }) => takenFor === named.name)] : [];
}

/**
 * The machines of which a migration stream can be, by QEMU's machine type (undefined: of any) and its CPUs' sections, the
 * likeliest first. Empty: none that is converted.
 */
export function machinesOfMigration(
  machineType: string | undefined,
  sections: (name: string) => readonly MigratedState[],
): readonly Machine[] {
  const found = MACHINES.flatMap((machine) => {
    const { migration: form } = machine;
    if (!form || (machineType !== undefined && !form.machineTypes.test(machineType))) return [];
    return [{ machine, rank: LIKELIHOODS.indexOf(form.likelihood(sections(form.section))) }];
  }).sort((a, b) => a.rank - b.rank);
  const best = found[0]?.rank;
  // If all say never, the machine type alone is believed.
  if (best === LIKELIHOODS.indexOf('never')) return found.map(({ machine }) => machine);
  return found
    .filter(({ rank }) => (best === 0 ? rank === 0 : rank < LIKELIHOODS.length - 1))
    .map(({ machine }) => machine);
}

const LIKELIHOODS = ['sure', 'likely', 'unlikely', 'never'];

/** For messages: what is converted, `64-bit x86`. */
export const convertedMachines = (): string => MACHINES.map(({ title }) => title).join(' and ');

/** For messages: each machine's value of a mark. */
export const marksOf = (describe: (machine: Machine) => string): string => MACHINES.map(describe).join(', ');

/** The form of a dump header whose first bytes these are; undefined: no machine's. */
export const dumpHeaderFormOf = (head: Buffer): DumpHeaderForm | undefined =>
  MACHINES.map(({ dumpHeader }) => dumpHeader).find(({ signature }) =>
    head.subarray(0, signature.length).equals(signature),
  );
