import { execFileSync, spawn, spawnSync } from 'node:child_process';
import {
  closeSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gunzipSync, gzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { convert } from '../../src/index.ts';
import { locateWindows } from '../../src/locate/locator.ts';
import { openInput, type Spooling } from '../../src/readers/input.ts';
import { openImage } from '../../src/readers/registry.ts';
import { ContainerDamage } from '../../src/source/chunks.ts';
import { identifyContainer } from '../../src/source/containers.ts';
import { unzstd } from '../../src/source/zstd.ts';
import { elfNote, writeElf } from '../guest/elf.ts';
import { buildGuest, type Guest } from '../guest/guest.ts';
import { pagesOf } from '../support/dumps.ts';
import { seekableZstd } from '../support/frames.ts';
import { programsAvailable } from '../support/programs.ts';
import { noise } from '../support/properties.ts';
import { x64 } from '../support/registers.ts';

const BIN = fileURLToPath(new URL('../../bin/elf2dmp.js', import.meta.url));
let dir: string;
let guest: Guest;
let elf: Buffer;
/** What a conversion of the plain file gives. */
let plain: Buffer;

beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), 'elf2dmp-input-'));
  guest = buildGuest({ seed: 70 });
  elf = writeElf(guest);
  writeFileSync(at('vm.elf'), elf);
  await convert({ input: at('vm.elf'), output: at('plain.dmp') });
  plain = readFileSync(at('plain.dmp'));
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const at = (name: string) => join(dir, name);
const pack = (program: string, ...args: string[]): Buffer =>
  execFileSync(program, [...args, '-c', at('vm.elf')], { maxBuffer: 2 ** 28 });
const flipped = (bytes: Buffer, where: number): Buffer => {
  const copy = Buffer.from(bytes);
  copy[where]! ^= 0x55;
  return copy;
};
const MIB = 2 ** 20;
async function* once(bytes: Buffer): AsyncGenerator<Buffer> {
  yield bytes;
}
async function collect(pieces: AsyncIterable<Buffer>): Promise<Buffer> {
  const all: Buffer[] = [];
  for await (const piece of pieces) all.push(piece);
  return Buffer.concat(all);
}
const zstdOf = (bytes: Buffer, flags: readonly string[]): Buffer => {
  writeFileSync(at('to-pack'), bytes);
  return execFileSync('zstd', ['-q', '-c', '-1', ...flags, at('to-pack')], { maxBuffer: 2 ** 28 });
};
let made = 0;
/** Converts bytes under a name of their own; the dump, or the error. */
async function converted(bytes: Buffer) {
  const [input, output] = [at(`in${++made}`), at(`out${made}.dmp`)];
  writeFileSync(input, bytes);
  try {
    const report = await convert({ input, output });
    return {
      losses: report.diagnostics.filter((d) => d.severity === 'loss').map((d) => d.code),
      dump: readFileSync(output),
    };
  } catch (error) {
    return { error: error as { code: string; message: string } };
  }
}

describe('gzip', () => {
  it('gives the dump of the file in it, also of two members', async () => {
    const [whole, two] = [
      await converted(gzipSync(elf)),
      await converted(Buffer.concat([gzipSync(elf.subarray(0, 1e6)), gzipSync(elf.subarray(1e6))])),
    ];
    expect(whole.losses).toEqual([]);
    expect(whole.dump?.equals(plain)).toBe(true);
    expect(two.dump?.equals(plain)).toBe(true);
    // Nothing of the temporary file is left.
    expect(readdirSync(dir).filter((name) => /spool|part/.test(name))).toEqual([]);
  });

  it('keeps what came out of a cut one, and says so', async () => {
    const packed = gzipSync(elf);
    const { losses, dump } = await converted(packed.subarray(0, packed.length - 3000));
    expect(losses).toContain('container-truncated');
    expect(losses).toContain('input-truncated');
    const pages = pagesOf(dump!);
    expect(pages.size).toBeGreaterThan(0);
    for (const [address, page] of pages) expect(guest.memory.read(address, 0x1000).length).toBe(page.length);
  });

  it('tells a wrong checksum', async () => {
    const packed = gzipSync(elf);
    expect((await converted(flipped(packed, packed.length - 7))).losses).toContain('container-damaged');
  });

  it('refuses one that gives nothing', async () => {
    expect((await converted(gzipSync(elf).subarray(0, 12))).error).toMatchObject({ code: 'container-truncated' });
    expect((await converted(Buffer.from('1f8b08ffffffffff', 'hex'))).error?.code).toMatch(/^container-/);
  });

  it('does not unpack what is no dump', async () => {
    const disk = Buffer.alloc(1 << 20);
    disk.write('QFI\xfb', 0, 'latin1');
    expect((await converted(gzipSync(disk))).error).toMatchObject({ code: 'qcow2' });
    expect((await converted(gzipSync(gzipSync(elf)))).error).toMatchObject({ code: 'compressed-gzip' });
  });
});

