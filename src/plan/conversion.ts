/** What a conversion writes: a pure value with its losses. Planning changes nothing, so it can be done again. */

import { type Diagnostic, Diagnostics, Elf2dmpError } from '../core/errors.ts';
import { Reason } from '../core/reason.ts';
import type { DumpHeader } from '../formats/dump-header.ts';
import type { MemoryImage } from '../memory/image.ts';
import type { Extent } from '../memory/runs.ts';
import type { Compression, ContextChoice, DumpTypeChoice, RamChoice } from '../options/choices.ts';
import type { RamRange } from '../windows/physical-memory.ts';
import type { SharedData } from '../windows/shared-user-data.ts';
import type { Windows } from '../windows/windows.ts';
import { checkPlan } from './check-plan.ts';
import { type Contexts, chooseContexts, patchProcessor } from './contexts.ts';
import { chooseType } from './dump-type.ts';
import { headerFaults } from './header-faults.ts';
import { headerValues } from './header-values.ts';
import { PatchSet } from './patches.ts';
import { type DumpPlan, type PlanOptions, planDump } from './plan.ts';
import { patchKdbg, type Repair, repairMemory, repairOf } from './repairs.ts';
import type { PageSelection } from './select-pages.ts';
import { planTriage, type TriageChoices } from './triage.ts';

/** A dump that is to be written, and what it shows. */
export interface PlannedConversion {
  plan: DumpPlan;
  /** As the dump will show it: of a crash dump that is converted, with the repairs. */
  windows: Windows;
  /** The header's context and exception record are those of `opened`. */
  contexts: Contexts;
  /** What the dump's own header says in the end. */
  header: DumpHeader;
  /** What was wrong in a dump that is converted and is right in the new one. */
  repairs: readonly Repair[];
  /** In a kernel dump or one of active memory: what was kept and why. */
  selection: PageSelection | undefined;
  /** Pages of zeros that were left out because the caller asked for that. */
  zeroPagesDropped: number;
  /** What the dump lacks, or shows other than asked for. What the input lacks is among the image's diagnostics. */
  diagnostics: readonly Diagnostic[];
}

/** How the dump got to disk. */
export type Written =
  | { how: 'copied' }
  /** Its pages share the input's blocks. */
  | { how: 'shared' }
  /** `bytes` are those of the compressed file. */
  | { how: 'compressed'; format: Compression; bytes: number }
  /** The input became the dump; the journal can undo it. */
  | { how: 'in place'; journal: string };

/** A dump that was written. */
export interface Conversion extends PlannedConversion {
  written: Written;
}

/** What a caller of `planConversion` chooses. */
export interface ConversionChoices {
  /** false: leave the guest's memory as it is. Default true. */
  patch?: boolean | undefined;
  /** Default `auto`. */
  context?: ContextChoice | undefined;
  /** Default `auto`. */
  type?: DumpTypeChoice | undefined;
  /** Default `all`. */
  ram?: RamChoice | undefined;
  /** Of a triage dump. */
  triage?: TriageChoices | undefined;
  /** Keeps only these pages. */
  selection?: PageSelection | undefined;
  /** Keeps only these pages of the selection, or of all. */
  kept?: readonly Extent[] | undefined;
  /** Where a bitmap dump's pages begin, see `PlanOptions`. */
  firstPage?: PlanOptions['firstPage'];
}

/** Plans the dump for `found`. Throws `Elf2dmpError` where no such dump is possible. */
export function planConversion(found: Windows, choices: ConversionChoices = {}): PlannedConversion {
  const { image } = found;
  const { selection, kept = selection?.extents } = choices;
  const diagnostics = new Diagnostics();
  const { type, losses } = chooseType(image, choices.type ?? 'auto', choices.triage);
  diagnostics.addAll(losses);
  if (selection) diagnostics.addAll(selection.diagnostics);
  const patches = new PatchSet(found.space, diagnostics);
  const patch = choices.patch ?? true;
  const { dumpHeader } = image;
  const repaired = patch && dumpHeader ? repairMemory(found, patches) : undefined;
  const windows = repaired?.windows ?? found;
  if (repaired) diagnostics.addAll(windows.image.diagnostics.list);
  const contexts = chooseContexts(windows, choices.context ?? 'auto');
  diagnostics.addAll(contexts.diagnostics);
  if (patch && !dumpHeader) {
    patchKdbg(windows, patches);
    for (const context of contexts.shown) patchProcessor(windows, context, patches);
  }
  const faults = patch && dumpHeader ? headerFaults(windows, dumpHeader) : [];
  // Its pages are listed anew in any case.
  const listed = type === 'triage' ? [] : image.listFaults;
  const repairs = [...(repaired?.repairs ?? []), ...faults.map(repairOf), ...listed.map(repairOf)];
  if (!dumpHeader) diagnostics.addAll(lossesOfHeader(windows.shared));
  const { opened } = contexts;
  const values = dumpHeader
    ? { header: dumpHeader, changes: Object.assign({}, ...faults.map(({ change }) => change), unspilled(image)) }
    : headerValues(windows, opened?.frame);
  const plan =
    type === 'triage'
      ? planTriage(windows, { values, patches: patches.list, contexts }, choices.triage ?? {})
      : planDump(image, {
          values,
          patches: patches.list,
          type,
          firstPage: choices.firstPage,
          kept,
          ranges: choices.ram === 'windows' ? windowsRam(windows) : undefined,
        });
  diagnostics.addAll(plan.diagnostics);
  diagnostics.addAll(checkPlan(windows, { plan, contexts, patched: patch }));
  return {
    plan,
    windows,
    contexts,
    header: image.machine.dumpHeader.decode(plan.prefix),
    repairs,
    selection,
    zeroPagesDropped: 0,
    diagnostics: diagnostics.list,
  };
}

/** A context that runs were written over says nothing. */
function unspilled({ dumpHeader, listFaults }: MemoryImage): Partial<DumpHeader> {
  if (!dumpHeader || !listFaults.some(({ spilled }) => spilled)) return {};
  return { ContextRecord: Buffer.alloc(dumpHeader.ContextRecord.length) };
}

/** Fields of the header whose values are unknown. */
function* lossesOfHeader(shared: SharedData): Generator<Diagnostic> {
  for (const [name, value] of [
    ['SystemTime', shared.systemTime],
    ['InterruptTime', shared.interruptTime],
  ] as const) {
    if (value !== undefined) continue;
    yield {
      severity: 'loss',
      code: 'time-unknown',
      message: `SharedUserData.${name} is damaged, or was being updated when the dump was taken: the dump says 0`,
    };
  }
  // Where all of it is unknown, that has been reported.
  if (shared.productType !== 0 || shared.unset !== undefined) return;
  yield {
    severity: 'loss',
    code: 'product-type-damaged',
    message: 'SharedUserData.NtProductType is damaged: the dump says 0',
  };
}

/** What Windows counts as RAM. Throws `Elf2dmpError` where that is unknown. */
export function windowsRam({ image, physicalMemory }: Windows): readonly RamRange[] {
  if (!(physicalMemory instanceof Reason)) return physicalMemory;
  throw new Elf2dmpError({
    code: 'ram-unknown',
    kind: 'corrupt',
    message: `what Windows counts as RAM is unknown: ${physicalMemory}`,
    file: image.file,
    hint: 'convert without --ram windows: then everything in the input is kept',
  });
}
