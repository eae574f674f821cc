// What true guests made us change, in the real debugger: it shows the same values as before, and those that were lost.
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type ConvertOptions, convert } from '../../src/operations/convert.ts';
import { askDebugger, debuggerAvailable, modules, openInDebugger, registers, text } from '../debugger/debugger.ts';
import { type ElfOptions, writeElf } from '../guest/elf.ts';
import { buildTrueGuest, type TrueGuest, type TrueGuestOptions } from '../guest/true-guest.ts';
import { roomyFolder } from '../support/folders.ts';

let dir: string;
beforeAll(() => {
  dir = roomyFolder('elf2dmp-real-windows-');
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

async function converted(options: TrueGuestOptions, choices: Partial<ConvertOptions> = {}, elf: ElfOptions = {}) {
  const guest: TrueGuest = buildTrueGuest(options);
  const [input, output] = [join(dir, 'vm.elf'), join(dir, 'vm.dmp')];
  writeFileSync(input, writeElf(guest, elf));
  await convert({ input, output, force: true, ...choices });
  return { guest, output };
}

const CRASH = { code: 0x7e, parameters: [0xffffffff_c0000005n, 2n, 3n, 4n], processor: 1 } as const;
const USER_CODE = '7ff6`12340000';

describe.skipIf(!debuggerAvailable())('the real debugger', () => {
  it('resolves the user memory of the process that crashed, without CPU states', async () => {
    const { output } = await converted({ crash: CRASH, crashInExplorer: true, gone: [] }, {}, { withoutNotes: true });
    const seen = await askDebugger(output, { code: text(`db ${USER_CODE} L4`) });
    expect(seen.code).toMatch(/90 eb fe 90/);
  });

  it('shows the registers of guests whose CPU has no XSAVE', async () => {
    const { guest, output } = await converted({ generation: '7', xsave: false });
    const seen = await askDebugger(output, { first: registers(0), second: registers(1) });
    expect([seen.first, seen.second].map((r) => [r['rip'], r['rsp']])).toEqual(
      guest.truth.processors.map(({ cpu }) => [guest.cpus[cpu]!.regs.rip, guest.cpus[cpu]!.regs.rsp]),
    );
  });

  it.each([
    ['full', '11 23H2', /Full address space is available/],
    ['bitmap', '11 23H2', /Full address space is available/],
    ['active', '2004', /Active memory is available/],
  ] as const)('reads a %s dump of a guest with a secure kernel as any other', async (type, generation, available) => {
    const { guest, output } = await converted({ generation, crash: CRASH }, { type });
    expect(guest.processes.map(({ name }) => name)).toContain('Secure System');
    expect((await openInDebugger(output, ['vertarget'])).opening).toMatch(available);
    const seen = await askDebugger(output, { modules: modules(), crashed: registers(1) });
    expect(seen.crashed['rip']).toBe(guest.truth.captured?.rip);
    expect(seen.modules).toHaveLength(guest.truth.modules.length);
  });
});