describe.skipIf(!programsAvailable({ gzip: 'gzip', pigz: 'pigz', zstd: 'zstd' }))('files in frames', () => {
  it('are read by other programs when they are ours', async () => {
    await convert({ input: at('vm.elf'), output: at('ours.dmp.gz'), compress: 'gzip' });
    for (const program of ['gzip', 'pigz']) {
      execFileSync(program, ['-t', at('ours.dmp.gz')]);
      const unpacked = execFileSync(program, ['-dc', at('ours.dmp.gz')], { maxBuffer: 2 ** 28 });
      expect(unpacked.equals(plain)).toBe(true);
    }
  });

  it('are read at random when they are zstd’s own', async () => {
    const packed = await seekableZstd(elf, MIB, undefined, (contents) => zstdOf(contents, ['--check']));
    writeFileSync(at('frames.zst'), packed);
    execFileSync('zstd', ['-q', '-t', at('frames.zst')]);
    const spools: unknown[] = [];
    await convert({ input: at('frames.zst'), output: at('frames.dmp'), onSpool: (s) => spools.push(s) });
    expect(readFileSync(at('frames.dmp')).equals(plain)).toBe(true);
    expect(spools).toEqual([]);
    // Without a seek table it is a stream.
    const frames = packed.subarray(0, packed.length - 17 - 8 * Math.ceil(elf.length / MIB));
    expect((await converted(frames)).dump?.equals(plain)).toBe(true);
  });
});

const COMPRESSORS = { zstd: 'zstd', xz: 'xz-utils', bzip2: 'bzip2', lzop: 'lzop' };

describe.skipIf(!programsAvailable(COMPRESSORS))('zstd, xz, bzip2 and lzop', () => {
  it.each([
    ['zstd', []],
    ['zstd', ['-19', '--long=27']],
    ['zstd', ['--no-check']],
    ['zstd', ['-T2', '-B100KB']],
    ['xz', []],
    ['xz', ['-T2', '--block-size=1MiB']],
    ['xz', ['--check=none']],
    ['bzip2', ['-1']],
    ['bzip2', ['-9']],
    ['lzop', []],
    ['lzop', ['-9']],
    ['lzop', ['-F']],
    ['lzop', ['--crc32']],
  ])('%s %j', async (program, args) => {
    const { losses, dump } = await converted(pack(program, ...args));
    expect(losses).toEqual([]);
    expect(dump?.equals(plain)).toBe(true);
  });

  it('reads frames, skippable ones between them, and streams behind each other', async () => {
    const halves = [elf.subarray(0, 3e6), elf.subarray(3e6)];
    const packed = (program: string) =>
      halves.map((half) => spawnSync(program, ['-c'], { input: half, maxBuffer: 2 ** 28 }).stdout);
    const skippable = Buffer.from('502a4d180400000061626364', 'hex');
    const zstd = packed('zstd');
    expect((await converted(Buffer.concat([zstd[0]!, skippable, zstd[1]!]))).dump?.equals(plain)).toBe(true);
    for (const program of ['xz', 'bzip2', 'lzop']) {
      expect((await converted(Buffer.concat(packed(program)))).dump?.equals(plain), program).toBe(true);
    }
  });

  it('keeps what came out of a cut one, and says so', async () => {
    for (const program of Object.keys(COMPRESSORS)) {
      const packed = pack(program);
      const { losses } = await converted(packed.subarray(0, packed.length - 2));
      expect(losses).toContain('container-truncated');
    }
  });

  it('tells every flipped byte, or its result is right', async () => {
    for (const program of Object.keys(COMPRESSORS)) {
      const packed = pack(program);
      for (let i = 1; i < 8; i++) {
        const where = Math.floor((packed.length * i) / 8);
        const { losses = [], error, dump } = await converted(flipped(packed, where));
        const told = error !== undefined || losses.some((code) => code.startsWith('container-'));
        expect(told || dump?.equals(plain), `${program}, byte ${where}`).toBe(true);
      }
    }
  });

  it.each(['bzip2', 'lzop'])(
    '%s: bytes of every kind come out as they went in, in whatever pieces they come',
    async (program) => {
      const kinds = [
        Buffer.alloc(0),
        Buffer.from('a'),
        Buffer.alloc(3e6),
        noise(1_300_000),
        // Runs of each length about those that have codes of their own.
        Buffer.concat(Array.from({ length: 600 }, (_, i) => Buffer.alloc(i, i & 0xff))),
        Buffer.concat(Array.from({ length: 300 }, () => Buffer.from([7, 7, 7, 7, 9]))),
        Buffer.from(Array.from({ length: 400_000 }, (_, i) => (i * i) >> 7)),
      ];
      for (const bytes of kinds) {
        const packed = spawnSync(program, ['-c'], { input: bytes, maxBuffer: 2 ** 28 }).stdout;
        const pieces = async function* () {
          for (let from = 0, size = 1; from < packed.length; from += size, size = (size * 7) % 50_021) {
            yield packed.subarray(from, from + size);
          }
        };
        const unpacked = await collect(identifyContainer(packed)!.unpack(pieces()));
        expect(unpacked.equals(bytes), `${bytes.length} bytes`).toBe(true);
      }
    },
  );

  it.each(['bzip2', 'lzop'])('%s: damage is told, whatever it is', async (program) => {
    const bytes = Buffer.concat([noise(2000), Buffer.alloc(5000, 3), elf.subarray(0, 40_000)]);
    const packed = spawnSync(program, ['-c'], { input: bytes, maxBuffer: 2 ** 28 }).stdout;
    for (let at = 9; at < packed.length; at += 1 + Math.floor(packed.length / 300)) {
      for (const damaged of [flipped(packed, at), packed.subarray(0, at)]) {
        try {
          expect((await collect(identifyContainer(packed)!.unpack(once(damaged)))).equals(bytes)).toBe(true);
        } catch (error) {
          expect(error).toBeInstanceOf(ContainerDamage);
        }
      }
    }
  });

  it('says what it can not decode', async () => {
    const { error } = await converted(pack('xz', '--check=sha256'));
    expect(error).toMatchObject({ code: 'container-damaged' });
    expect(error?.message).toContain('xz -dc');
  });
});

