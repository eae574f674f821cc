import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Elf2dmpError } from '../../../src/core/errors.ts';
import type { MemoryImage } from '../../../src/memory/image.ts';
import { convert } from '../../../src/operations/convert.ts';
import { openInput } from '../../../src/readers/input.ts';
import { openSource } from '../../../src/readers/registry.ts';
import { BufferSource } from '../../../src/source/buffer.ts';
import { askDebugger, complaints, debuggerAvailable, registers, text } from '../../debugger/debugger.ts';
import { buildGuest } from '../../guest/guest.ts';
import { writeStream } from '../../guest/qevm.ts';
import { buildGuest32 } from '../../guest/x86/guest.ts';
import { pagesOf } from '../../support/dumps.ts';
import fc from '../../support/properties.ts';
import { dumpWithQemu, migrateTo, type QemuOptions, qemuAvailable, runInQemu } from '../../support/qemu.ts';
import { x64 } from '../../support/registers.ts';
import { definite, samePages } from '../../support/same-memory.ts';

let dir: string;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'elf2dmp-qevm-qemu-'));
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const codes = (image: MemoryImage) => image.diagnostics.list.map(({ code }) => code);

const hex = (at: number) => `0x${at.toString(16)}`;

/** Whether a patch of a report is on the page at an address. */
const covers =
  (at: number) =>
  ({ physical, length }: { physical: string; length: number }) =>
    Number(physical) < at + 4096 && Number(physical) + length > at;

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
        const { floatingPoint: fp, debug, cr8 } = x64(registers!);
        expect([fp!.controlWord, fp!.statusWord, fp!.tagWord, fp!.mxcsr]).toEqual([0x37f, 0x3000, 0xc0, 0x1fc0]);
        expect(fp!.st[0]!.toString('hex')).toBe('35c26821a2da0fc90040');
        expect(fp!.st[1]!.toString('hex')).toBe('0000000000000080ff3f');
        expect(fp!.xmm[0]!.toString('hex')).toBe(`0${i}776655443322110000000000000000`);
        expect([debug!.dr0, debug!.dr7, cr8]).toEqual([0x1122334455667700n + BigInt(i), 0x401n, BigInt(3 + i)]);
      });
      expect(samePages(b, a)).toBeGreaterThan(4000);
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

  it('has the blocks of its NUMA nodes where Windows finds its own, whatever they are called', async () => {
    const made = buildGuest({ processors: 2, ramMiB: 32, seed: 5 });
    const stream = join(dir, 'numa.stream');
    const memory = ({ file, bytes }: { file: string; bytes: number }) => {
      const half = bytes / 2;
      const ram = readFileSync(file);
      // The second node's block has the lower number in its name.
      const node = (id: string, index: number) => {
        writeFileSync(`${file}.${id}`, ram.subarray(index * half, (index + 1) * half));
        return [
          ...['-object', `memory-backend-file,id=${id},size=${half},mem-path=${file}.${id},share=off`],
          ...['-numa', `node,memdev=${id},cpus=${index}`],
        ];
      };
      return ['-m', `${bytes / 2 ** 20}`, ...node('m1', 0), ...node('m0', 1)];
    };
    await runInQemu(made, { memory }, ({ qemu }) => migrateTo(qemu, { to: { file: stream } }));
    const report = await convert({ input: stream, output: join(dir, 'numa.dmp') });
    expect(report.windows.kernel.base).toBe(`0x${made.truth.kernelBase.toString(16)}`);
    expect(report.diagnostics.map(({ code }) => code)).not.toContain('layout-doubtful');
    const pages = pagesOf(readFileSync(join(dir, 'numa.dmp')));
    for (const [at, page] of made.memory.pages) {
      if (pages.get(at) && !pages.get(at)!.equals(page))
        expect(report.dump.patches.some(covers(at)), hex(at)).toBe(true);
    }
  });

  it('has its memory in a file of its own with x-ignore-shared, which has to be named', async () => {
    const made = buildGuest({ processors: 2, seed: 6 });
    const [elf, stream, ram] = ['shared.elf', 'shared.stream', 'shared.ram'].map((name) => join(dir, name)) as [
      string,
      string,
      string,
    ];
    await runInQemu(made, { raw: 'backend' }, async ({ qemu, ram: file }) => {
      await qemu.command('dump-guest-memory', { paging: false, protocol: `file:${elf}` });
      await migrateTo(qemu, { to: { file: stream }, capabilities: ['x-ignore-shared'] });
      copyFileSync(file, ram);
    });
    await expect(openInput(stream)).rejects.toMatchObject({
      code: 'migration-ram-elsewhere',
      details: { hint: expect.stringContaining('--ram-file') },
    });
    await expect(openInput(stream, { ramFile: elf })).rejects.toMatchObject({ code: 'ram-file-size' });
    await expect(openInput(elf, { ramFile: ram })).rejects.toMatchObject({ code: 'ram-file-unneeded' });
    await expect(convert({ input: stream, output: ram, ramFile: ram, force: true })).rejects.toMatchObject({
      kind: 'usage',
    });
    const [a, b] = [await openInput(stream, { ramFile: ram }), await openInput(elf)];
    expect(samePages(a, b)).toBeGreaterThan(4000);
    a.cpus.forEach(({ registers }, i) => {
      expect(registers).toMatchObject(definite(b.cpus[i]!.registers!));
    });
    a.close();
    b.close();
    const report = await convert({ input: stream, output: join(dir, 'shared.dmp'), ramFile: ram });
    expect(report.windows.kernel.base).toBe(`0x${made.truth.kernelBase.toString(16)}`);
  });

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
    samePages(opened, whole);
    opened.cpus.forEach(({ registers }, i) => {
      expect(registers).toMatchObject(definite(whole.cpus[i]!.registers!));
    });
    opened.close();
    whole.close();
    const report = await convert({ input: image, output: join(dir, 'snapshot.dmp'), snapshot: '1' });
    expect(report.windows.kernel.base).toBe(`0x${made.truth.kernelBase.toString(16)}`);
  });

  it('is read from an overlay, without what lies below it; encrypted images are refused by name', async () => {
    const made = buildGuest({ processors: 2, seed: 9 });
    const [base, overlay, elf] = ['base.qcow2', 'overlay.qcow2', 'overlay.elf'].map((name) => join(dir, name)) as [
      string,
      string,
      string,
    ];
    execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', base, '64M']);
    execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', base, '-F', 'qcow2', overlay]);
    const disk = ['-drive', `file=${overlay},format=qcow2,if=ide`];
    await runInQemu(made, { arguments: disk }, async ({ qemu }) => {
      await qemu.command('dump-guest-memory', { paging: false, protocol: `file:${elf}` });
      expect((await qemu.human('savevm here')).trim()).toBe('');
    });
    rmSync(base);
    const [a, b] = [await openInput(overlay), await openInput(elf)];
    expect(samePages(a, b)).toBeGreaterThan(4000);
    a.close();
    b.close();
    const secret = join(dir, 'secret.qcow2');
    const key = ['--object', 'secret,id=key,data=hush', '-o', 'encrypt.format=aes,encrypt.key-secret=key'];
    execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', ...key, secret, '8M']);
    await expect(openInput(secret)).rejects.toMatchObject({
      code: 'qcow2-unreadable',
      message: expect.stringContaining('an encrypted qcow2 image'),
    });
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

describe.skipIf(!debuggerAvailable())("a 32-bit guest's migration stream in the real debugger", () => {
  it('shows the registers that only streams have', async () => {
    const guest = buildGuest32({ processors: 2, user: [1] });
    const [input, output] = [join(dir, 'vm.stream'), join(dir, 'stream.dmp')];
    writeFileSync(input, writeStream(guest, { i386: true }));
    await convert({ input, output });
    const { cpu } = guest.truth.processors[1]!;
    const seen = await askDebugger(output, {
      complaints: complaints(),
      x87: text('rM 4', 1),
      xmm1: text('r xmm1:uq', 1),
      debug: text('r dr0,dr7', 1),
      general: registers(1),
    });
    expect(seen.complaints).toEqual([]);
    expect(seen.x87).toMatch(/^fpcw=037F.*fpsw=3000.*fptw=0FFF\n/);
    expect(seen.x87).toMatch(/st0= 1\.000000000000000000650e\+0000 +st1= 1\.0+760e\+0000/);
    expect(seen.xmm1).toContain(`11223344556677${cpu}1`);
    expect(seen.debug).toBe(`dr0=1122334${cpu} dr7=00000401\n`);
    expect(seen.general['eip']).toBe(guest.cpus[cpu]!.regs.rip);
  });
});

describe.skipIf(!qemuAvailable())("a 32-bit guest's migration stream by a real QEMU", () => {
  it.each([
    ['QEMU for 32-bit guests', { program: 'qemu-system-i386' }],
    ['QEMU for 64-bit guests', {}],
  ] as [string, QemuOptions][])('has the pages and registers of the ELF file: %s', async (what, qemu) => {
    const guest = buildGuest32({ processors: 2, user: [1] });
    const [elf, stream] = [join(dir, `${what}.elf`), join(dir, `${what}.stream`)];
    await dumpWithQemu(guest, elf, { ...qemu, also: [{ path: stream, raw: 'migrate' }] });
    const [a, b] = [await openInput(elf), await openInput(stream)];
    expect(b.machine.name).toBe('x86');
    expect(samePages(b, a)).toBeGreaterThan(4000);
    b.cpus.forEach(({ registers: own }, i) => {
      expect(own).toMatchObject({ ...definite(a.cpus[i]!.registers!), kernelGsBase: undefined });
      expect(x64(own!).floatingPoint).toMatchObject({ controlWord: 0x37f, mxcsr: 0x1f80 });
    });
    a.close();
    b.close();
    const output = join(dir, `${what}.dmp`);
    const report = await convert({ input: stream, output });
    expect(report.windows.kernel.base).toBe(`0x${BigInt.asUintN(64, BigInt(guest.truth.kernelBase | 0)).toString(16)}`);
  });
});
