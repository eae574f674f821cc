// The x64 machine's answers to what the rooms above ask.
import { describe, expect, it } from 'vitest';
import { va } from '../../src/core/units.ts';
import { NT_PRSTATUS } from '../../src/formats/elf.ts';
import { convertedMachines, MACHINES, machineOf } from '../../src/machines/index.ts';
import type { ReadVirtual } from '../../src/machines/machine.ts';
import { X64 } from '../../src/machines/x64/index.ts';
import type { X64Registers } from '../../src/machines/x64/registers.ts';
import { x64 } from '../support/registers.ts';

const KPCR = va(0xfffff804_12340000n);
const PRCB = va(KPCR + 0x180n);

/** Words of memory by address. */
const reader =
  (words: Record<string, bigint>): ReadVirtual =>
  (address) => {
    const word = words[`${address}`];
    if (word === undefined) return undefined;
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64LE(word);
    return bytes;
  };

describe('the machine of a file', () => {
  it('is told by any of its marks', () => {
    expect([{ elfMachine: 62 }, { imageFileMachine: 0x8664 }, { prstatusSize: 336 }].map(machineOf)).toEqual([
      X64,
      X64,
      X64,
    ]);
    expect(machineOf({ elfMachine: 8 })).toBeUndefined();
    expect(machineOf({ prstatusSize: 62 })).toBeUndefined();
    expect(convertedMachines()).toContain('64-bit x86');
  });

  it.each(MACHINES.map((machine) => [machine.name, machine] as const))('%s has values that fit each other', (_, m) => {
    expect(m.kpcr.reach).toBeGreaterThanOrEqual(m.kpcr.size);
    expect(m.contextSize % m.contextAlignment).toBe(0);
    expect(m.cpuNotes.some(({ name, type }) => name === 'CORE' && type === NT_PRSTATUS)).toBe(true);
  });
});

describe('a KPCR of x64', () => {
  const at = (offset: number) => `${KPCR + BigInt(offset)}`;
  const sound = { [at(0x18)]: KPCR, [at(0x20)]: PRCB };
  const claim = { prcb: PRCB, selfAt: undefined, currentPrcbAt: undefined };

  it('names itself and its PRCB', () => {
    expect(X64.kpcrDoubt(reader(sound), KPCR, claim)).toBeUndefined();
    expect(X64.kpcrDoubt(reader({ ...sound, [at(0x18)]: 5n }), KPCR, claim)).toBe(
      'KPCR.Self at 0xfffff80412340000 is 0x0000000000000005',
    );
    expect(X64.kpcrDoubt(reader({ ...sound, [at(0x20)]: 6n }), KPCR, claim)).toBe(
      'KPCR.CurrentPrcb at 0xfffff80412340000 is 0x0000000000000006',
    );
    expect(X64.kpcrDoubt(reader({ [at(0x18)]: KPCR }), KPCR, claim)).toBe(
      'its KPCR at 0xfffff80412340000 is not present',
    );
  });

  it('is enough by itself where no PRCB is known', () => {
    expect(X64.kpcrDoubt(reader({ [at(0x18)]: KPCR }), KPCR)).toBeUndefined();
    expect(X64.kpcrDoubt(reader({}), KPCR)).toBe('its KPCR at 0xfffff80412340000 is not present');
  });

  it('has its fields where the KDBG says', () => {
    const moved = { [at(0x40)]: KPCR, [at(0x48)]: PRCB };
    expect(X64.kpcrDoubt(reader(moved), KPCR, { prcb: PRCB, selfAt: 0x40, currentPrcbAt: 0x48 })).toBeUndefined();
  });
});

