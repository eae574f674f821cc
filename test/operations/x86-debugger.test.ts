// 32-bit guests: run and dumped by a real QEMU, converted, and opened in the real engine.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { convert } from '../../src/operations/convert.ts';
import {
  askDebugger,
  bugCheck,
  complaints,
  debuggerAvailable,
  dumpDebug,
  modules,
  registers,
  stack,
  system,
  text,
  vertarget,
  virtualMemory,
} from '../debugger/debugger.ts';
import { buildGuest32, type Guest32, type GuestOptions32 } from '../guest/x86/guest.ts';
import { dumpWithQemu, type QemuOptions, qemuAvailable } from '../support/qemu.ts';

let dir: string;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'elf2dmp-x86-debugger-'));
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const I386: QemuOptions = { program: 'qemu-system-i386' };
const CRASH = { code: 0xd1, parameters: [0x10, 2, 0, 0x8a460003], processor: 1 } as const;

const GUESTS: readonly [what: string, options: GuestOptions32, qemu?: QemuOptions][] = [
  ['7 with PAE', { processors: 2, user: [1] }, I386],
  ['7 without PAE', { pae: false, processors: 3, user: [0] }, I386],
  ['7 crashed', { processors: 4, user: [2], order: [2, 0, 3, 1], crash: CRASH }],
  ['7 crashed, without PAE, in a large page', { pae: false, largePages: true, crash: CRASH }],
  ['XP', { build: 'xp', pae: false, processors: 1 }, I386],
  ['XP with PAE, crashed', { build: 'xp', processors: 2, crash: CRASH }],
  ['Server 2003', { build: 'server2003', processors: 2, user: [0] }, I386],
  ['10', { build: 'win10', processors: 4, user: [0, 3], neverStarted: 1 }],
  ['10, crashed with a status for its code', { build: 'win10', crash: { ...CRASH, code: 0xc000021a } }, I386],
  ['a KDBG with zero-extended pointers', { kdbgPointers: 'zero-extended' }],
  ['/3GB', { threeGigabytes: true, user: [0] }],
  ['RAM above 4 GiB', { highMiB: 16, user: [0], crash: CRASH }, { arguments: ['-machine', 'max-ram-below-4g=2G'] }],
];

/** As the engine takes addresses. */
const wide = (address: number): bigint => BigInt.asUintN(64, BigInt(address | 0));

/** What the engine's registers of a processor should be. */
function expectedRegisters({ cpus, truth, kernel }: Guest32, number: number): Record<string, bigint> {
  const { cpu: index, idt, gdt } = truth.processors[number]!;
  const cpu = cpus[index]!;
  const { rax, rbx, rcx, rdx, rsi, rdi, rip, rsp, rbp, rflags } = cpu.regs;
  const selectors = Object.fromEntries(
    (['cs', 'ss', 'ds', 'es', 'fs', 'gs'] as const).map((name) => [name, BigInt(cpu[name])]),
  );
  expect(kernel.read(gdt, 8)).toEqual(Buffer.alloc(8));
  return {
    eax: rax,
    ebx: rbx,
    ecx: rcx,
    edx: rdx,
    esi: rsi,
    edi: rdi,
    eip: rip,
    esp: rsp,
    ebp: rbp,
    efl: rflags,
    ...selectors,
    cr0: cpu.cr0,
    cr3: cpu.cr3,
    cr4: cpu.cr4,
    gdtr: BigInt(gdt),
    gdtl: 0x3ffn,
    idtr: BigInt(idt),
    idtl: 0x7ffn,
    tr: BigInt(cpu.tr),
  };
}