describe('streams', () => {
  const run = (args: string[], input: Buffer | undefined) =>
    spawnSync(process.execPath, [BIN, ...args], { encoding: 'utf8', ...(input ? { input } : {}) });

  it('reads standard input, and leaves nothing', () => {
    const { status, stderr } = run(['-', at('piped.dmp')], elf);
    expect([status, stderr]).toEqual([0, '']);
    expect(readFileSync(at('piped.dmp')).equals(plain)).toBe(true);
    expect(readdirSync(dir).filter((name) => /spool|part/.test(name))).toEqual([]);
  });

  it('says what it needs first, where that takes a temporary file', () => {
    const { status, stderr } = run(['--compress=gzip', '-', at('piped.dmp.gz')], elf);
    expect(status).toBe(0);
    expect(stderr).toMatch(
      /^standard input: written to a temporary file in .* first: 15\.\d MiB; the dump then takes /,
    );
    expect(gunzipSync(readFileSync(at('piped.dmp.gz'))).equals(plain)).toBe(true);
    expect(readdirSync(dir).filter((name) => /spool|part/.test(name))).toEqual([]);
  });

  it('reads a file on standard input as it lies there', () => {
    const fd = openSync(at('vm.elf'), 'r');
    const { status, stderr } = spawnSync(process.execPath, [BIN, '-', at('redirected.dmp')], {
      stdio: [fd, 'pipe', 'pipe'],
      encoding: 'utf8',
    });
    closeSync(fd);
    expect([status, stderr]).toEqual([0, '']);
    expect(readFileSync(at('redirected.dmp')).equals(plain)).toBe(true);
  });

  it('reads what is left of a file on standard input that something has read from', () => {
    writeFileSync(at('late.elf'), Buffer.concat([Buffer.alloc(4096, 0x55), elf]));
    const script = `{ dd bs=4096 count=1 of=/dev/null status=none; exec "$0" "$1" -q - "$2"; } < "$3"`;
    execFileSync('sh', ['-c', script, process.execPath, BIN, at('late.dmp'), at('late.elf')]);
    expect(readFileSync(at('late.dmp')).equals(plain)).toBe(true);
  });

  it('keeps an input that is its own output', () => {
    writeFileSync(at('own.elf'), elf);
    const fd = openSync(at('own.elf'), 'r');
    const { status, stderr } = spawnSync(process.execPath, [BIN, '--force', '-', at('own.elf')], {
      stdio: [fd, 'pipe', 'pipe'],
      encoding: 'utf8',
    });
    closeSync(fd);
    expect(status).toBe(2);
    expect(stderr).toContain('the output is the input');
    expect(readFileSync(at('own.elf')).equals(elf)).toBe(true);
  });

  it('reads a named pipe, and names that begin with a dash', async () => {
    execFileSync('mkfifo', [at('-pipe')]);
    const child = spawn(process.execPath, [BIN, '--quiet', '--', '-pipe', '-out.dmp'], { cwd: dir });
    const status = new Promise((resolve) => child.on('close', resolve));
    // A program writes: opening a pipe that nobody reads would stop the tests for good.
    const writer = spawn('sh', ['-c', 'exec cat vm.elf > ./-pipe'], { cwd: dir });
    expect(await status).toBe(0);
    writer.kill();
    expect(readFileSync(at('-out.dmp')).equals(plain)).toBe(true);
  });

  it('says what is wrong with an empty one, one that is no dump, and an output to nowhere', () => {
    expect(run(['-', at('x.dmp')], Buffer.alloc(0))).toMatchObject({ status: 5 });
    expect(run(['-', at('x.dmp')], Buffer.from('hello')).stderr).toContain('not a guest memory dump');
    // Standard output takes one thing.
    expect(run([at('vm.elf'), '-', '--json'], undefined)).toMatchObject({ status: 2 });
    expect(run([at('vm.elf'), '-', '--report', '-'], undefined)).toMatchObject({ status: 2 });
    const spooled = ['--spool', at('nowhere'), '--compress=gzip', '-', at('x.dmp')];
    expect(run(spooled, elf)).toMatchObject({ status: 6 });
  });

  it('ends at a signal while it reads, and leaves nothing', async () => {
    for (const args of [[], ['--compress=gzip']]) {
      const before = readdirSync(dir).sort();
      const child = spawn(process.execPath, [BIN, ...args, '-', at('never.dmp')], {
        stdio: ['pipe', 'ignore', 'pipe'],
      });
      child.stdin.on('error', () => undefined);
      child.stdin.write(elf.subarray(0, 3e6));
      // Whether something is being written, under whatever name.
      const fds = `/proc/${child.pid}/fd`;
      const isTemporary = (fd: string) => /\.part$|\(deleted\)$/.test(readlinkSync(join(fds, fd)));
      await vi.waitFor(() => expect(readdirSync(fds).some(isTemporary)).toBe(true), { timeout: 60_000 });
      child.kill('SIGTERM');
      child.stdin.write(elf.subarray(3e6, 5e6));
      const status = await new Promise((resolve) => child.on('close', resolve));
      expect(status).toBe(143);
      expect(readdirSync(dir).sort()).toEqual(before);
    }
  });

  it('bounds the memory of zstd, and decodes far references', async () => {
    // Little that takes a window of 1 GiB: magic, no flags, exponent 20, 129 MiB of zeros in blocks of one byte, an empty last block.
    const zeros = Buffer.from('02001000'.repeat(8 * 129), 'hex');
    const huge = Buffer.concat([Buffer.from('28b52ffd00a0', 'hex'), zeros, Buffer.from('010000', 'hex')]);
    await expect(collect(unzstd(once(huge)))).rejects.toMatchObject({
      code: 'zstd-window',
      kind: 'unsupported',
      message: expect.stringContaining('128 MiB are allowed'),
    });
    writeFileSync(at('huge.zst'), huge);
    await expect(openInput(at('huge.zst'))).rejects.toMatchObject({ code: 'zstd-window' });
    // 2^41: sizes beyond 32 bits are sizes too.
    const larger = Buffer.from('28b52ffd00f8010000', 'hex');
    await expect(collect(unzstd(once(larger), 2 ** 31))).rejects.toMatchObject({ code: 'zstd-window' });
    if (!programsAvailable({ zstd: 'zstd' })) return;
    // Repeated after 100 MiB: offsets of 27 bits at every position of the bit stream.
    const piece = noise(MIB);
    const text = Buffer.alloc(102 * MIB);
    for (let i = 0; i < 64; i++) {
      piece.copy(text, i * 16_411, i * 16_384, (i + 1) * 16_384);
      piece.copy(text, 101 * MIB + i * 16_384 - i * 7, i * 16_384, (i + 1) * 16_384 - 7);
    }
    for (const [flags, limit] of [
      [['--long=27', '--no-content-size'], 128 * MIB],
      [['--long=27'], 128 * MIB],
    ] as const) {
      const packed = zstdOf(text, [...flags]);
      expect((await collect(unzstd(once(packed), limit))).equals(text)).toBe(true);
    }
    // One piece: its contents are the window.
    const grown = Buffer.concat([text, Buffer.alloc(40 * MIB)]);
    const packed = zstdOf(grown, ['--long=30']);
    await expect(collect(unzstd(once(packed)))).rejects.toMatchObject({ code: 'zstd-window' });
    expect((await collect(unzstd(once(packed), 256 * MIB))).equals(grown)).toBe(true);
    const damaged = Buffer.from(packed);
    damaged[damaged.length >> 1]! ^= 0xff;
    await expect(collect(unzstd(once(damaged), 256 * MIB))).rejects.toBeInstanceOf(ContainerDamage);
  });

  it.skipIf(!programsAvailable({ zstd: 'zstd' }))('proposes a window for zstd that is then enough', async () => {
    const text = Buffer.concat([noise(MIB), Buffer.alloc(130 * MIB), noise(1000, 1)]);
    // Made from a stream: without the contents' size.
    for (const long of [28, 30, 31]) {
      const packed = execFileSync('zstd', ['-q', '-c', '-1', `--long=${long}`], { input: text, maxBuffer: 2 ** 28 });
      const proposed = await collect(unzstd(once(packed))).then(
        () => undefined,
        ({ details }) => /--zstd-window (\d+)/.exec(details.hint)?.[1],
      );
      expect(proposed).toBeDefined();
      const limit = Number(proposed) * MIB;
      expect((await collect(unzstd(once(packed), limit))).equals(text)).toBe(true);
      await expect(collect(unzstd(once(packed), limit - MIB))).rejects.toMatchObject({ code: 'zstd-window' });
      const damaged = Buffer.from(packed);
      damaged[damaged.length >> 1]! ^= 0xff;
      await expect(collect(unzstd(once(damaged), limit))).rejects.toBeInstanceOf(ContainerDamage);
      await expect(collect(unzstd(once(packed.subarray(0, -1)), limit))).rejects.toBeInstanceOf(ContainerDamage);
    }
    // No other value can help here.
    const larger = Buffer.from('28b52ffd00f8010000', 'hex');
    await expect(collect(unzstd(once(larger)))).rejects.toMatchObject({
      code: 'zstd-window',
      details: { hint: expect.not.stringContaining('--zstd-window') },
    });
  });

  it('keeps what comes before garbage behind a gzip file', async () => {
    const text = Buffer.concat([Buffer.from('sound '.repeat(1000)), Buffer.alloc(3 * MIB)]);
    const packed = gzipSync(text);
    const after = ['x', 'garbage behind it', '\x1f\x8b\x08garbage', '\x1f\x8b\x08\0\0\0\0\0\0\x03garbage'];
    for (const garbage of after) {
      const got: Buffer[] = [];
      const unpacked = identifyContainer(packed)!.unpack(once(Buffer.concat([packed, Buffer.from(garbage, 'latin1')])));
      await expect(
        (async () => {
          for await (const piece of unpacked) got.push(piece);
        })(),
      ).rejects.toBeInstanceOf(ContainerDamage);
      expect(Buffer.concat(got).subarray(0, text.length).equals(text), garbage).toBe(true);
    }
    // Zeros are padding, and a second member is part of the file.
    const two = Buffer.concat([packed, gzipSync('more'), Buffer.alloc(512)]);
    expect(
      (await collect(identifyContainer(two)!.unpack(once(two)))).equals(Buffer.concat([text, Buffer.from('more')])),
    ).toBe(true);
  });

  it('estimates from the first bytes', async () => {
    const seen: Spooling[] = [];
    writeFileSync(at('est.gz'), gzipSync(elf));
    const image = await openInput(at('est.gz'), { onSpool: (s) => seen.push(s) });
    image.close();
    // The section data lies behind the memory.
    expect(seen[0]).toMatchObject({ container: 'gzip', estimate: { file: elf.length - 11, memory: image.size } });
  });
});

