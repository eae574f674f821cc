// Makes the guest dumps in samples/ again: `npx tsx scripts/make-samples.ts`. A real QEMU runs the made-up
// guests of test/guest and writes the files itself; they hold only bytes that this repository makes.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { buildGuest, FAULT_AT, type GuestOptions } from '../test/guest/guest.ts';
import { buildGuest32, type GuestOptions32 } from '../test/guest/x86/guest.ts';
import { dumpWithQemu } from '../test/support/qemu.ts';

const SAMPLES: Record<string, GuestOptions> = {
  'live-19041-4cpu': { processors: 4, order: [2, 0, 3, 1], user: [3], seed: 41 },
  'crashed-19041-2cpu': {
    processors: 2,
    // An access to 0x10 at DISPATCH_LEVEL, a read, from demo.sys.
    crash: {
      code: 0xd1,
      parameters: [0x10n, 2n, 0n, FAULT_AT.DemoDispatch],
      processor: 1,
      fault: 'DemoDispatch',
    },
    seed: 42,
  },
};

const SAMPLES_32: Record<string, GuestOptions32> = {
  'crashed-7601-x86-2cpu': {
    user: [0],
    crash: { code: 0xd1, parameters: [0x10, 2, 0, 0x8a460003], processor: 1 },
    seed: 43,
  },
};

const guests = () => ({
  ...Object.fromEntries(Object.entries(SAMPLES).map(([name, options]) => [name, buildGuest(options)])),
  ...Object.fromEntries(Object.entries(SAMPLES_32).map(([name, options]) => [name, buildGuest32(options)])),
});

async function main(): Promise<void> {
  const target = fileURLToPath(new URL('../samples/', import.meta.url));
  const dir = mkdtempSync(join(tmpdir(), 'elf2dmp-samples-'));
  try {
    for (const [name, guest] of Object.entries(guests())) {
      const elf = join(dir, `${name}.elf`);
      await dumpWithQemu(guest, elf);
      // zlib writes no time stamp and no name: the same bytes each time.
      const stored = gzipSync(readFileSync(elf), { level: 9 });
      writeFileSync(join(target, `${name}.elf.gz`), stored);
      console.log(`${name}.elf.gz: ${stored.length} bytes`);
    }
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

void main();
