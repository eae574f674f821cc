/** Everything that the HTML page shows of one dump, collected while the dump is open. */

import type { Contexts, ShownContext } from '../plan/contexts.ts';
import type { DumpPlan } from '../plan/plan.ts';
import type { Symbols } from '../symbols/symbols.ts';
import { findFault } from '../windows/fault.ts';
import { runsIdleThread } from '../windows/thread-stack.ts';
import type { Windows } from '../windows/windows.ts';
import type { ConversionReport } from './conversion.ts';
import { type FaultStackReport, reportFaultStack } from './fault.ts';
import { type InfoReport, reportGuestInput } from './input.ts';
import { drawMemory, type MemoryPicture } from './memory-picture.ts';
import { Places } from './places.ts';
import { Images } from './processors.ts';
import { type ProcessorStackReport, stacksOf } from './stacks.ts';
import { describeWindows } from './windows.ts';

export interface PageData {
  input: InfoReport['input'];
  /** null where none was found: then `problem` says why. */
  windows: InfoReport['windows'];
  problem: InfoReport['problem'];
  diagnostics: InfoReport['diagnostics'];
  evidence: ConversionReport['evidence'];
  stacks: readonly ProcessorStackReport[];
  /** null where the crash keeps no registers of the code at fault. */
  fault: FaultStackReport | null;
  /** Of each processor, in their order. */
  processors: readonly ProcessorDetails[];
  memory: MemoryPicture | undefined;
  /** Where a dump was made. */
  conversion: ConversionReport | undefined;
}

/** What only the page shows of a processor. */
export interface ProcessorDetails {
  number: number;
  /** Its current thread is its idle thread; null where that is not known. */
  idle: boolean | null;
  /** All that are known, in the debugger's order; values in hex, as wide as the register. */
  registers: readonly { name: string; value: string }[];
}

/** What a report for people shows of a guest; with the plan of its conversion, if there is one. */
export async function describePage(
  windows: Windows,
  contexts: Contexts,
  { plan, symbols }: { plan?: Pick<DumpPlan, 'patches' | 'extents'>; symbols?: Symbols | undefined } = {},
): Promise<Omit<PageData, 'conversion'>> {
  const patched = (plan?.patches ?? []).map(({ physical, bytes }) => ({
    from: physical,
    to: physical + bytes.length,
  }));
  const places = new Places(windows, contexts, new Images(windows, symbols));
  return {
    input: reportGuestInput(windows, contexts, symbols),
    windows: describeWindows(windows, contexts, symbols),
    problem: null,
    diagnostics: windows.image.diagnostics.list,
    evidence: windows.evidence,
    stacks: stacksOf(windows, contexts, { symbols, places }),
    fault: reportFaultStack(windows, findFault(windows), { symbols, places }),
    processors: contexts.shown.map((shown) => detailsOf(windows, shown)),
    memory: await drawMemory(windows, patched, plan?.extents),
  };
}

function detailsOf({ image: { machine }, space, kdbg }: Windows, shown: ShownContext): ProcessorDetails {
  const { number, prcb, cpu } = shown.processor;
  // A captured frame holds no special registers: from zeros none are decoded.
  const registers =
    shown.source === 'captured'
      ? machine.decodeContext(shown.frame, Buffer.alloc(machine.specialRegistersSize), () => undefined)
      : cpu?.registers;
  const known = shown.source !== 'unknown' && registers ? machine.namedRegisters(registers) : [];
  return {
    number,
    idle: runsIdleThread(space, kdbg.fields, prcb) ?? null,
    registers: known.map(({ name, value, bits }) => ({ name, value: value.toString(16).padStart(bits / 4, '0') })),
  };
}
