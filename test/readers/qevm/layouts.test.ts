import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { pa } from '../../../src/core/units.ts';
import type { MemoryImage } from '../../../src/memory/image.ts';
import { openInput } from '../../../src/readers/input.ts';
import { migrated, migrateTo, Qemu, qemuAvailable } from '../../support/qemu.ts';
import { x64 } from '../../support/registers.ts';
import { samePages } from '../../support/same-memory.ts';

const MIB = 2 ** 20;
const GIB = 2 ** 30;

let dir: string;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'elf2dmp-layouts-'));
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

/** A firmware that sleeps: cli; hlt; jmp to the hlt. */
function sleepingFirmware(): string {
  const firmware = Buffer.alloc(0x10000);
  firmware.set([0xfa, 0xf4, 0xeb, 0xfd], 0xfff0);
  const path = join(dir, 'sleeping');
  writeFileSync(path, firmware);
  return path;
}

async function withMachine<T>(args: readonly string[], use: (qemu: Qemu) => Promise<T>): Promise<T> {
  const qemu = new Qemu(['-accel', 'tcg', '-nodefaults', '-display', 'none', '-net', 'none', '-qmp', 'stdio', ...args]);
  try {
    await qemu.command('qmp_capabilities');
    return await use(qemu);
  } finally {
    qemu.kill();
  }
}

/** What a loader device puts at a physical address: a page that no other has. */
function marker(at: number): Buffer {
  const page = Buffer.alloc(4096);
  for (let i = 0; i < 4096; i += 8) page.writeBigUInt64LE(BigInt(at) * 0x1_0001n + BigInt(i), i);
  return page;
}

function loaders(addresses: readonly number[]): string[] {
  return addresses.flatMap((at) => {
    const path = join(dir, `page-${at.toString(16)}`);
    writeFileSync(path, marker(at));
    return ['-device', `loader,file=${path},addr=${at},force-raw=on`];
  });
}

const last = (end: number) => end - 4096;

