import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Elf2dmpError } from '../../../src/core/errors.ts';
import { pa } from '../../../src/core/units.ts';
import { locateWindows } from '../../../src/locate/locator.ts';
import type { MemoryImage } from '../../../src/memory/image.ts';
import { convert } from '../../../src/operations/convert.ts';
import { openInput } from '../../../src/readers/input.ts';
import { openSource } from '../../../src/readers/registry.ts';
import { BufferSource } from '../../../src/source/buffer.ts';
import { askDebugger, complaints, debuggerAvailable, registers, text } from '../../debugger/debugger.ts';
import { buildGuest, type Guest } from '../../guest/guest.ts';
import { type StreamOptions, writeStream } from '../../guest/qevm.ts';
import { pagesOf } from '../../support/dumps.ts';
import { dumpWithQemu, qemuAvailable } from '../../support/qemu.ts';

let dir: string;
let guest: Guest;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'elf2dmp-qevm-'));
  guest = buildGuest({ processors: 3, user: [1], seed: 7 });
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const open = (bytes: Buffer) => openSource(new BufferSource(bytes, 'vm.stream'));

/** Each page of the guest, and nothing but zeros besides. */
function expectGuest(image: MemoryImage, of: Guest): void {
  for (const [at, page] of of.memory.pages) {
    const read = image.page(pa(at));
    if (!read) throw new Error(`page 0x${at.toString(16)} is missing`);
    if (!read.equals(page)) throw new Error(`page 0x${at.toString(16)} differs`);
  }
  const zero = Buffer.alloc(4096);
  for (const { start, size } of image.runs) {
    for (let at: number = start; at < start + size; at += 4096) {
      if (!of.memory.pages.has(at) && !image.page(pa(at))?.equals(zero)) throw new Error(`0x${at.toString(16)}`);
    }
  }
}

/** Without the keys that only some inputs have. */
const definite = (registers: object) =>
  Object.fromEntries(Object.entries(registers).filter(([, value]) => value !== undefined));

const codes = (image: MemoryImage) => image.diagnostics.list.map(({ code }) => code);

