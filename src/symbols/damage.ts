/** Errors of PDBs. */
import type { ErrorCodeOf } from '../core/codes.ts';
import { Elf2dmpError } from '../core/errors.ts';

/** Where a PDB is damaged. */
export interface Damage {
  file: string;
  /** Name of the structure in its specification. */
  structure: string;
  expected: string;
  actual: string;
  /** Byte offset in the file or stream that `structure` names. */
  offset?: number;
}

/** A PDB that contradicts itself or its format. */
export const damagedPdb = (damage: Damage): Elf2dmpError =>
  new Elf2dmpError({
    code: 'pdb-damaged',
    kind: 'corrupt',
    message: 'a damaged PDB',
    ...damage,
    hint: 'copy it again from where it was built or from the symbol server',
  });

/** A file that may well be sound, but is not a PDB that we read. */
export const unsupportedPdb = (
  file: string,
  what: { code: ErrorCodeOf<'unsupported'> & `pdb-${string}`; message: string; hint: string },
): Elf2dmpError => new Elf2dmpError({ kind: 'unsupported', file, ...what });