describe('raw memory', () => {
  /** As QEMU's memory-backend-file has it: no hole in the file. */
  function writeBackend(of: Guest, path: string): void {
    const fd = openSync(path, 'w');
    ftruncateSync(fd, of.ramBytes);
    for (const [address, page] of of.memory.pages) {
      writeSync(fd, page, 0, page.length, address < 2 ** 31 ? address : address - 2 ** 31);
    }
    closeSync(fd);
  }

  it('is taken for what it is, without registers', async () => {
    writeBackend(guest, at('backend'));
    const report = await convert({ input: at('backend'), output: at('backend.dmp') });
    expect(report.input).toMatchObject({ format: 'raw', cpus: [] });
    expect(report.windows.processors.map((p) => p.registers)).toEqual(['unknown', 'unknown']);
    expect(report.diagnostics.map((d) => d.code)).toContain('taken-as-raw');
    expect(report.windows.kernel.base).toBe(`0x${guest.truth.kernelBase.toString(16)}`);
  });

  it('has the hole below 4 GiB where Windows says so', async () => {
    const high = buildGuest({ seed: 71, highMiB: 64 });
    writeBackend(high, at('high'));
    const image = openImage(at('high'));
    const windows = await locateWindows(image);
    expect(windows.image.runs.map(({ start, size }) => [start, size])).toEqual([
      [0, 2 ** 31],
      [2 ** 32, 64 * 2 ** 20],
    ]);
    expect(windows.kernel.base).toBe(high.truth.kernelBase);
    expect(windows.modules.map((m) => m.name)).toEqual(high.truth.modules.map((m) => m.name));
    expect(windows.evidence.filter((a) => a.step === 'memory layout' && a.accepted)).toHaveLength(1);
    image.close();
    const given = openImage(at('high'), {
      runs: [
        { start: 0, size: 2 ** 31 },
        { start: 2 ** 32, size: undefined },
      ],
    });
    expect(given.alternatives.map(({ runs }) => runs.length)).toEqual(given.alternatives.map(() => 2));
    expect((await locateWindows(given)).kernel.base).toBe(high.truth.kernelBase);
    given.close();
  });

  it.each([
    [['--runs', '0+1M'], /disjoint ranges of 0x1000000 bytes/],
    [['--runs', '0+8M,4M+8M'], /two ranges that hold 0x400000/],
    [['--runs', '0+17M'], /do not fit the file/],
    [['--runs', '0+x'], /expected a list of START\+SIZE/],
    [['--runs', '0,1M+1M'], /expected a list of START\+SIZE/],
  ])('refuses ranges that do not fit: %j', (args, message) => {
    const { status, stderr } = spawnSync(process.execPath, [BIN, ...args, at('backend'), at('y.dmp')], {
      encoding: 'utf8',
    });
    expect(status).toBe(2);
    expect(stderr).toMatch(message);
  });

  it('says what a file is not when there is no Windows in it', () => {
    writeFileSync(at('noise'), Buffer.alloc(1 << 20, 0x41));
    const { status, stderr } = spawnSync(process.execPath, [BIN, at('noise'), at('y.dmp')], { encoding: 'utf8' });
    expect(status).toBe(4);
    expect(stderr).toContain('no header that elf2dmp knows');
  });
});

