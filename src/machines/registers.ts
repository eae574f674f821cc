/** Registers of any machine. Only the machine that made them looks inside. */
import type { Arm64Registers } from './arm64/registers.ts';
import type { X64Registers } from './x64/registers.ts';

/** A union over machines; `machine` says which. */
export type Registers = X64Registers | Arm64Registers;
