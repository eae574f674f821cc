/** Processors that show the registers of others. */
import { hex64 } from '../core/units.ts';
import type { Registers } from '../machines/machine.ts';
import type { Processor } from '../windows/processors.ts';
import { currentThreadStack, isOnStack } from '../windows/thread-stack.ts';
import type { Windows } from '../windows/windows.ts';

/** A processor, and what about its registers belongs to another one. */
export interface Exchanged {
  processor: Processor;
  /** A clause: `its descriptor tables are those of processor 2`. */
  why: string;
}

type Running = Processor & { registers: Registers };

/**
 * A processor's registers name its KPCR and its descriptor tables, and lead to its thread's stack. Nothing is said
 * where they name none: not all writers of dumps save all of them.
 */
export function exchangedProcessors(windows: Windows): Exchanged[] {
  const running = windows.processors.flatMap((p): Running[] =>
    p.cpu?.registers ? [{ ...p, registers: p.cpu.registers }] : [],
  );
  return running.flatMap((processor) => {
    const why = ownerElsewhere(windows, processor, running);
    return why === undefined ? [] : [{ processor, why }];
  });
}

function ownerElsewhere(windows: Windows, processor: Running, running: readonly Running[]): string | undefined {
  const { machine } = windows.image;
  const { reader } = windows.space;
  const others = running.filter(({ number }) => number !== processor.number);
  const named = machine.kpcrCandidates(processor.registers, reader);
  const byKpcr = named.includes(processor.kpcr) ? undefined : others.find(({ kpcr }) => named.includes(kpcr));
  if (byKpcr) return `they name the KPCR of processor ${byKpcr.number}, ${hex64(byKpcr.kpcr)}`;
  const runs = ({ kpcr }: Processor) => machine.runsKpcr(processor.registers, reader, kpcr);
  const byTables = runs(processor) === false ? others.find((other) => runs(other) === true) : undefined;
  if (byTables) return `their descriptor tables are those of processor ${byTables.number}`;
  const byStack = strayed(windows, processor) ? others.find((o) => isOnStackOf(windows, processor, o)) : undefined;
  // A stack that was just handed over looks the same; then the other one is still on its own.
  if (byStack && strayed(windows, byStack)) return `they lead to the stack of processor ${byStack.number}`;
  return undefined;
}

/** Its stack pointer is the kernel's, and not on the stack of the thread that it runs. */
const strayed = (windows: Windows, processor: Running): boolean =>
  !windows.image.machine.isUserMode(processor.registers) && !isOnStackOf(windows, processor, processor);

function isOnStackOf({ image, space, kdbg }: Windows, { registers }: Running, { prcb }: Processor): boolean {
  const bounds = currentThreadStack(space, kdbg.fields, prcb);
  return bounds !== undefined && isOnStack(bounds, image.machine.stackPointer(registers));
}