describe('other writers', () => {
  const open = (bytes: Buffer) => {
    writeFileSync(at('other'), bytes);
    return openImage(at('other'));
  };

  it('knows general registers from NT_PRSTATUS, and gives a lone CPU in user mode to the lone processor', async () => {
    const of = buildGuest({ seed: 72, processors: 1, user: [0] });
    const image = open(writeElf(of, { prstatusOnly: null }));
    const windows = await locateWindows(image);
    expect(x64(windows.processors[0]!.cpu?.registers)?.rip).toBe(of.cpus[0]!.regs.rip);
    expect(x64(windows.processors[0]!.cpu?.registers)?.control).toBeUndefined();
    image.close();
  });

  it('has the general registers of a CPU whose own note is too short', () => {
    const image = open(writeElf(guest, { prstatusOnly: [1] }));
    expect(image.cpus.map((c) => x64(c.registers)?.control !== undefined)).toEqual([true, false]);
    expect(x64(image.cpus[1]!.registers)?.rsp).toBe(guest.cpus[1]!.regs.rsp);
    expect(image.diagnostics.losses.map((d) => d.code)).toEqual(['cpu-note-short']);
    image.close();
  });

  it("reads VirtualBox' CPU notes", async () => {
    const image = open(writeElf(guest, { withoutNotes: true, extraNotes: guest.cpus.map(virtualBoxNote) }));
    const windows = await locateWindows(image);
    expect(image.diagnostics.losses).toEqual([]);
    guest.cpus.forEach((cpu, i) => {
      const registers = x64(image.cpus[i]!.registers);
      expect(registers).toMatchObject({ ...cpu.regs, kernelGsBase: cpu.kernelGsBase });
      expect(registers?.control).toMatchObject({ cr0: cpu.cr0, cr3: cpu.cr3, cr4: cpu.cr4 });
      expect(registers?.tables?.gdt).toMatchObject(cpu.gdt);
      expect(registers?.cs).toMatchObject({ selector: cpu.cs, flags: 0x209b00 });
    });
    expect(windows.processors.every((p) => p.cpu)).toBe(true);
    image.close();
  });

  it('reads Xen core files, by their sections', async () => {
    const image = open(xenCore(guest));
    expect(image.format).toBe('xen-core');
    const windows = await locateWindows(image);
    expect(windows.root).toBe(guest.truth.root);
    expect(windows.processors.map((p) => x64(p.cpu?.registers)?.rip)).toEqual(
      guest.truth.processors.map((p) => guest.cpus[p.cpu]!.regs.rip),
    );
    for (const [address, page] of guest.memory.pages) expect(image.page(address as never)?.equals(page)).toBe(true);
    image.close();
  });

  it('says what a cut Xen core file lacks, and what one of another kind is', () => {
    const whole = xenCore(guest);
    const cut = open(whole.subarray(0, whole.length - 0x2800));
    expect(cut.diagnostics.losses.map((d) => d.code)).toEqual(['input-truncated']);
    cut.close();
    const paravirtual = Buffer.from(whole);
    paravirtual.write('.xen_p2m', paravirtual.indexOf('.xen_pfn'), 'latin1');
    expect(() => open(paravirtual)).toThrow(/paravirtualised/);
  });
});

