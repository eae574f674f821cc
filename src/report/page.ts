/** Everything that the HTML page shows of one dump, collected while the dump is open. */

import type { Contexts } from '../plan/contexts.ts';
import type { DumpPlan } from '../plan/plan.ts';
import type { Symbols } from '../symbols/symbols.ts';
import type { Windows } from '../windows/windows.ts';
import type { ConversionReport } from './conversion.ts';
import { type InfoReport, reportInput } from './input.ts';
import { drawMemory, type MemoryPicture } from './memory-picture.ts';
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
  memory: MemoryPicture | undefined;
  /** Where a dump was made. */
  conversion: ConversionReport | undefined;
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
  return {
    input: reportInput(windows.image),
    windows: describeWindows(windows, contexts, symbols),
    problem: null,
    diagnostics: windows.image.diagnostics.list,
    evidence: windows.evidence,
    stacks: stacksOf(windows, contexts, symbols),
    memory: await drawMemory(windows, patched, plan?.extents),
  };
}
