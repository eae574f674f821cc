import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Elf2dmpError } from '../../../src/core/errors.ts';
import { pa } from '../../../src/core/units.ts';
import { locateWindows } from '../../../src/locate/locator.ts';
import { decodeContext, encodeContext } from '../../../src/machines/x86/context.ts';
import type { MemoryImage } from '../../../src/memory/image.ts';
import { inspect } from '../../../src/operations/inspect.ts';
import { openInput } from '../../../src/readers/input.ts';
import { openSource } from '../../../src/readers/registry.ts';
import { BufferSource } from '../../../src/source/buffer.ts';
import { buildGuest, type Guest } from '../../guest/guest.ts';
import { type StreamOptions, writeStream } from '../../guest/qevm.ts';
import { buildGuest32 } from '../../guest/x86/guest.ts';
import fc from '../../support/properties.ts';
import { x64 } from '../../support/registers.ts';

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
      const registers = x64(image.cpus[i]!.registers!);
      const { cr0, cr3, cr4 } = cpu;
      expect(registers).toMatchObject(cpu.regs);
      expect(registers).toMatchObject({ control: { cr0, cr3, cr4 }, kernelGsBase: cpu.kernelGsBase });
      expect(registers.cs.selector).toBe(cpu.cs);
      expect(registers.gs.base).toBe(cpu.gsBase);
      expect(registers.tables).toMatchObject({ gdt: cpu.gdt, idt: cpu.idt });
      expect(registers.floatingPoint!.st.map((st) => st[0])).toEqual([6, 7, 0, 1, 2, 3, 4, 5]);
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

  it("end where the memory's own section claims to be that of a device", () => {
    const bytes = Buffer.from(writeStream(guest, { pages: 'plain' }));
    bytes[bytes.indexOf('\x03ram', 0, 'latin1') - 5] = 4;
    expect(() => open(bytes)).toThrow(Elf2dmpError);
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
    expect(refused(writeStream(guest, { machineType: 'pseries-10.0' }))).toBe('migration-machine');
    expect(refused(Buffer.from('QEVM\0\0\0\x03\0', 'latin1'))).toBe('migration-stream-damaged');
  });
});

describe("a 32-bit guest's stream", () => {
  it.each([
    ['by QEMU for 32-bit guests', { i386: true }, []],
    ['by QEMU for 64-bit guests', {}, ['x64']],
    ['without a description of the devices', { i386: true, withoutDescription: true }, []],
  ] as const)('has its registers and memory: %s', async (_, options, others) => {
    const made = buildGuest32({ processors: 3, user: [1], neverStarted: 1, seed: 12 });
    const image = open(writeStream(made, options));
    expect(image.machine.name).toBe('x86');
    expect(image.alternatives.map(({ machine }) => machine.name)).toEqual(others);
    expect(image.cpus.length).toBe(made.cpus.length);
    made.cpus.forEach((cpu, i) => {
      const registers = x64(image.cpus[i]!.registers!);
      const { rax, rsp, rip, rflags } = cpu.regs;
      expect(registers).toMatchObject({ rax, rsp, rip, rflags, r8: 0n, r15: 0n });
      expect(registers).toMatchObject({ control: { cr0: cpu.cr0, cr3: cpu.cr3, cr4: cpu.cr4 } });
      expect([registers.cs.selector, registers.fs.base]).toEqual([cpu.cs, cpu.fsBase]);
      expect(registers.tables).toMatchObject({ gdt: cpu.gdt, idt: cpu.idt });
      expect(registers.debug).toMatchObject({ dr0: 0x11223340n + BigInt(i), dr7: 0x401n });
      expect(registers.floatingPoint!.st.map((st) => st[0])).toEqual([6, 7, 0, 1, 2, 3, 4, 5]);
      expect(registers.floatingPoint!.xmm.map((xmm) => xmm[0])).toEqual(
        [0, 1, 2, 3, 4, 5, 6, 7].map((n) => 16 * i + n),
      );
      const shown = new Map(image.machine.namedRegisters(registers).map(({ name, value }) => [name, value]));
      expect(shown.get('ymm7')).toBe(0x1122_3344_5566_7707n + BigInt(16 * i));
      expect(shown.has('ymm8')).toBe(false);
      // A frame has them twice: as FSAVE has them, by literal offsets, and as FXSAVE.
      const frame = encodeContext(registers);
      expect([0x1c, 0x20, 0x24].map((at) => frame.readUInt32LE(at))).toEqual([0xffff037f, 0xffff3000, 0xffff0fff]);
      expect([0, 1, 7].map((n) => frame.readBigUInt64LE(0x38 + 10 * n) & 0xffn)).toEqual([6n, 7n, 5n]);
      const read = decodeContext(frame, Buffer.alloc(0x54), () => undefined)!;
      expect(read.floatingPoint).toEqual(registers.floatingPoint);
      expect(read.debug).toEqual(registers.debug);
    });
    const windows = await locateWindows(image);
    expect(windows.kernel.base).toBe(BigInt.asUintN(64, BigInt(made.truth.kernelBase | 0)));
    expect(windows.processors.map((p) => p.cpu?.index)).toEqual(made.truth.processors.map((p) => p.cpu));
    image.close();
  });
});

