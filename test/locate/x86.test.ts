import { describe, expect, it } from 'vitest';
import { Reason } from '../../src/core/reason.ts';
import { locateWindows } from '../../src/locate/locator.ts';
import { openSource } from '../../src/readers/registry.ts';
import { BufferSource } from '../../src/source/buffer.ts';
import { readProcesses } from '../../src/windows/processes.ts';
import { readUnloadedModules } from '../../src/windows/unloaded-modules.ts';
import { type ElfOptions, writeElf } from '../guest/elf.ts';
import { buildGuest } from '../guest/guest.ts';
import { buildGuest32, type Guest32, type GuestOptions32 } from '../guest/x86/guest.ts';

const open = (bytes: Buffer, options?: Parameters<typeof openSource>[1]) =>
  openSource(new BufferSource(bytes, 'guest'), options);
const locate = (guest: Guest32, options?: ElfOptions) => locateWindows(open(writeElf(guest, options)));

/** A 32-bit address as it is kept: sign-extended. */
const wide = (address: number): bigint => BigInt.asUintN(64, BigInt(address | 0));

const CRASH = { code: 0xd1, parameters: [0x8a460003, 2, 0, 0x8a460003], processor: 1 } as const;

const GUESTS: readonly [what: string, options: GuestOptions32][] = [
  ['7 with PAE', { user: [1] }],
  ['7 without PAE, in a large page', { pae: false, largePages: true, processors: 3, user: [0] }],
  ['XP', { build: 'xp', pae: false, processors: 1 }],
  ['XP with PAE, crashed', { build: 'xp', crash: CRASH }],
  ['Server 2003', { build: 'server2003', processors: 2, user: [0, 1] }],
  ['10, crashed', { build: 'win10', processors: 4, user: [0, 3], neverStarted: 1, crash: CRASH }],
  ['zero-extended pointers in the KDBG', { kdbgPointers: 'zero-extended' }],
  ['/3GB', { threeGigabytes: true, user: [0] }],
  ['a note with a dump header', { vmcoreinfo: 'good' }],
];

