import { describe, expect, it } from 'vitest';
import { debuggerAvailable } from '../debugger/debugger.ts';
import { qemuAvailable } from '../support/qemu.ts';
import { CASES } from './cases.ts';
import { runCase } from './run.ts';

// Each case: a guest in a real QEMU, QEMU's own dump, our conversion, and what the real debugger shows.
describe.skipIf(!debuggerAvailable() || !qemuAvailable())('guests in the real debugger', () => {
  it.each(CASES.filter((c) => !c.slow).map((c) => [c.name, c] as const))('%s', async (_, c) => {
    const { problems, checks } = await runCase(c);
    expect(problems).toEqual([]);
    // A refusal has little to compare.
    expect(checks).toBeGreaterThan(c.exitCode === 5 ? 1 : 30);
  });
});
