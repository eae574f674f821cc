// Makes the guest dumps in samples/ again: `npx tsx scripts/make-samples.ts [NAME…]`. A real QEMU runs the made-up
// guests of test/guest and writes the files itself; they hold only bytes that this repository makes. ELF files are the
// same each time as long as test/guest is: a change of the guests, or of the stub, is in the next ones. Streams hold times.
// With --check nothing is written: it says in how many pages what would be made differs from what is there.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gunzipSync, gzipSync } from 'node:zlib';
import { type Arm64Options, buildArm64Guest } from '../test/guest/arm64.ts';
import { buildGuest, FAULT_AT, type GuestOptions } from '../test/guest/guest.ts';
import { buildGuest32, type GuestOptions32 } from '../test/guest/x86/guest.ts';
import { dumpWithQemu } from '../test/support/qemu.ts';
import { dumpArm64WithQemu } from '../test/support/qemu-arm64.ts';

const CRASHED_ARM64: Arm64Options = {
  processors: 4,
  user: [2],
  crash: { code: 0xd1, parameters: [0x10n, 2n, 0n, 0xfffff806_86040004n], processor: 1 },
  seed: 43,
};

const CRASHED: GuestOptions = {
  processors: 2,
  // An access to 0x10 at DISPATCH_LEVEL, a read, from demo.sys.
  crash: {
    code: 0xd1,
    parameters: [0x10n, 2n, 0n, FAULT_AT.DemoDispatch],
    processor: 1,
    fault: 'DemoDispatch',
  },
  seed: 42,
};

const CRASHED_32: GuestOptions32 = {
  user: [0],
  crash: { code: 0xd1, parameters: [0x10, 2, 0, 0x8a460003], processor: 1 },
  seed: 43,
};

/** By their names in samples/, without `.gz`. */
const SAMPLES: Record<string, (path: string) => Promise<unknown>> = {
  'live-19041-4cpu.elf': (path) =>
    dumpWithQemu(buildGuest({ processors: 4, order: [2, 0, 3, 1], user: [3], seed: 41 }), path),
  'crashed-19041-2cpu.elf': (path) => dumpWithQemu(buildGuest(CRASHED), path),
  'crashed-19041-2cpu.save': (path) => dumpWithQemu(buildGuest(CRASHED), path, { raw: 'migrate' }),
  'crashed-7601-x86-2cpu.elf': (path) => dumpWithQemu(buildGuest32(CRASHED_32), path),
  'crashed-arm64-22000-4cpu.elf': (path) => dumpArm64WithQemu(buildArm64Guest(CRASHED_ARM64), path),
};

/** In front of the stream, as `virsh save` writes it: libvirt's header, and a description of the VM without a word in it. */
function saveHeader(): Buffer {
  const description = Buffer.from('<domain/>\0', 'latin1');
  const header = Buffer.alloc(92);
  header.write('LibvirtQemudSave', 'latin1');
  header.writeUInt32LE(2, 16);
  header.writeUInt32LE(description.length, 20);
  return Buffer.concat([header, description]);
}

/** In how many pages a sample differs from what is made now. */
function difference(stored: Buffer, made: Buffer): string {
  if (stored.equals(made)) return 'the same';
  let pages = 0;
  for (let at = 0; at < Math.max(stored.length, made.length); at += PAGE) {
    if (!stored.subarray(at, at + PAGE).equals(made.subarray(at, at + PAGE))) pages++;
  }
  return `${pages} of ${Math.ceil(made.length / PAGE)} pages differ`;
}

const PAGE = 4096;

async function main(): Promise<void> {
  const target = fileURLToPath(new URL('../samples/', import.meta.url));
  const dir = mkdtempSync(join(tmpdir(), 'elf2dmp-samples-'));
  try {
    const check = process.argv.includes('--check');
    const wanted = process.argv.slice(2).filter((argument) => argument !== '--check');
    for (const [name, write] of Object.entries(SAMPLES)) {
      if (wanted.length > 0 && !wanted.includes(name)) continue;
      const path = join(dir, name);
      await write(path);
      const made = readFileSync(path);
      const bytes = name.endsWith('.save') ? Buffer.concat([saveHeader(), made]) : made;
      if (check) {
        console.log(`${name}.gz: ${difference(gunzipSync(readFileSync(join(target, `${name}.gz`))), bytes)}`);
        continue;
      }
      // zlib writes no time stamp and no name: the same bytes each time.
      const stored = gzipSync(bytes, { level: 9 });
      writeFileSync(join(target, `${name}.gz`), stored);
      console.log(`${name}.gz: ${stored.length} bytes`);
    }
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

void main();
