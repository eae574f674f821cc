/** Where interrupt tables lead: to whom an exception or interrupt goes first. */
import { hex64 } from '../core/units.ts';
import type { Windows } from '../windows/windows.ts';
import type { AddressPlace, Places } from './places.ts';

/** A processor's interrupt table. */
export interface InterruptsReport {
  processor: number;
  base: string;
  /** Vectors with a gate. */
  gates: number;
  /**
   * Those that do not lead into the kernel's image. On Windows before 10, devices' interrupts are some: their
   * KINTERRUPTs, in no module, hold the code that dispatches them.
   */
  elsewhere: { vector: number; handler: string; place: AddressPlace | null }[];
}

/** Of the processors whose registers tell their table, if it is present. Machines of ARM have none. */
export function reportInterrupts({ image: { machine }, space, kernel, processors }: Windows, places: Places) {
  const end = kernel.base + BigInt(kernel.size);
  return processors.flatMap(({ number: processor, cpu }): InterruptsReport[] => {
    const table = cpu?.registers && machine.interruptTable(cpu.registers);
    const gates = table && machine.interruptGates(table, space.reader);
    if (!gates || gates.length === 0) return [];
    const elsewhere = gates.filter(({ handler }) => handler < kernel.base || handler >= end);
    return [
      {
        processor,
        base: hex64(table.base),
        gates: gates.length,
        elsewhere: elsewhere.map(({ vector, handler }) => ({
          vector,
          handler: hex64(handler),
          place: places.of(handler),
        })),
      },
    ];
  });
}
