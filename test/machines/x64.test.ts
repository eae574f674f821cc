// The x64 machine's answers to what the rooms above ask.
import { describe, expect, it } from 'vitest';
import { va } from '../../src/core/units.ts';
import { NT_PRSTATUS } from '../../src/formats/elf.ts';
import { convertedMachines, MACHINES, machineOf } from '../../src/machines/index.ts';
import type { ReadVirtual, Registers } from '../../src/machines/machine.ts';
import { X64 } from '../../src/machines/x64/index.ts';

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

describe('registers of x64', () => {
  const prstatus = (cs: bigint): Registers => {
    const desc = Buffer.alloc(336);
    desc.writeBigUInt64LE(0xfffff804_00001234n, 0xf0);
    desc.writeBigUInt64LE(cs, 0xf8);
    desc.writeBigUInt64LE(0x77n, 0xc0);
    return X64.cpuNotes.find(({ label }) => label === 'NT_PRSTATUS')!.parse(desc, [])!.registers;
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

  it('say whether the CPU was started, where they say so at all', () => {
    const on = { cr0: 0x8000_0001n, cr2: 0n, cr3: 0x1ad5n, cr4: 0x20n };
    expect(X64.neverStarted(prstatus(0x10n))).toBe(false);
    expect(X64.neverStarted({ ...prstatus(0x10n), control: { ...on, cr0: 0x10n } })).toBe(true);
    expect(X64.rootRegister({ ...prstatus(0x10n), control: on })).toBe(0x1ad5n);
    expect(X64.pageTables({ ...prstatus(0x10n), control: on })).toMatchObject({ root: 0x1000 });
    expect(X64.pageTables({ ...prstatus(0x10n), control: { ...on, cr4: 0x1020n } })?.mode.name).toBe('5-level');
  });
});
