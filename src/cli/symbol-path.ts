/** The symbol path of a command: its option, or the environment's. */
import { existsSync } from 'node:fs';
import { localSymbolPaths } from '../options/symbol-path.ts';

/**
 * `--symbols`; else what `ELF2DMP_SYMBOL_PATH` or `_NT_SYMBOL_PATH` have on this machine: their servers, and paths of
 * other machines, are left out without a word.
 */
export function symbolPath(option: string | undefined): string | undefined {
  if (option !== undefined) return option;
  const environment = process.env['ELF2DMP_SYMBOL_PATH'] ?? process.env['_NT_SYMBOL_PATH'];
  const local = localSymbolPaths(environment ?? '').filter((path) => existsSync(path));
  return local.length > 0 ? local.join(';') : undefined;
}