describe('neighbours', () => {
  it.each([
    ['KDMV', 0, 'disk-image'],
    ['vhdxfile', 0, 'disk-image'],
    ['EFI PART', 0x200, 'disk-image'],
    ['\x55\xaa', 0x1fe, 'disk-image'],
    ['\xd2\xbe\xd2\xbe', 0, 'vmware-state'],
    ['\x14\x20\x28\x01', 0, 'hyper-v-state'],
    ['EMiL', 0, 'lime'],
    ['HIBR', 0, 'hibernation-file'],
    ['LinuxGuestRecord', 0, 'xen-save'],
    ['\x04\x22\x4d\x18', 0, 'compressed-lz4'],
    ['7z\xbc\xaf\x27\x1c', 0, 'compressed-7z'],
    ['ustar', 0x101, 'tar'],
    ['VMA\0\0\0\0\x01', 0, 'proxmox-backup'],
    ['\x7fVirtualBox SavedState V2.0\n', 0, 'virtualbox-state'],
    ['EVF\x09\r\n\xff\0', 0, 'ewf'],
    ['AVML\x02', 0, 'avml'],
    ['HPAK', 0, 'hpak'],
    ['\xcf\xfa\xed\xfe', 0, 'mach-o'],
    ['PK\x03\x04', 0, 'compressed-zip'],
    ['PK\x03\x04________________________________aff4://', 0, 'aff4'],
  ])('names %j at %i: %s', async (magic, offset, code) => {
    const bytes = Buffer.alloc(2 << 20);
    bytes.write(magic, offset, 'latin1');
    const { error } = await converted(bytes);
    expect(error).toMatchObject({ code, kind: 'unsupported' });
  });

  it.each([
    ['a snapshot with its memory inside', 40n << 20n, 'vmware-state-with-memory'],
    ['a snapshot with its memory beside it', 0x200n, 'vmware-state'],
  ])('tells %s', async (_, size, code) => {
    const bytes = Buffer.alloc(2 << 20);
    bytes.writeUInt32LE(0xbed2bed2, 0);
    bytes.writeUInt32LE(2, 8);
    bytes.write('cpu', 12, 'latin1');
    bytes.write('memory', 92, 'latin1');
    bytes.writeBigUInt64LE(size, 92 + 72);
    expect((await converted(bytes)).error).toMatchObject({ code, kind: 'unsupported' });
  });

  it('does not take an unknown file of odd size for a dump that was cut off', async () => {
    const { error } = await converted(Buffer.alloc((2 << 20) + 24, 0x37));
    expect(error).toMatchObject({ code: 'windows-not-found', kind: 'unsupported' });
  });
});

