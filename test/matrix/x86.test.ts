import { describe, expect, it } from 'vitest';
import { debuggerAvailable } from '../debugger/debugger.ts';
import { qemuAvailable } from '../support/qemu.ts';
import { runX86Case, X86_CASES } from './x86.ts';

describe.skipIf(!debuggerAvailable() || !qemuAvailable())('32-bit guests in the real debugger', () => {
  it.each(X86_CASES.map((c) => [c.name, c] as const))('%s', async (_, c) => {
    const { problems, checks } = await runX86Case(c);
    expect(problems).toEqual([]);
    expect(checks).toBeGreaterThan(30);
  });
});