/** QEMU's arguments, and physical addresses of RAM about the edges of its ranges. */
const LAYOUTS: Record<string, { args: string[]; at: number[]; holes?: number[] }> = {
  'pc, 256 MiB': { args: ['-M', 'pc', '-m', '256'], at: [0x1000, MIB, last(256 * MIB)], holes: [256 * MIB] },
  'pc, 3.5 GiB': {
    args: ['-M', 'pc', '-m', '3584'],
    at: [MIB, last(3 * GIB), 4 * GIB, last(4.5 * GIB)],
    holes: [3 * GIB, 4.5 * GIB],
  },
  'pc, 3.25 GiB': { args: ['-M', 'pc', '-m', '3328'], at: [MIB, last(3.25 * GIB)], holes: [4 * GIB] },
  'q35, 2.5 GiB': { args: ['-M', 'q35', '-m', '2560'], at: [MIB, last(2.5 * GIB)], holes: [4 * GIB] },
  'q35, 3 GiB': {
    args: ['-M', 'q35', '-m', '3072'],
    at: [MIB, last(2 * GIB), 4 * GIB, last(5 * GIB)],
    holes: [2 * GIB, 5 * GIB],
  },
  'q35, 5 GiB': {
    args: ['-M', 'q35', '-m', '5120'],
    at: [MIB, last(2 * GIB), 4 * GIB, 4 * GIB + 0x12345000, last(7 * GIB)],
    holes: [2 * GIB, 7 * GIB],
  },
  'pc, split at 1 GiB': {
    args: ['-M', 'pc,max-ram-below-4g=1G', '-m', '1536'],
    at: [MIB, last(GIB), 4 * GIB, last(4.5 * GIB)],
    holes: [GIB, 4.5 * GIB],
  },
  'microvm, 512 MiB': { args: ['-M', 'microvm', '-m', '512'], at: [MIB, last(512 * MIB)], holes: [512 * MIB] },
  'microvm, 4 GiB': {
    args: ['-M', 'microvm', '-m', '4096'],
    at: [MIB, last(3 * GIB), 4 * GIB, last(5 * GIB)],
    holes: [3 * GIB, 5 * GIB],
  },
  'two NUMA nodes, the second the larger': {
    args: [
      ...['-M', 'pc', '-m', '640', '-smp', '2'],
      ...['-object', 'memory-backend-ram,id=small,size=128M', '-object', 'memory-backend-ram,id=large,size=512M'],
      ...['-numa', 'node,memdev=small,cpus=0', '-numa', 'node,memdev=large,cpus=1'],
    ],
    at: [MIB, last(128 * MIB), 128 * MIB, last(640 * MIB)],
  },
  'three NUMA nodes across the hole': {
    args: [
      ...['-M', 'q35', '-m', '3584', '-smp', '3'],
      ...['-object', 'memory-backend-ram,id=a,size=1G', '-object', 'memory-backend-ram,id=b,size=2G'],
      ...['-object', 'memory-backend-ram,id=c,size=512M'],
      ...['-numa', 'node,memdev=a,cpus=0', '-numa', 'node,memdev=b,cpus=1', '-numa', 'node,memdev=c,cpus=2'],
    ],
    at: [MIB, last(GIB), GIB, last(2 * GIB), 4 * GIB, last(5 * GIB), 5 * GIB, last(5.5 * GIB)],
  },
  'two NUMA nodes of one size, named against their order': {
    args: [
      ...['-M', 'pc', '-m', '512', '-smp', '2'],
      ...['-object', 'memory-backend-ram,id=m1,size=256M', '-object', 'memory-backend-ram,id=m0,size=256M'],
      ...['-numa', 'node,memdev=m0,cpus=0', '-numa', 'node,memdev=m1,cpus=1'],
    ],
    at: [MIB, last(256 * MIB), 256 * MIB, last(512 * MIB)],
  },
  'a DIMM that was plugged in': {
    args: [
      ...['-M', 'pc', '-m', '512M,slots=4,maxmem=4G'],
      ...['-object', 'memory-backend-ram,id=dimm,size=256M', '-device', 'pc-dimm,memdev=dimm'],
    ],
    at: [MIB, last(512 * MIB), 4 * GIB, last(4.25 * GIB)],
    holes: [4.25 * GIB],
  },
  'a DIMM above memory beyond 4 GiB': {
    args: [
      ...['-M', 'q35', '-m', '3G,slots=4,maxmem=8G'],
      ...['-object', 'memory-backend-ram,id=dimm,size=256M', '-device', 'pc-dimm,memdev=dimm'],
    ],
    at: [MIB, last(2 * GIB), 4 * GIB, last(5 * GIB), 5 * GIB, last(5.25 * GIB)],
  },
  'two DIMMs of different sizes': {
    args: [
      ...['-M', 'pc', '-m', '512M,slots=4,maxmem=4G'],
      ...['-object', 'memory-backend-ram,id=one,size=256M', '-device', 'pc-dimm,id=d1,memdev=one'],
      ...['-object', 'memory-backend-ram,id=two,size=512M', '-device', 'pc-dimm,id=d2,memdev=two'],
    ],
    at: [MIB, last(512 * MIB), 4 * GIB, last(4.25 * GIB), 4.25 * GIB, last(4.75 * GIB)],
  },
};

describe.skipIf(!qemuAvailable())("a real QEMU's memory", () => {
  it.each(Object.entries(LAYOUTS))('lies where the stream says: %s', async (_name, { args, at, holes = [] }) => {
    const stream = join(dir, 'stream');
    await withMachine(['-bios', sleepingFirmware(), ...args, ...loaders(at)], (qemu) =>
      migrateTo(qemu, { to: { file: stream } }),
    );
    const image = await openInput(stream);
    // Which of several ways is right is for Windows' memory to say: here the markers do.
    const right = [image, ...image.alternatives].filter((each) => at.every((a) => isMarked(each, a)));
    expect(right.length, 'ways that fit').toBeGreaterThan(0);
    for (const address of holes) expect(right[0]!.has(address)).toBe(false);
    image.close();
    rmSync(stream);
  });
});