describe('migration streams', () => {
  it.each<[string, StreamOptions]>([
    ['plain pages', {}],
    ['compressed pages', { pages: 'compressed' }],
    ['differences to pages', { pages: 'xbzrle' }],
    ['two rounds, of which the last counts', { rounds: 2 }],
    ['no description of the devices', { withoutDescription: true }],
    ['no footers and no configuration', { old: true }],
    ['pages at fixed places, with stale bytes where they are zero', { mappedRam: true }],
    ['bytes behind it', { trailing: Buffer.alloc(100_000, 0x33) }],
    ['a device in front of memory', { earlyDevice: true }],
    ['the machine type q35', { machineType: 'pc-q35-10.0' }],
  ])('give memory and registers: %s', async (_name, options) => {
    const image = open(writeStream(guest, options));
    expect(image.format).toBe('qevm');
    expect(codes(image)).toEqual([]);
    expect(image.runs.map(({ start, size }) => [start, size])).toEqual([
      [0, 0xa0000],
      [0xc0000, guest.ramBytes - 0xc0000],
    ]);
    expectGuest(image, guest);
    expect(image.cpus.length).toBe(guest.cpus.length);
    guest.cpus.forEach((cpu, i) => {
      const registers = image.cpus[i]!.registers!;
      const { cr0, cr3, cr4 } = cpu;
      expect(registers).toMatchObject(cpu.regs);
      expect(registers).toMatchObject({ control: { cr0, cr3, cr4 }, kernelGsBase: cpu.kernelGsBase });
      expect(registers.cs.selector).toBe(cpu.cs);
      expect(registers.gs.base).toBe(cpu.gsBase);
      expect(registers.tables).toMatchObject({ gdt: cpu.gdt, idt: cpu.idt });
    });
    const windows = await locateWindows(image);
    expect(windows.kernel.base).toBe(guest.truth.kernelBase);
    expect(windows.processors.map((p) => p.cpu?.index)).toEqual(guest.truth.processors.map((p) => p.cpu));
    image.close();
  });

  it('have RAM above 4 GiB where CMOS says', () => {
    const low = guest.ramBytes - 0x20_0000;
    const image = open(writeStream(guest, { low }));
    expect(image.runs.at(-1)).toMatchObject({ start: 2 ** 32, size: 0x20_0000 });
    // A guest's page there is that of the block behind the low memory.
    expect(image.has(low)).toBe(false);
    image.close();
  });

  it('say so where the place of memory is by the machine type', () => {
    const image = open(writeStream(guest, { withoutCmos: true }));
    expect(codes(image)).toContain('migration-layout');
    expectGuest(image, guest);
    image.close();
  });

  it('give what is there of one that is cut anywhere, or a typed error', () => {
    const whole = writeStream(guest, { pages: 'plain' });
    let images = 0;
    fc.assert(
      fc.property(fc.integer({ min: 0, max: whole.length - 1 }), (length) => {
        const bytes = whole.subarray(0, length);
        let image: MemoryImage;
        try {
          image = open(bytes);
        } catch (error) {
          expect(error).toBeInstanceOf(Elf2dmpError);
          return;
        }
        images++;
        for (const { start, size } of image.runs) {
          const target = Buffer.alloc(size);
          expect(image.readSync(start, target)).toBe(true);
          for (let at = 0; at < size; at += 4096) {
            const page = guest.memory.pages.get(start + at) ?? Buffer.alloc(4096);
            if (image.format === 'qevm' && !target.subarray(at, at + 4096).equals(page)) {
              throw new Error(`cut at ${length}: page 0x${(start + at).toString(16)} differs`);
            }
          }
        }
        if (image.format === 'qevm' && image.cpus.length === 0) {
          expect(image.diagnostics.losses.map(({ code }) => code)).toContain('migration-stream-cut');
        }
        image.close();
      }),
      { numRuns: 60 },
    );
    expect(images).toBeGreaterThan(20);
  });

  it('give a typed error or an image for any damage', () => {
    const whole = writeStream(guest, { pages: 'xbzrle' });
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.integer({ min: 0, max: 3000 }), fc.integer({ min: 0, max: 255 })), { maxLength: 6 }),
        fc.array(fc.tuple(fc.integer({ min: 1, max: 8000 }), fc.integer({ min: 0, max: 255 })), { maxLength: 6 }),
        (front, back) => {
          const bytes = Buffer.from(whole);
          for (const [at, value] of front) bytes[at] = value;
          for (const [at, value] of back) bytes[bytes.length - at] = value;
          try {
            const image = open(bytes);
            for (const { start, size } of image.runs) {
              image.readSync(start, Buffer.alloc(Math.min(size, 0x10000)));
            }
            image.close();
          } catch (error) {
            expect(error).toBeInstanceOf(Elf2dmpError);
          }
        },
      ),
      { numRuns: 200 },
    );
  });

  it('are refused by name where they are of another machine, or hold no memory', () => {
    const refused = (bytes: Buffer) => {
      try {
        open(bytes);
      } catch (error) {
        if (error instanceof Elf2dmpError) return error.code;
        throw error;
      }
      return undefined;
    };
    expect(refused(writeStream(guest, { machineType: 'virt-10.0' }))).toBe('migration-machine');
    expect(refused(Buffer.from('QEVM\0\0\0\x03\0', 'latin1'))).toBe('migration-stream-damaged');
  });
});

