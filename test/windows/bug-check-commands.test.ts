import { expect, it } from 'vitest';
import { commandsFor } from '../../src/windows/bug-check-commands.ts';
import { BUG_CHECK_NAMES } from '../../src/windows/bug-check-names.ts';

const P = [0x10n, 0xffff8000_00000020n, 0xffff8000_00000030n, 0xffff8000_00000040n];
const typed = (code: number, parameters = P) => commandsFor(code, parameters).map(({ command }) => command);

it('every bug check has one to three commands, whatever its parameters', () => {
  for (const code of BUG_CHECK_NAMES.keys()) {
    for (const parameters of [P, [0n, 0n, 0n, 0n], []]) {
      const commands = typed(code, parameters);
      expect(commands.length, code.toString(16)).toBeLessThanOrEqual(3);
      expect(commands.join(), code.toString(16)).not.toMatch(/[{}]|0x0\b/);
    }
    expect(typed(code).length, code.toString(16)).toBeGreaterThan(0);
  }
});

it('parameters are where the command wants them', () => {
  expect(typed(0x3b)).toEqual(['.cxr 0xffff800000000030; k', 'ub 0xffff800000000020 L8; u 0xffff800000000020 L2']);
  expect(typed(0x1000007e)).toEqual(['.exr 0xffff800000000030', '.cxr 0xffff800000000040; k']);
});

it('a command whose parameter is 0 is left out', () => {
  expect(typed(0x50, [0x10n, 0n, 0n, 0n])).toEqual(['!pte 0x10']);
});
