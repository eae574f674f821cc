/** Modules that Windows unloaded lately: the ring at MmUnloadedDrivers. */

import { isKernelAddress } from '../core/bits.ts';
import { because, type Reason } from '../core/reason.ts';
import { hex64, type VirtualAddress, va } from '../core/units.ts';
import { kernelStructures, MAX_UNLOADED_DRIVERS } from '../formats/win-kernel.ts';
import type { AddressSpace } from '../memory/address-space.ts';
import type { DebuggerFields } from './kdbg.ts';
import { readString } from './modules.ts';

/** Clocks are set back a little: seconds, in units of 100 ns. */
const CLOCK_TOLERANCE = 50_000_000n;

/** A module that is gone. */
export interface UnloadedModule {
  /** As the guest has it: may hold any character. Empty where it is not present. */
  name: string;
  /** Addresses that it had: [from, to). */
  from: VirtualAddress;
  to: VirtualAddress;
  /** FILETIME, UTC, of its unloading; 0 if unknown. */
  time: bigint;
}

/** The last one unloaded first; or the reason why they can't be had. */
export function readUnloadedModules(space: AddressSpace, fields: DebuggerFields): UnloadedModule[] | Reason {
  const { triage } = space.image;
  if (triage) return triage.unloaded.map(({ name, from, to }) => ({ name, from: va(from), to: va(to), time: 0n }));
  const { MmUnloadedDrivers: table, MmLastUnloadedDriver: last } = fields;
  if (!table || !last || !isKernelAddress(table) || !isKernelAddress(last)) return because('the KDBG names no list');
  const ring = space.readPointer(table);
  const count = space.read(last, 4)?.readUInt32LE();
  if (ring === undefined || count === undefined)
    return because(`the list's variables at ${hex64(table)} are not present`);
  // The debugger takes no more either.
  if (count > MAX_UNLOADED_DRIVERS) return because(`the index of the last one at ${hex64(last)} is ${count}`);
  // Windows makes the ring when the first module is unloaded.
  if (ring === 0n && count === 0) return [];
  if (ring === 0n)
    return because(`there is no list at ${hex64(table)}, but ${hex64(last)} has an index in it, ${count}`);
  const { unloadedDriver } = kernelStructures(space.image.machine);
  const bytes = isKernelAddress(ring) ? space.read(ring, MAX_UNLOADED_DRIVERS * unloadedDriver.size) : undefined;
  if (!bytes) return because(`the list at ${hex64(ring)} is not present`);
  const modules: UnloadedModule[] = [];
  for (let i = 1; i <= MAX_UNLOADED_DRIVERS; i++) {
    const index = (count - i + MAX_UNLOADED_DRIVERS) % MAX_UNLOADED_DRIVERS;
    const entry = unloadedDriver.read(bytes, index * unloadedDriver.size);
    if (entry.StartAddress === 0n && entry.EndAddress === 0n) continue;
    if (!isKernelAddress(entry.StartAddress) || entry.EndAddress <= entry.StartAddress) {
      return because(`entry ${index} of the list at ${hex64(ring)} has impossible addresses`);
    }
    modules.push({
      name: readString(space, entry.Name) ?? '',
      from: va(entry.StartAddress),
      to: va(entry.EndAddress),
      time: entry.CurrentTime,
    });
  }
  const times = modules.flatMap(({ time }) => (time === 0n ? [] : [time]));
  if (times.some((time, i) => i > 0 && time > times[i - 1]! + CLOCK_TOLERANCE))
    return because(`entry ${count} of the list at ${hex64(ring)} does not follow the newest one`);
  return modules;
}
