/** Which PDBs to fetch. */
import { printable } from '../../core/errors.ts';
import type { InfoReport } from '../../report/input.ts';
import { isUsableName, pdbFileName } from '../../symbols/identity.ts';

/** Paths in a symbol store of the PDBs that are not at hand, one a line, each once. */
export function symbolsNeeded({ windows }: InfoReport): string {
  const pdbs = [windows?.kernel.pdb, ...(windows?.modules ?? []).map(({ pdb }) => pdb)];
  const needed = pdbs.filter((pdb) => pdb && pdb.found !== true && isUsableName(pdbFileName(pdb)));
  return [...new Set(needed.map((pdb) => `${printable(pdb!.symbolPath)}\n`))].join('');
}