describe('32-bit Windows', () => {
  it("is found at a kernel's address of 32 bits, as debuggers show it, and sign-extended", async () => {
    const guest = buildGuest32({});
    const { kernelBase } = guest.truth;
    for (const given of [BigInt(kernelBase), wide(kernelBase)]) {
      const { kernel } = await locateWindows(open(writeElf(guest)), { kernelBase: given });
      expect(kernel.base).toBe(wide(kernelBase));
    }
    await expect(
      locateWindows(open(writeElf(guest)), { kernelBase: 0xfffff8000_0000000n | BigInt(kernelBase) }),
    ).rejects.toMatchObject({ code: 'kernel-not-found' });
  });

  it.each(GUESTS)('is found whole: %s', async (_, options) => {
    const guest = buildGuest32(options);
    const { truth, build } = guest;
    const windows = await locate(guest);
    const { space, kdbg, processors, image } = windows;
    expect(windows.diagnostics.list).toEqual([]);
    expect(image.machine.name).toBe('x86');
    expect(space.mode.name).toBe(guest.pae ? 'PAE' : '32-bit');
    expect([truth.root, truth.userRoot]).toContain(windows.root);
    expect(windows.kernel).toMatchObject({ base: wide(truth.kernelBase), size: truth.kernelSize });
    expect(kdbg).toMatchObject({ address: wide(truth.kdbg), size: build.kdbgSize, encoded: false });
    expect(kdbg.fields).toMatchObject({ PsLoadedModuleList: wide(truth.psLoadedModuleList) });
    expect(windows.version).toMatchObject({ build: build.build, lab: build.lab, majorVersion: 0xf });
    expect(
      processors.map(({ number, kpcr, prcb, context, specialRegisters, cpu }) => [
        number,
        kpcr,
        prcb,
        context,
        specialRegisters,
        cpu?.index,
      ]),
    ).toEqual(
      truth.processors.map((p) => [
        p.number,
        wide(p.kpcr),
        wide(p.prcb),
        wide(p.context),
        wide(p.specialRegisters),
        p.cpu,
      ]),
    );
    expect(windows.modules.map(({ name, base, size, entry }) => [name, base, size, entry])).toEqual(
      truth.modules.map(({ name, base, size, entry }) => [name, wide(base), size, wide(entry)]),
    );
    expect(windows.physicalMemory).toEqual(
      truth.physicalMemory.map(({ basePage, pageCount }) => ({ start: basePage * 4096, size: pageCount * 4096 })),
    );
    const processes = readProcesses(space, kdbg.fields, processors);
    if (processes instanceof Reason) throw new Error(processes.text);
    expect(processes.doubts).toEqual([]);
    expect(processes.processes.map((p) => [p.name, p.pid, p.parentPid, p.address, p.directoryTableBase])).toEqual(
      truth.processes.map((p) => [p.name, p.pid, p.parent, wide(p.address), p.root]),
    );
    const unloaded = readUnloadedModules(space, kdbg.fields);
    if (unloaded instanceof Reason) throw new Error(unloaded.text);
    expect(unloaded.map(({ name, from, to, time }) => [name, from, to, time])).toEqual(
      truth.unloaded.map(({ name, from, to, time }) => [name, wide(from), wide(to), time]),
    );
    for (const { what, virtual, bytes } of truth.samples)
      expect(space.read(wide(virtual), bytes.length), what).toEqual(bytes);
    expect(windows.crash?.bugCheck).toEqual(
      truth.bugCheck && {
        code: truth.bugCheck.code,
        parameters: truth.bugCheck.parameters.map(wide),
        address: expect.any(BigInt),
      },
    );
    expect(windows.crash?.processor?.number).toBe(truth.captured?.processor);
    expect(windows.shared).toMatchObject({ systemTime: truth.systemTime, interruptTime: truth.upTime });
  });

  it.each([
    ['with PAE', { build: 'win10', user: [0, 1] }],
    ['without PAE', { build: 'xp', pae: false, processors: 2 }],
  ] as [string, GuestOptions32][])('is found by a search where there are no CPU states: %s', async (_, options) => {
    const guest = buildGuest32(options);
    const windows = await locate(guest, { withoutNotes: true });
    expect(windows.root).toBe(guest.truth.root);
    expect(windows.kernel.base).toBe(wide(guest.truth.kernelBase));
    expect(windows.processors.map(({ cpu }) => cpu)).toEqual(guest.truth.processors.map(() => undefined));
  });

  it('has general registers where that is all there is, and says what it lacks', async () => {
    const { image, diagnostics } = await locate(buildGuest32(), { prstatusOnly: null });
    expect(image.cpus.map(({ registers }) => registers && image.machine.instructionPointer(registers))).toEqual(
      buildGuest32().cpus.map(({ regs }) => wide(Number(regs.rip))),
    );
    expect(diagnostics.list.map(({ code }) => code)).toContain('cpu-notes-missing');
  });

  it.each([
    ['32-bit', () => buildGuest32({ seed: 9 }), 'x86'],
    ['64-bit', () => buildGuest({ seed: 9 }), 'x64'],
  ] as const)('raw memory is of the machine whose Windows is in it: %s', async (_, build, machine) => {
    const guest = build();
    const windows = await locateWindows(open(guest.memory.flat(0, guest.ramBytes), { format: 'raw' }));
    expect(windows.image.machine.name).toBe(machine);
    expect(windows.root).toBe(guest.truth.root);
  });

  it.each(['xp', 'win7'] as const)('a damaged KDBG loses to one whose lists are right: %s', async (build) => {
    const guest = buildGuest32({ build, decoys: true, pae: false });
    const windows = await locate(guest);
    expect(windows.kdbg.address).toBe(wide(guest.truth.kdbg));
  });

  it.each([
    ['the frame that was captured', { crash: CRASH }, /frame that Windows captured on processor 1 is in KeBugCheckEx/],
    [
      'a stack',
      { build: 'xp', pae: false, crash: { ...CRASH, captured: false } },
      /stack of processor 1 holds a return address in KeBugCheckEx/,
    ],
  ] as [string, GuestOptions32, RegExp][])('whose bug check was erased shows it by %s', async (_, options, said) => {
    const guest = buildGuest32(options);
    guest.kernel.write(guest.truth.kdbgBlock.readUInt32LE(0x88), Buffer.alloc(20));
    const { crash, diagnostics } = await locate(guest);
    expect(crash).toBeUndefined();
    expect(diagnostics.list.map(({ code, message }) => [code, said.test(message)])).toEqual([
      ['bug-check-missing', true],
    ]);
  });

  it('has its own processors where the KDBG has a wrong place for the PRCB in its KPCR', async () => {
    const guest = buildGuest32({ processors: 3 });
    // KPCRs lie 0x8000 bytes apart: that of the one before.
    guest.kernel.u16(guest.truth.kdbg + 0x2e6, 0x8120);
    const { processors, diagnostics } = await locate(guest);
    expect(diagnostics.list.map(({ code }) => code)).toEqual(['kdbg-field-damaged']);
    expect(processors.map(({ kpcr, cpu }) => [kpcr, cpu?.index])).toEqual(
      guest.truth.processors.map((p) => [wide(p.kpcr), p.cpu]),
    );
  });

  it('2000 is refused by its name', async () => {
    const guest = buildGuest32({ build: 'xp', decoys: false, pae: false });
    const { kernel, truth } = guest;
    kernel.u32(0xffdf0270, 0);
    // Its block ends before KiProcessorBlock.
    kernel.u32(truth.kdbg + 0x14, 0x208);
    await expect(locate(guest)).rejects.toMatchObject({
      code: 'windows-2000',
      kind: 'unsupported',
      message: expect.stringMatching(/Windows 2000 \(NT 5\.0\), with its kernel at 0xffffffff8284b000/),
    });
  });

  it('that was stopped early in boot is found without its SharedUserData', async () => {
    const guest = buildGuest32();
    for (const tables of [guest.kernel, guest.user]) tables.setEntry(0xffdf0000, 0);
    const { kernel, diagnostics } = await locate(guest);
    expect(kernel.base).toBe(wide(guest.truth.kernelBase));
    expect(diagnostics.list.map(({ code }) => code)).toContain('shared-data-unset');
  });
});
