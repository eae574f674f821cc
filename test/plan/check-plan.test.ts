// A plan whose memory contradicts its header is never good.
import { describe, expect, it } from 'vitest';
import { locateWindows } from '../../src/locate/locator.ts';
import { checkPlan, structureProblems } from '../../src/plan/check-plan.ts';
import { planConversion } from '../../src/plan/conversion.ts';
import { openSource } from '../../src/readers/registry.ts';
import { BufferSource } from '../../src/source/buffer.ts';
import { writeElf } from '../guest/elf.ts';
import { buildGuest, type Guest } from '../guest/guest.ts';
import { x64 } from '../support/registers.ts';

async function planned(change: (guest: Guest) => void = () => undefined) {
  const guest = buildGuest({ decoys: false });
  change(guest);
  const windows = await locateWindows(openSource(new BufferSource(writeElf(guest))));
  const { plan, contexts, diagnostics } = planConversion(windows);
  return { guest, windows, plan, contexts, codes: diagnostics.map((d) => d.code) };
}

describe('the check of a plan', () => {
  it('finds nothing in a sound one', async () => {
    expect((await planned()).codes).toEqual([]);
  });

  it.each([
    [
      'a list of processes that breaks',
      ({ kernel, truth }: Guest) => kernel.u64(kernel.read(truth.psActiveProcessHead, 8).readBigUInt64LE(), 0n),
    ],
    [
      'interrupt tables without gates',
      ({ kernel, truth }: Guest) => kernel.write(truth.processors[0]!.idt, Buffer.alloc(0x1000)),
    ],
  ])('%s is a loss', async (_, change) => {
    expect((await planned(change)).codes).toEqual(['structures-damaged']);
  });

  it('a root that is not in the dump is a loss, and none that the input does not say', async () => {
    const { windows } = await planned();
    const withControl = (change: object | undefined) => {
      const [processor] = windows.processors;
      const registers = x64(processor!.cpu!.registers!);
      const control = change && { ...registers.control!, ...change };
      const cpu = { ...processor!.cpu!, registers: { ...registers, control } };
      return structureProblems({ ...windows, processors: [{ ...processor!, cpu }] }).map(({ code }) => code);
    };
    const lost = [{ cr3: 1n << 40n }, { cr0: 0n }].map(withControl);
    expect([withControl({}), withControl(undefined), ...lost]).toEqual([
      [],
      [],
      ['special-registers'],
      ['special-registers'],
    ]);
  });

  it.each([
    ['no KDBG where the header says', { patches: /^KDBG/ }, /no KDBG is at 0x\w+, which the header names/],
    ['old registers in a PRCB’s frame', { patches: /^CONTEXT/ }, /^processor 0: the dump does not have its registers/],
    ['another list in the header', { field: 0x20 }, /^the header's PsLoadedModuleList is 0x0+1, the KDBG's/],
    ['a root that leads nowhere', { field: 0x10 }, /^the KDBG at 0x\w+ is not there through the header's root 0x1$/],
    ['a processor that the header does not count', { field: 0x34 }, /^the header counts 1 processors, 2 were found$/],
  ] as const)('%s is a loss', async (_, what, message) => {
    const { windows, plan, contexts } = await planned();
    const prefix = Buffer.from(plan.prefix);
    if ('field' in what && what.field === 0x34) prefix.writeUInt32LE(1, what.field);
    else if ('field' in what) prefix.writeBigUInt64LE(1n, what.field);
    const patches = 'patches' in what ? plan.patches.filter((p) => !what.patches.test(p.what)) : plan.patches;
    const [first] = checkPlan(windows, { plan: { ...plan, prefix, patches }, contexts, patched: true });
    expect(first).toMatchObject({ severity: 'loss', code: 'header-contradicted' });
    expect(first!.message).toMatch(message);
  });
});
