/** Symbols for the operations that name code. */
import type { Diagnostic } from '../core/errors.ts';
import { prepareUnattended } from '../files/unattended.ts';
import { localSymbolPaths } from '../options/symbol-path.ts';
import { SymbolStore } from '../symbols/store.ts';
import { type SymbolProblem, Symbols } from '../symbols/symbols.ts';

/**
 * Runs `work` with the PDBs at a symbol path of the debugger's syntax, whose servers are left out; without a path, with
 * none. Throws `Elf2dmpError` where a part of the path is not there.
 */
export async function withSymbols<T>(
  path: string | undefined,
  work: (symbols: Symbols | undefined) => Promise<T>,
): Promise<T> {
  if (path !== undefined) await prepareUnattended();
  const symbols = path === undefined ? undefined : new Symbols(new SymbolStore(localSymbolPaths(path)));
  try {
    return await work(symbols);
  } finally {
    symbols?.close();
  }
}

const CODES = {
  mismatch: 'symbols-mismatched',
  compressed: 'symbols-unusable',
  unusable: 'symbols-unusable',
} as const satisfies Record<SymbolProblem['code'], string>;

/** The PDBs that were found so far and are not the guest's, or cannot be used. */
export const symbolDiagnostics = (symbols: Symbols | undefined): Diagnostic[] =>
  (symbols?.problems ?? []).map(({ wanted, path, code, reason }) => {
    // The reader's own messages begin with the path.
    const what = reason.startsWith(path) ? reason : `${path}: ${reason}`;
    return { severity: 'warning', code: CODES[code], message: `${what} (wanted: ${wanted})` };
  });