function writeWords(target: Buffer, offset: number, words: readonly bigint[]): void {
  words.forEach((word, i) => {
    target.writeBigUInt64LE(word, offset + 8 * i);
  });
}

/** DBGFCORECPU by literal offsets. */
function virtualBoxNote(cpu: Guest['cpus'][number]): Buffer {
  const desc = Buffer.alloc(0x1000);
  const names = [
    'rax',
    'rbx',
    'rcx',
    'rdx',
    'rsi',
    'rdi',
    'r8',
    'r9',
    'r10',
    'r11',
    'r12',
    'r13',
    'r14',
    'r15',
  ] as const;
  writeWords(
    desc,
    0,
    names.map((name) => cpu.regs[name]),
  );
  writeWords(desc, 0x70, [cpu.regs.rip, cpu.regs.rsp, cpu.regs.rbp, cpu.regs.rflags | 2n]);
  const segment = (offset: number, selector: number, base: bigint, attributes: number) => {
    desc.writeBigUInt64LE(base, offset);
    desc.writeUInt32LE(attributes, offset + 0xc);
    desc.writeUInt16LE(selector, offset + 0x10);
  };
  segment(0x90, cpu.cs, 0n, 0xa09b & 0x20ff);
  segment(0xd8, cpu.fs, cpu.fsBase, 0xf3);
  segment(0xf0, cpu.gs, cpu.gsBase, 0xf3);
  segment(0x108, cpu.ss, 0n, 0xf3);
  writeWords(desc, 0x120, [cpu.cr0, 0n, cpu.cr3, cpu.cr4]);
  desc.writeBigUInt64LE(0x400n, 0x178);
  desc.writeBigUInt64LE(cpu.gdt.base, 0x180);
  desc.writeUInt32LE(cpu.gdt.limit, 0x188);
  desc.writeBigUInt64LE(cpu.idt.base, 0x190);
  desc.writeUInt32LE(cpu.idt.limit, 0x198);
  segment(0x1b8, cpu.tr, cpu.trBase, 0x8b);
  desc.writeBigUInt64LE(cpu.kernelGsBase, 0x218);
  return elfNote('VBCPU', 0xb01, desc);
}

