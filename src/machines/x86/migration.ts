/** The `cpu` section of a migration stream of a 32-bit guest, by QEMU for 32-bit or for 64-bit guests. */
import type { Likelihood, MigratedState, MigrationForm } from '../migration.ts';
import { cpuLayout, cpuMode, PC_STREAM, readCpu } from '../x64/migration.ts';
import type { X64Registers } from '../x64/registers.ts';
import { NO_EXTENDED } from './prstatus.ts';

/** XMM0 to XMM7 are all that 32-bit code has, and YMM0 to YMM7. */
const VECTORS = 8;

function parse(state: MigratedState): X64Registers | undefined {
  const layout = cpuLayout(state);
  if (!layout) return undefined;
  const registers = readCpu(state.bytes, layout);
  const { floatingPoint, more = [] } = registers;
  return {
    ...registers,
    ...NO_EXTENDED,
    more: more.filter(({ name }) => !/^ymm([89]|1\d)$/.test(name)),
    floatingPoint: floatingPoint && { ...floatingPoint, xmm: floatingPoint.xmm.slice(0, VECTORS) },
  };
}

function likelihood(cpus: readonly MigratedState[]): Likelihood {
  if (cpus.some((cpu) => cpuLayout(cpu)?.word === 4)) return 'sure';
  const modes = cpus.map(cpuMode);
  if (modes.includes('long')) return 'never';
  return modes.includes('paging') ? 'likely' : 'unlikely';
}

/** See `Machine.migration`. */
export const MIGRATION: MigrationForm = { ...PC_STREAM, likelihood, parse };
