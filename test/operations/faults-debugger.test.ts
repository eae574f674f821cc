// Registers at the fault: what the debugger shows with `.trap` and `.cxr` at the addresses that a crash names.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { convert } from '../../src/operations/convert.ts';
import { stacks } from '../../src/operations/stacks.ts';
import { askDebugger, debuggerAvailable, text } from '../debugger/debugger.ts';
import { writeArm64Elf } from '../guest/arm64-elf.ts';
import { writeElf } from '../guest/elf.ts';
import { faultingArm64Guest, faultingGuest, faultingGuest32, RECORDS } from '../guest/fault-records.ts';

const dir = mkdtempSync(join(tmpdir(), 'elf2dmp-faults-'));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

describe.runIf(debuggerAvailable())('the debugger', () => {
  it.each(Object.keys(RECORDS) as (keyof typeof RECORDS)[])('shows the same registers and stack: %s', async (name) => {
    const { guest } = faultingGuest(name);
    const [input, output] = [join(dir, 'vm.elf'), join(dir, 'vm.dmp')];
    writeFileSync(input, writeElf(guest));
    await convert({ input, output, force: true });
    const { fault } = await stacks({ input });
    const command = `${fault!.from === 'context' ? '.cxr' : '.trap'} ${fault!.address}`;
    const { shown, stack } = await askDebugger(output, { shown: text(command), stack: text('k') });
    const registers = Object.fromEntries(
      [...shown.matchAll(/\b(r[a-z0-9]+|efl|[c-g]s|ss)=([0-9a-f]+)/g)].map((match) => [
        match[1]!,
        BigInt(`0x${match[2]}`),
      ]),
    );
    for (const { name: register, value } of fault!.registers) {
      // The debugger prints neither x87 nor debug registers here; of a trap frame, flags in words alone.
      if (registers[register] === undefined) expect(register).toMatch(/^(st|xmm|mxcsr|fp|dr|efl|[cs]s$)/);
      else expect([register, registers[register]]).toEqual([register, BigInt(`0x${value}`)]);
    }
    const frames = [...stack.matchAll(/^([0-9a-f`]{17}) ([0-9a-f`]{17}) /gm)].map((match) =>
      match.slice(1, 3).map((field) => `0x${field.replace('`', '')}`),
    );
    expect(frames).toEqual(fault!.frames.map(({ stackPointer, returnAddress }) => [stackPointer, returnAddress]));
  });

  it.each<[string, () => Buffer]>([
    ['ARM64', () => writeArm64Elf(faultingArm64Guest().guest)],
    ['32-bit x86', () => writeElf(faultingGuest32(0x8e).guest)],
  ])('shows the same registers of a trap frame: %s', async (_, fileOf) => {
    const [input, output] = [join(dir, 'vm.elf'), join(dir, 'vm.dmp')];
    writeFileSync(input, fileOf());
    await convert({ input, output, force: true });
    const { fault } = await stacks({ input });
    const command = `.trap ${fault!.address}`;
    const { shown } = await askDebugger(output, { shown: text(command) });
    const registers = new Map(
      [...shown.matchAll(/\b([a-z]\w*)=([0-9a-f]+)/g)].map((match) => [match[1]!, BigInt(`0x${match[2]}`)]),
    );
    expect(fault!.registers.length).toBeGreaterThan(10);
    for (const { name, value } of fault!.registers)
      expect([name, registers.get(name)]).toEqual([name, BigInt(`0x${value}`)]);
  });
});