describe('the interrupt table of x64', () => {
  it('dispatches through gates that are present and lead into the kernel', () => {
    const table = { base: va(0xfffff804_00000000n), size: 0x1000 };
    const gates = Buffer.alloc(0x200);
    const gate = (i: number, type: number, handler: bigint) => {
      gates.writeUInt16LE(Number(handler & 0xffffn), 16 * i);
      gates.writeUInt8(type, 16 * i + 5);
      gates.writeUInt16LE(Number((handler >> 16n) & 0xffffn), 16 * i + 6);
      gates.writeUInt32LE(Number(handler >> 32n), 16 * i + 8);
    };
    gate(0, 0x8e, 0xfffff804_81234560n);
    gate(1, 0x0e, 0xfffff804_81234570n);
    gate(2, 0xee, 0xfffff804_01234580n);
    gate(3, 0x8e, 0x00000004_01234590n);
    expect(X64.interruptHandlers(table, (_, length) => gates.subarray(0, length))).toEqual([
      0xfffff804_81234560n,
      0xfffff804_01234580n,
    ]);
    expect(X64.interruptHandlers(table, () => undefined)).toEqual([]);
  });
});

describe('registers of x64', () => {
  const prstatus = (cs: bigint): X64Registers => {
    const desc = Buffer.alloc(336);
    desc.writeBigUInt64LE(0xfffff804_00001234n, 0xf0);
    desc.writeBigUInt64LE(cs, 0xf8);
    desc.writeBigUInt64LE(0x77n, 0xc0);
    return x64(X64.cpuNotes.find(({ label }) => label === 'NT_PRSTATUS')!.parse(desc, [])!.registers);
  };

  it('are shown by their names, without those that are not known', () => {
    const named = X64.namedRegisters(prstatus(0x10n));
    expect(named.slice(0, 2)).toEqual([
      { name: 'rax', value: 0x77n, bits: 64 },
      { name: 'rbx', value: 0n, bits: 64 },
    ]);
    expect(named.map(({ name }) => name)).toContain('cs');
    expect(named.map(({ name }) => name)).not.toContain('cr3');
    const control = { cr0: 1n, cr2: 2n, cr3: 3n, cr4: 4n };
    expect(X64.namedRegisters({ ...prstatus(0x10n), control }).at(-2)).toEqual({ name: 'cr3', value: 3n, bits: 64 });
  });

  it("have the GS base that is loaded, and the kernel's other one, in a vCPU of Xen", () => {
    const basesOf = (cs: number) => {
      const bytes = Buffer.alloc(X64.xenVcpu!.size);
      bytes.writeUInt16LE(cs, 0x290);
      bytes.writeBigUInt64LE(0xfffff804_00000000n, 0x1420);
      bytes.writeBigUInt64LE(0x7ff0_0000n, 0x1428);
      const { gs, kernelGsBase } = x64(X64.xenVcpu!.parse(bytes)!.registers);
      return [gs.base, kernelGsBase];
    };
    expect(basesOf(0x10)).toEqual([0xfffff804_00000000n, 0x7ff0_0000n]);
    expect(basesOf(0x33)).toEqual([0x7ff0_0000n, 0xfffff804_00000000n]);
  });

  it('are at their places in a migration stream: debug registers by number, CR8 above the lower half of TPR', () => {
    const bytes = Buffer.alloc(1817);
    for (let i = 0; i < 8; i++) bytes.writeBigUInt64BE(BigInt(0xd0 + i), 488 + 8 * i);
    const apic = Buffer.from([0, 0, 0, 0, 0, 0, 0xd5]);
    const parse = (version: number, state: Buffer) =>
      X64.migration!.parse({ version, bytes: state }, { version: 3, bytes: apic });
    const { debug, cr8 } = x64(parse(12, bytes)!);
    expect(debug).toEqual({ dr0: 0xd0n, dr1: 0xd1n, dr2: 0xd2n, dr3: 0xd3n, dr6: 0xd6n, dr7: 0xd7n });
    expect(cr8).toBe(0xdn);
    expect([parse(11, bytes), parse(12, bytes.subarray(1))]).toEqual([undefined, undefined]);
  });

  it('say whether the CPU was started, where they say so at all', () => {
    const on = { cr0: 0x8000_0001n, cr2: 0n, cr3: 0x1ad5n, cr4: 0x20n };
    expect(X64.neverStarted(prstatus(0x10n))).toBe(false);
    expect(X64.neverStarted({ ...prstatus(0x10n), control: { ...on, cr0: 0x10n } })).toBe(true);
    expect(X64.rootRegister({ ...prstatus(0x10n), control: on })).toBe(0x1ad5n);
    expect(X64.pageTables({ ...prstatus(0x10n), control: on })).toMatchObject({ root: 0x1000 });
    expect(X64.pageTables({ ...prstatus(0x10n), control: { ...on, cr4: 0x1020n } })?.mode.name).toBe('5-level');
  });
});

