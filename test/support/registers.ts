/** Registers as those of the machine that a test's guest is of. */
import type { Arm64Registers } from '../../src/machines/arm64/registers.ts';
import type { Registers } from '../../src/machines/registers.ts';
import type { X64Registers } from '../../src/machines/x64/registers.ts';

export function x64(registers: Registers): X64Registers;
export function x64(registers: Registers | undefined): X64Registers | undefined;
export function x64(registers: Registers | undefined): X64Registers | undefined {
  if (registers && !('rip' in registers)) throw new TypeError('registers of another machine');
  return registers;
}

export function arm64(registers: Registers | undefined): Arm64Registers {
  if (!registers || !('pstate' in registers)) throw new TypeError('no registers of this machine');
  return registers;
}