describe('what the hypervisor recorded', () => {
  const PARAMETERS = [0x10n, 2n, 0n, 0xfffff80611223344n] as const;
  const crashed = buildGuest({ crash: { code: 0xd1, parameters: PARAMETERS, processor: 0 }, seed: 8 });
  /** Microsoft, Windows NT 10.0, and the build. */
  const id = (build: bigint) => (1n << 48n) | (4n << 40n) | (10n << 32n) | build;
  const located = async (of: Guest, options: StreamOptions) => {
    const image = open(writeStream(of, options));
    const windows = await locateWindows(image);
    const doubts = windows.diagnostics.list.flatMap(({ code, message }) =>
      code === 'host-contradicts' ? [message] : [],
    );
    return { windows, doubts, host: image.host };
  };

  it('agrees with memory', async () => {
    const hyperV = { guestOsId: id(19041n), crash: [0xd1n, ...PARAMETERS] };
    const { windows, doubts, host } = await located(crashed, { hyperV, runState: 'guest-panicked' });
    expect(doubts).toEqual([]);
    expect(host).toEqual({ ...hyperV, runState: 'guest-panicked' });
    expect(windows.evidence.filter(({ step }) => step === 'hypervisor').map(({ accepted }) => accepted)).toEqual([
      true,
      true,
    ]);
  });

  it('contradicts memory, which is believed', async () => {
    const crash = [0x7en, ...PARAMETERS];
    const { windows, doubts } = await located(crashed, { hyperV: { guestOsId: id(22621n), crash } });
    expect(windows.crash?.bugCheck.code).toBe(0xd1);
    expect(doubts).toEqual([
      'the guest told its hypervisor that it is build 22621, but memory says 19041: memory was believed',
      expect.stringMatching(/^the guest told its hypervisor of bug check 0x0*7e \(.*, but memory has 0x0*d1 \(/),
    ]);
    const running = await located(guest, { hyperV: { guestOsId: id(19041n), crash } });
    expect(running.windows.crash).toBeUndefined();
    expect(running.doubts).toEqual([expect.stringContaining('but memory has none')]);
    expect(
      (await located(guest, { hyperV: { guestOsId: 0x8100_0000_0000_0001n }, runState: 'guest-panicked' })).doubts,
    ).toEqual(['QEMU says that the guest panicked, but memory has no bug check']);
  });

  it('is in info, with every register of each CPU', async () => {
    const path = join(dir, 'told');
    writeFileSync(
      path,
      writeStream(crashed, { hyperV: { guestOsId: id(19041n), crash: [0xd1n, ...PARAMETERS] }, runState: 'paused' }),
    );
    const { input } = await inspect({ input: path });
    expect(input.host).toMatchObject({ runState: 'paused', build: 19041, bugCheck: { code: '0xd1' } });
    expect(input.cpus[0]!.registers).toMatchObject({
      st0: '0x6',
      st2: '0x0',
      mxcsr: '0x1f80',
      fpcw: '0x37f',
      xmm15: '0x0',
      dr7: '0x0',
    });
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

  it('are refused with what to do where they are unfinished, or in no form that is known', async () => {
    writeFileSync(join(dir, 'part'), save(writeStream(guest), 0, 'LibvirtQemudPart'));
    await expect(openInput(join(dir, 'part'))).rejects.toMatchObject({ code: 'libvirt-save-unfinished' });
    writeFileSync(join(dir, 'unknown'), save(writeStream(guest), 7));
    await expect(openInput(join(dir, 'unknown'))).rejects.toMatchObject({ code: 'migration-stream-damaged' });
  });
});
