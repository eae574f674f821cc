/** Programs that some tests need, by the Debian packages that have them. */
import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';

const told = new Set<string>();

/** For `describe.skipIf(!programsAvailable(…))`. With ELF2DMP_REQUIRE_TOOLS=1 a missing program is an error. */
export function programsAvailable(packages: Readonly<Record<string, string>>): boolean {
  const missing = Object.keys(packages).filter((program) => !onPath(program));
  if (missing.length === 0) return true;
  const install = [...new Set(missing.map((program) => packages[program]))].join(' ');
  const message = `${missing.join(' and ')} not found (Debian: apt-get install ${install})`;
  if (process.env['ELF2DMP_REQUIRE_TOOLS'] === '1') throw new Error(message);
  if (!told.has(message)) console.warn(`skipping tests: ${message}`);
  told.add(message);
  return false;
}

function onPath(program: string): boolean {
  return (process.env['PATH'] ?? '').split(delimiter).some((dir) => {
    try {
      accessSync(join(dir, program), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

/** Where a newer Debian is, whose QEMU and libvirt are to run instead: scripts/newer-qemu.sh makes it. */
export const NEWER_ROOT = process.env['ELF2DMP_QEMU_ROOT'];

/** A command line of QEMU's or libvirt's, in the newer Debian where there is one. */
export const newer = (command: readonly string[]): string[] =>
  NEWER_ROOT === undefined ? [...command] : ['chroot', NEWER_ROOT, ...command];