describe('notes of an x64 CPU', () => {
  const parse = (label: string, desc: Buffer) => X64.cpuNotes.find((form) => form.label === label)!.parse(desc, []);
  const qemu = (version: number, size: number, bytes = 448) => {
    const desc = Buffer.alloc(bytes, 1);
    desc.writeUInt32LE(version, 0);
    desc.writeUInt32LE(size, 4);
    return parse('QEMU', desc);
  };

  it('say on which CPU the guest crashed since version 2', () => {
    expect([qemu(1, 448), qemu(2, 448), qemu(2, 440)].map((note) => note?.crashed)).toEqual([
      undefined,
      true,
      undefined,
    ]);
  });

  it('are none where they are shorter than any form, by the file or by themselves', () => {
    expect([qemu(1, 432), qemu(1, 431), qemu(1, 448, 431)].map((note) => note !== undefined)).toEqual([
      true,
      false,
      false,
    ]);
  });

  it('are none where nothing is known of the CPU', () => {
    expect(parse('NT_PRSTATUS', Buffer.alloc(336))).toBeUndefined();
    expect(X64.xenVcpu!.parse(Buffer.alloc(X64.xenVcpu!.size))).toBeUndefined();
  });

  it('of VirtualBox show by bits that are always set that they are what they seem', () => {
    const desc = Buffer.alloc(0x220);
    const note = (flags: bigint, dr7: bigint) => {
      desc.writeBigUInt64LE(flags, 0x88);
      desc.writeBigUInt64LE(dr7, 0x178);
      return parse('VBCPU', desc) !== undefined;
    };
    expect([note(0x202n, 0x400n), note(0x200n, 0x400n), note(0x202n, 0x1n)]).toEqual([true, false, false]);
  });
});