describe("libvirt's save files", () => {
  const save = (stream: Buffer, format: number, magic = 'LibvirtQemudSave') => {
    const header = Buffer.alloc(92);
    header.write(magic, 'latin1');
    const xml = Buffer.from('<domain><secret>hush</secret></domain>\0');
    header.writeUInt32LE(2, 16);
    header.writeUInt32LE(xml.length, 20);
    header.writeUInt32LE(format, 28);
    return Buffer.concat([header, xml, stream]);
  };

  it('are opened as the streams that they hold, raw and compressed', async () => {
    const stream = writeStream(guest);
    for (const [format, bytes] of [
      [0, stream],
      [1, gzipSync(stream)],
    ] as const) {
      const path = join(dir, `save-${format}`);
      writeFileSync(path, save(bytes, format));
      const image = await openInput(path);
      expectGuest(image, guest);
      expect(image.cpus.length).toBe(3);
      image.close();
    }
  });

  it('are refused with what to do where they are unfinished or need another program', async () => {
    writeFileSync(join(dir, 'part'), save(writeStream(guest), 0, 'LibvirtQemudPart'));
    await expect(openInput(join(dir, 'part'))).rejects.toMatchObject({ code: 'libvirt-save-unfinished' });
    writeFileSync(join(dir, 'bzip2'), save(Buffer.from('BZh91AY'), 2));
    await expect(openInput(join(dir, 'bzip2'))).rejects.toMatchObject({
      code: 'libvirt-save-format',
      details: { hint: expect.stringContaining(`tail -c +${92 + 39 + 1} FILE | bzip2 -dc | elf2dmp - OUTPUT`) },
    });
  });
});