describe.skipIf(!debuggerAvailable() || !qemuAvailable())('a 32-bit guest in the real debugger', () => {
  it.each(GUESTS)('shows what it should: %s', async (what, options, qemu) => {
    const guest = buildGuest32(options);
    const { truth, build } = guest;
    const input = join(dir, `${what}.elf`);
    await dumpWithQemu(guest, input, qemu);
    const output = join(dir, `${what}.dmp`);
    const report = await convert({ input, output });
    expect(report.diagnostics).toEqual([]);
    const smaller = join(dir, `${what}.kernel.dmp`);
    const again = await convert({ input: output, output: smaller, type: 'kernel' });
    expect(again.diagnostics).toEqual([]);
    const samples = Object.fromEntries(
      truth.samples.map(({ what: name, virtual, bytes }) => [name, virtualMemory(wide(virtual), bytes.length)]),
    );
    const all = Object.fromEntries(truth.processors.map(({ number }) => [`r${number}`, registers(number)]));
    const stacks = Object.fromEntries(truth.processors.map(({ number }) => [`k${number}`, stack(number)]));
    const user = truth.processors.find(({ cpu }) => (guest.cpus[cpu]!.cs & 3) === 3);
    const seen = await askDebugger(output, {
      complaints: complaints(),
      system: system(),
      target: vertarget(),
      dump: dumpDebug(),
      bugCheck: bugCheck(),
      lm: text('lm'),
      modules: modules(),
      ...(user
        ? { user: virtualMemory(BigInt(truth.userSample.virtual), truth.userSample.bytes.length, user.number) }
        : {}),
    });
    const memory = await askDebugger(output, samples);
    const shown = await askDebugger(output, all);
    const walked = await askDebugger(output, stacks);
    expect(await askDebugger(smaller, all)).toEqual(shown);
    expect(await askDebugger(smaller, samples)).toEqual(memory);

    expect(seen.complaints).toEqual([]);
    expect(seen.system).toMatchObject({
      build: build.build,
      processors: truth.processors.length,
      processorType: 0x14c,
      effectiveProcessorType: 0x14c,
    });
    expect(seen.target).toMatchObject({
      build: build.build,
      kernelBase: BigInt(truth.kernelBase),
      loadedModuleList: BigInt(truth.psLoadedModuleList),
      buildLab: build.lab,
      product: 'Product: WinNt, suite: TerminalServer SingleUserTS',
    });
    expect(seen.dump.title).toBe('32 bit Kernel Full Dump Analysis');
    expect(seen.dump.header).toMatchObject({
      PaeEnabled: guest.pae ? 1n : 0n,
      KdDebuggerDataBlock: BigInt(truth.kdbg),
    });
    expect(seen.bugCheck).toEqual({
      code: truth.bugCheck?.code ?? 0x161,
      parameters: (truth.bugCheck?.parameters ?? [0, 0, 0, 0]).map((p) => expect.toBeOneOf([BigInt(p), wide(p)])),
    });
    // The engine lists the program of the processor that it opens on as well.
    const { userModule: app } = truth;
    const opensOn = truth.bugCheck ? 1 : 0;
    expect(seen.modules.map(({ base, size }) => [base, size])).toEqual([
      ...(user?.number === opensOn ? [[BigInt(app.base), app.size]] : []),
      ...truth.modules.map(({ base, size }) => [wide(base), size]),
    ]);
    expect(seen.lm).toContain(truth.unloaded[0]!.name);
    for (const { what: name, bytes } of truth.samples) expect(memory[name], name).toEqual(bytes);
    if (user) expect(seen.user).toEqual(truth.userSample.bytes);
    for (const { number, frames, cpu } of truth.processors) {
      const { captured } = truth;
      const expected = expectedRegisters(guest, number);
      if (captured?.processor === number) {
        Object.assign(expected, { eip: BigInt(captured.eip), esp: BigInt(captured.esp), eax: BigInt(captured.eax) });
        for (const other of ['ebx', 'ecx', 'edx', 'esi', 'edi', 'ebp', 'efl']) delete expected[other];
      }
      expect(shown[`r${number}`], `processor ${number}, CPU ${cpu}`).toMatchObject(expected);
      const ips = walked[`k${number}`]!.map(({ instruction }) => instruction);
      const own = captured?.processor === number ? [captured.eip, ...frames.slice(2)] : frames;
      expect(ips, `stack of processor ${number}`).toEqual(own.map(wide));
    }
  });
});
