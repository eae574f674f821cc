/**
 * Real crash dumps, public but not ours to publish, and cases that users reported: they are never committed.
 * ELF2DMP_REAL_DUMPS and ELF2DMP_REAL_CASES name their folders, by default ../shared/data and ../shared/cases beside
 * the project.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const told = new Set<string>();

/** Path of a real dump, or undefined where there is none: then its tests are not registered, and one line says so. */
export function realDump(
  name: string,
  folder = process.env['ELF2DMP_REAL_DUMPS'] ?? fileURLToPath(new URL('../../../shared/data', import.meta.url)),
): string | undefined {
  return present(name, folder, 'ELF2DMP_REAL_DUMPS');
}

/** The same for a file of a reported case: `NN-name/file`. */
export function realCase(
  name: string,
  folder = process.env['ELF2DMP_REAL_CASES'] ?? fileURLToPath(new URL('../../../shared/cases', import.meta.url)),
): string | undefined {
  return present(name, folder, 'ELF2DMP_REAL_CASES');
}

function present(name: string, folder: string, variable: string): string | undefined {
  const path = join(folder, name);
  if (existsSync(path)) return path;
  if (!told.has(folder)) console.warn(`no tests with real dumps: ${folder} has no ${name} (set ${variable})`);
  told.add(folder);
  return undefined;
}