/** A core file as `xl dump-core` makes it, by literal offsets. */
function xenCore(of: Guest): Buffer {
  const addresses = [...of.memory.pages.keys()].sort((a, b) => a - b);
  const pfns = Buffer.alloc(8 * addresses.length);
  writeWords(
    pfns,
    0,
    addresses.map((address) => BigInt(address / 0x1000)),
  );
  const vcpus = of.cpus.map((cpu) => {
    const context = Buffer.alloc(0x1430);
    const r = cpu.regs;
    const order = [
      r.r15,
      r.r14,
      r.r13,
      r.r12,
      r.rbp,
      r.rbx,
      r.r11,
      r.r10,
      r.r9,
      r.r8,
      r.rax,
      r.rcx,
      r.rdx,
      r.rsi,
      r.rdi,
    ];
    const words = [
      ...order,
      0n,
      r.rip,
      BigInt(cpu.cs),
      r.rflags,
      r.rsp,
      ...[cpu.ss, cpu.es, cpu.ds, cpu.fs, cpu.gs].map(BigInt),
    ];
    writeWords(context, 0x208, words);
    writeWords(context, 0x1378, [cpu.cr0, 0n, 0n, cpu.cr3, cpu.cr4]);
    const kernel = (cpu.cs & 3) === 0;
    writeWords(context, 0x1418, [
      cpu.fsBase,
      kernel ? cpu.gsBase : cpu.kernelGsBase,
      kernel ? cpu.kernelGsBase : cpu.gsBase,
    ]);
    return context;
  });
  const names = '\0.shstrtab\0.note.Xen\0.xen_prstatus\0.xen_pfn\0.xen_pages\0';
  const parts: [string, Buffer][] = [
    ['.shstrtab', Buffer.from(names, 'latin1')],
    ['.note.Xen', Buffer.alloc(64)],
    ['.xen_prstatus', Buffer.concat(vcpus)],
    ['.xen_pfn', pfns],
    ['.xen_pages', Buffer.concat(addresses.map((a) => of.memory.pages.get(a)!))],
  ];
  const header = Buffer.alloc(64 + 64 * (parts.length + 1));
  Buffer.from('7f454c46020101', 'hex').copy(header);
  header.writeUInt16LE(4, 0x10);
  header.writeUInt16LE(62, 0x12);
  header.writeBigUInt64LE(64n, 0x28);
  header.writeUInt16LE(64, 0x3a);
  header.writeUInt16LE(parts.length + 1, 0x3c);
  header.writeUInt16LE(1, 0x3e);
  let offset = header.length;
  parts.forEach(([name, bytes], i) => {
    const s = 64 + 64 * (i + 1);
    header.writeUInt32LE(names.indexOf(name), s);
    header.writeBigUInt64LE(BigInt(offset), s + 0x18);
    header.writeBigUInt64LE(BigInt(bytes.length), s + 0x20);
    offset += bytes.length;
  });
  return Buffer.concat([header, ...parts.map(([, bytes]) => bytes)]);
}
