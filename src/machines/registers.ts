/** Registers of any machine. Only the machine that made them looks inside. */
import type { X64Registers } from './x64/registers.ts';

/** A union over machines; `machine` says which. */
export type Registers = X64Registers;