const isMarked = (image: MemoryImage, at: number) => image.page(pa(at))?.equals(marker(at)) ?? false;

describe.skipIf(!qemuAvailable())("a running guest's stream", () => {
  it.each([
    ['plain', [], {}],
    ['xbzrle', ['xbzrle'], { 'xbzrle-cache-size': 32 * MIB }],
    ['without a description of devices', [], {}],
  ] as const)('has each page as it was last: %s', async (name, capabilities, parameters) => {
    const source = fileURLToPath(new URL('../../guest/dirty.asm', import.meta.url));
    const [firmware, stream, elf] = ['dirty', 'live.stream', 'live.elf'].map((file) => join(dir, file)) as [
      string,
      string,
      string,
    ];
    execFileSync('nasm', ['-f', 'bin', '-o', firmware, source]);
    const machine = name.startsWith('without') ? 'pc,suppress-vmdesc=on' : 'pc';
    await withMachine(['-M', machine, '-m', '32', '-bios', firmware], async (qemu) => {
      await qemu.command('migrate-set-capabilities', {
        capabilities: capabilities.map((capability) => ({ capability, state: true })),
      });
      await qemu.command('migrate-set-parameters', { 'downtime-limit': 1, ...parameters });
      await migrateInRounds(qemu, stream);
      await qemu.command('dump-guest-memory', { paging: false, protocol: `file:${elf}` });
    });
    const [a, b] = [await openInput(stream), await openInput(elf)];
    expect(a.diagnostics.losses).toEqual([]);
    expect(samePages(a, b)).toBe((32 * MIB - 0x40000) / 4096);
    expect(a.cpus[0]!.registers!).toMatchObject({ rip: x64(b.cpus[0]!.registers!).rip });
    a.close();
    b.close();
  });
});

/** Less than any round takes, and more than lies between QEMU and the test. */
const STEP = 512 * 1024;

/**
 * A stream that has memory more than six times, and is of a guest that was stopped. However busy the machine is, QEMU
 * gets rid of no more than a step until the guest has changed all pages again, so that no round is the last.
 */
async function migrateInRounds(qemu: Qemu, stream: string): Promise<void> {
  const socket = join(dir, 'socket');
  const server = createServer().listen(socket);
  await once(server, 'listening');
  const connected = once(server, 'connection') as Promise<[Socket]>;
  let pass = await nextPass(qemu, '00000000');
  await qemu.command('migrate', { uri: `unix:${socket}` });
  const [incoming] = await connected;
  const file = openSync(stream, 'w');
  let [read, running] = [0, true];
  for await (const chunk of incoming as AsyncIterable<Buffer>) {
    writeSync(file, chunk);
    read += chunk.length;
    if (!running || read < STEP) continue;
    read = 0;
    const { ram, status } = (await qemu.command('query-migrate')) as Progress;
    if (status !== 'active') throw new Error(`the migration is ${status}`);
    running = (ram?.['dirty-sync-count'] ?? 0) <= 6;
    if (running) pass = await nextPass(qemu, pass);
    else await qemu.command('stop');
  }
  closeSync(file);
  server.close();
  await migrated(qemu);
}

/** What EDX, which test/guest/dirty.asm changes after each pass over its pages, is when it is no longer the same. */
async function nextPass(qemu: Qemu, before: string): Promise<string> {
  // One pass was under way, and may have been at its end.
  let [now, changes] = [before, 0];
  while (changes < 2) {
    const edx = /\bEDX=([0-9a-f]{8})/.exec(await qemu.human('info registers'))?.[1] ?? now;
    if (edx === now) await sleep(1);
    else [now, changes] = [edx, changes + 1];
  }
  return now;
}

interface Progress {
  status: string;
  ram?: { 'dirty-sync-count': number };
}