describe('what only some inputs have of an x64 CPU', () => {
  const desc = Buffer.alloc(336);
  desc.writeBigUInt64LE(0xfffff804_00001234n, 0xf0);
  desc.writeBigUInt64LE(0x10n, 0xf8);
  const general = x64(X64.cpuNotes.find(({ label }) => label === 'NT_PRSTATUS')!.parse(desc, [])!.registers);
  const whole: X64Registers = {
    ...general,
    floatingPoint: {
      controlWord: 0x27f,
      statusWord: 0x3800,
      tagWord: 0x80,
      mxcsr: 0x9fc0,
      st: Array.from({ length: 8 }, (_, i) => Buffer.alloc(10, 0x10 + i)),
      xmm: Array.from({ length: 16 }, (_, i) => Buffer.alloc(16, 0x40 + i)),
    },
    debug: { dr0: 0xd0n, dr1: 0xd1n, dr2: 0xd2n, dr3: 0xd3n, dr6: 0xffff0ff0n, dr7: 0x401n },
    systemCalls: { star: 0x23001000000000n, lstar: 0xfffff804_00005000n, cstar: 0xfffff804_00006000n, fmask: 0x4700n },
    cr8: 2n,
  };

  it('is in the frame, whose flags claim it', () => {
    const frame = X64.encodeContext(whole);
    expect(frame.readUInt32LE(0x30)).toBe(0x10001f);
    // CONTEXT.MxCsr and FltSave.MxCsr alike.
    expect([frame.readUInt32LE(0x34), frame.readUInt32LE(0x118)]).toEqual([0x9fc0, 0x9fc0]);
    expect([frame.readUInt16LE(0x100), frame.readUInt16LE(0x102), frame[0x104]]).toEqual([0x27f, 0x3800, 0x80]);
    expect(frame.toString('hex', 0x120, 0x134)).toBe(`${'10'.repeat(10)}${'00'.repeat(6)}${'11'.repeat(4)}`);
    expect([frame[0x1a0], frame[0x29f]]).toEqual([0x40, 0x4f]);
    expect([frame.readBigUInt64LE(0x48), frame.readBigUInt64LE(0x70)]).toEqual([0xd0n, 0x401n]);
  });

  it('is not claimed where it is not known', () => {
    const frame = X64.encodeContext(general);
    expect(frame.readUInt32LE(0x30)).toBe(0x100007);
    expect(frame.subarray(0x100, 0x118).every((byte) => byte === 0)).toBe(true);
    expect(X64.encodeContext({ ...general, debug: whole.debug }).readUInt32LE(0x30)).toBe(0x100017);
  });

  it('comes back from a frame', () => {
    const special = Buffer.alloc(X64.specialRegistersSize);
    const decoded = X64.decodeContext(X64.encodeContext(whole), special, () => undefined);
    expect(decoded?.floatingPoint).toEqual(whole.floatingPoint);
    expect(decoded?.debug).toEqual(whole.debug);
    const less = X64.decodeContext(X64.encodeContext(general), special, () => undefined);
    expect([less?.floatingPoint, less?.debug]).toEqual([undefined, undefined]);
  });

  it('is whole with control and integer registers of this machine', () => {
    const wholeOf = (flags: number) => {
      const frame = X64.encodeContext(whole);
      frame.writeUInt32LE(flags, 0x30);
      return X64.viewContext(frame).complete;
    };
    const flags = [0x100003, 0x10001f, 0xd810005f, 0x100001, 0x100002, 0x10003, 0x110003, 0x100103];
    expect(flags.map(wholeOf)).toEqual([true, true, true, false, false, false, false, false]);
  });

  it('has the tables that its KPCR names, where that can be one', () => {
    const kpcr = Buffer.alloc(X64.kpcr.size);
    const tablesOf = (gdt: bigint, idt: bigint) => {
      kpcr.writeBigUInt64LE(gdt, 0);
      kpcr.writeBigUInt64LE(idt, 0x38);
      const special = X64.patchSpecialRegisters(Buffer.alloc(X64.specialRegistersSize, 0x77), general, kpcr, false);
      return [special.readUInt16LE(0x56), special.readBigUInt64LE(0x58), special.readBigUInt64LE(0x68)];
    };
    const [gdt, idt] = [0xfffff804_00001000n, 0xfffff804_00002000n];
    expect(tablesOf(gdt, idt)).toEqual([0x57, gdt, idt]);
    const kept = [0x7777, 0x7777_7777_7777_7777n, 0x7777_7777_7777_7777n];
    expect([tablesOf(0x1000n, idt), tablesOf(gdt, 0x2000n)]).toEqual([kept, kept]);
    // The CPU's own count.
    const table = (base: bigint, limit: number) => ({ selector: 0x40, limit, flags: 0, base });
    const tables = { ldt: table(0n, 0), tr: table(0n, 0x67), gdt: table(gdt, 0x6f), idt: table(idt, 0xfff) };
    const special = X64.patchSpecialRegisters(Buffer.alloc(0xe0), { ...general, tables }, Buffer.alloc(0x180), false);
    expect([special.readUInt16LE(0x56), special.readBigUInt64LE(0x58)]).toEqual([0x6f, gdt]);
    expect([special.readUInt16LE(0x66), special.readBigUInt64LE(0x68)]).toEqual([0xfff, idt]);
    expect([special.readUInt16LE(0x70), special.readUInt16LE(0x72)]).toEqual([0x40, 0x40]);
  });

  it('is set in the special registers, which else keep what the guest had', () => {
    const original = Buffer.alloc(X64.specialRegistersSize, 0x77);
    const kept = X64.patchSpecialRegisters(original, general, undefined, false);
    const set = X64.patchSpecialRegisters(original, whole, undefined, false);
    const word = (bytes: Buffer, at: number) => bytes.readBigUInt64LE(at);
    const places = [0x20, 0x48, 0xa0, 0xb8, 0xc0, 0xc8, 0xd0];
    expect(places.map((at) => word(kept, at))).toEqual(places.map(() => 0x7777_7777_7777_7777n));
    expect(places.map((at) => word(set, at))).toEqual([
      0xd0n,
      0x401n,
      2n,
      0x23001000000000n,
      0xfffff804_00005000n,
      0xfffff804_00006000n,
      0x4700n,
    ]);
    expect([kept.readUInt32LE(0x74), set.readUInt32LE(0x74)]).toEqual([0x7777_7777, 0x9fc0]);
  });
});
