/** Symbols for conversions, which start without what reads PDBs unless a symbol path is given. */
import type { Diagnostic } from '../core/errors.ts';
import type { Symbols } from '../symbols/symbols.ts';

/** What names code in a conversion's report. */
export interface Naming {
  symbols: Symbols | undefined;
  /** What was found so far of PDBs that are not the guest's, or cannot be used. */
  diagnostics: () => Diagnostic[];
}

/** As `withSymbols`. */
export async function withNaming<T>(path: string | undefined, work: (naming: Naming) => Promise<T>): Promise<T> {
  if (path === undefined) return work({ symbols: undefined, diagnostics: () => [] });
  const { symbolDiagnostics, withSymbols } = await import('./symbols.ts');
  return withSymbols(path, (symbols) => work({ symbols, diagnostics: () => symbolDiagnostics(symbols) }));
}
