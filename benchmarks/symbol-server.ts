// The PDB of a made-up guest's kernel, where QEMU's elf2dmp looks for it (scripts/build-c-elf2dmp.sh).
import { spawn } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { buildGuest, type GuestOptions, RVA } from '../test/guest/guest.ts';
import { makePdb } from '../test/symbols/pdb-file.ts';

/** As the script compiles it in. */
const PORT = 18765;

/** The first section's, in the PDB alone: QEMU's tool adds it to a symbol's offset. */
const SECTION = 0x1000;

const PUBLICS = [
  'KdDebuggerDataBlock',
  'KdVersionBlock',
  'KiWaitNever',
  'KiWaitAlways',
  'KdpDataBlockEncoded',
] as const;

/** Serves the PDB until it is ended; `guest` is what guests have to be made of. */
export async function serveSymbols(dir: string): Promise<{ guest: GuestOptions; end(): void }> {
  const guest: GuestOptions = {};
  const [kernel] = buildGuest(guest).truth.modules;
  const store = join(dir, 'symbols');
  // QEMU's tool asks in lower case.
  const path = join(store, kernel!.pdb, `${kernel!.guid.toLowerCase()}1`, kernel!.pdb);
  mkdirSync(dirname(path), { recursive: true });
  const publics = PUBLICS.map((name) => [name, 1, RVA[name] - SECTION] as const);
  writeFileSync(path, makePdb({ guid: kernel!.guid, sections: [[SECTION, 0x7f000]], publics }));
  // A process of its own: benchmarks block this one.
  const server = spawn('python3', ['-m', 'http.server', `${PORT}`, '--bind', '127.0.0.1', '--directory', store], {
    stdio: 'ignore',
  });
  while (!(await answers())) await sleep(50);
  return { guest, end: () => server.kill() };
}

const answers = (): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = connect(PORT, '127.0.0.1');
    socket.on('connect', () => resolve(true)).on('error', () => resolve(false));
    socket.on('connect', () => socket.destroy());
  });