describe.skipIf(!qemuAvailable())("a real QEMU's stream", () => {
  it.each(['pc', 'q35'] as const)(
    'has the pages and registers of the ELF of the same paused guest: %s',
    async (machine) => {
      const made = buildGuest({ processors: 2, user: [1] });
      const elf = join(dir, `${machine}.elf`);
      const stream = join(dir, `${machine}.stream`);
      await dumpWithQemu(made, elf, { machineType: machine, also: [{ path: stream, raw: 'migrate' }] });
      const [a, b] = [await openInput(elf), await openInput(stream)];
      b.cpus.forEach(({ registers }, i) => {
        expect(registers).toMatchObject(definite(a.cpus[i]!.registers!));
        // What test/guest/stub.asm set on this CPU.
        const { floatingPoint: fp, debug, cr8 } = registers!;
        expect([fp!.controlWord, fp!.statusWord, fp!.tagWord, fp!.mxcsr]).toEqual([0x37f, 0x3000, 0xc0, 0x1fc0]);
        expect(fp!.st[0]!.toString('hex')).toBe('35c26821a2da0fc90040');
        expect(fp!.st[1]!.toString('hex')).toBe('0000000000000080ff3f');
        expect(fp!.xmm[0]!.toString('hex')).toBe(`0${i}776655443322110000000000000000`);
        expect([debug!.dr0, debug!.dr7, cr8]).toEqual([0x1122334455667700n + BigInt(i), 0x401n, BigInt(3 + i)]);
      });
      let same = 0;
      for (const { start, size } of b.pageExtents().extents) {
        for (let at: number = start; at < start + size; at += 4096) {
          // The firmware's shadow belongs to another block.
          if (at >= 0xc0000 && at < 0x100000) continue;
          if (!b.page(pa(at))!.equals(a.page(pa(at))!)) throw new Error(`page 0x${at.toString(16)} differs`);
          same++;
        }
      }
      expect(same).toBeGreaterThan(4000);
      a.close();
      b.close();

      const dumps = { elf: join(dir, `${machine}-elf.dmp`), stream: join(dir, `${machine}-stream.dmp`) };
      const of = async (input: string, output: string) => convert({ input, output, ram: 'windows' });
      const patched = new Set<number>();
      for (const { patches } of [(await of(elf, dumps.elf)).dump, (await of(stream, dumps.stream)).dump]) {
        for (const { physical, length } of patches) {
          for (let at = Number(physical) & ~0xfff; at < Number(physical) + length; at += 4096) patched.add(at);
        }
      }
      const [fromElf, fromStream] = [pagesOf(readFileSync(dumps.elf)), pagesOf(readFileSync(dumps.stream))];
      expect([...fromStream.keys()]).toEqual([...fromElf.keys()]);
      for (const [address, page] of fromStream) {
        // Frames and special registers hold more.
        if (!patched.has(address)) expect(page.equals(fromElf.get(address)!), `0x${address.toString(16)}`).toBe(true);
      }
      const piped = join(dir, `${machine}-piped.dmp`);
      const bin = join(import.meta.dirname, '../../../bin/elf2dmp.js');
      execFileSync('sh', ['-c', `cat ${stream} | ${process.execPath} ${bin} - ${piped} --ram windows --quiet`]);
      expect(readFileSync(piped).equals(readFileSync(dumps.stream))).toBe(true);

      if (!debuggerAvailable()) return;
      const shown = await askDebugger(dumps.stream, {
        complaints: complaints(),
        fpu: text('rM 4', 1),
        xmm0: text('r xmm0', 1),
        dr0: text('r dr0,dr7', 1),
        cr8: text('r cr8', 1),
        general: registers(1),
        elf: text('r', 1),
      });
      expect(shown.complaints).toEqual([]);
      const cpu = made.truth.processors[1]!.cpu;
      expect(shown.fpu).toMatch(
        /fpcw=037F +fpsw=3000 +fptw=00C0\nst0= 3\.14159265358979323851\d*e\+0000 +st1= 1\.0+e\+0000/,
      );
      expect(shown.xmm0).toContain('1.27953e-028 1.58374e+013');
      expect(shown.dr0).toBe(`dr0=112233445566770${cpu} dr7=0000000000000401\n`);
      expect(shown.cr8).toBe(`cr8=000000000000000${3 + cpu}\n`);
      expect(shown.general['rip']).toBe(made.cpus[cpu]!.regs.rip);
      const { elf: plain } = await askDebugger(dumps.elf, { elf: text('r', 1) });
      expect(shown.elf).toBe(plain);
    },
  );

  it('is read from internal snapshots, and which one is meant has to be said', async () => {
    const made = buildGuest({ processors: 2 });
    const image = join(dir, 'disk.qcow2');
    const elf = join(dir, 'snapshots.elf');
    await dumpWithQemu(made, elf, { snapshots: { image, names: ['before', 'after'] } });
    await expect(openInput(image)).rejects.toMatchObject({
      code: 'snapshot-needed',
      details: { attempts: [expect.stringContaining('1: before ('), expect.stringContaining('2: after (')] },
    });
    await expect(openInput(image, { snapshot: 'x' })).rejects.toMatchObject({ code: 'snapshot-unknown' });
    const opened = await openInput(image, { snapshot: 'after' });
    expect(opened.format).toBe('qcow2-snapshot');
    expect(codes(opened)).toEqual(['migration-run-state']);
    const whole = await openInput(elf);
    for (const { start, size } of opened.pageExtents().extents) {
      for (let at: number = start; at < start + size; at += 4096) {
        if (at >= 0xc0000 && at < 0x100000) continue;
        if (!opened.page(pa(at))!.equals(whole.page(pa(at))!)) throw new Error(`page 0x${at.toString(16)} differs`);
      }
    }
    opened.cpus.forEach(({ registers }, i) => {
      expect(registers).toMatchObject(definite(whole.cpus[i]!.registers!));
    });
    opened.close();
    whole.close();
    const report = await convert({ input: image, output: join(dir, 'snapshot.dmp'), snapshot: '1' });
    expect(report.windows.kernel.base).toBe(`0x${made.truth.kernelBase.toString(16)}`);
  });

  it('is named where an image has none, and damage gives typed errors', async () => {
    const image = join(dir, 'empty.qcow2');
    execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', image, '8M']);
    await expect(openInput(image)).rejects.toMatchObject({ code: 'qcow2' });
    const bytes = readFileSync(join(dir, 'disk.qcow2'));
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.integer({ min: 4, max: 200 }), fc.integer({ min: 0, max: 255 })), {
          minLength: 1,
          maxLength: 4,
        }),
        (damage) => {
          const damaged = Buffer.from(bytes);
          for (const [at, value] of damage) damaged[at] = value;
          try {
            openSource(new BufferSource(damaged, 'disk'), { snapshot: 'after' }).close();
          } catch (error) {
            expect(error).toBeInstanceOf(Elf2dmpError);
          }
        },
      ),
      { numRuns: 40 },
    );
  });
});
