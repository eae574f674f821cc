/**
 * Real crash dumps, public but not ours to publish: they are never committed. ELF2DMP_REAL_DUMPS names their folder,
 * by default ../shared/data beside the project.
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
  const path = join(folder, name);
  if (existsSync(path)) return path;
  if (!told.has(folder)) console.warn(`no tests with real dumps: ${folder} has no ${name} (set ELF2DMP_REAL_DUMPS)`);
  told.add(folder);
  return undefined;
}
