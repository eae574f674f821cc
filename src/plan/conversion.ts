import { Elf2dmpError } from '../core/errors.ts';
import { Reason } from '../core/reason.ts';
import type { Compression } from '../options/choices.ts';
import type { CallOptions } from '../options/values.ts';
import type { RamRange } from '../windows/physical-memory.ts';
import type { Windows } from '../windows/windows.ts';
import { type Contexts, chooseContexts, patchProcessor } from './contexts.ts';
import { headerValues } from './header-values.ts';
import { PatchSet } from './patches.ts';
import { type DumpPlan, type PlanOptions, planDump } from './plan.ts';
import type { PageSelection } from './select-pages.ts';

export interface Conversion {
  plan: DumpPlan;
  /** The header's context and exception record are those of `opened`. */
  contexts: Contexts;
  /** Of the header's exception record; 0 where no registers are known. */
  exceptionAddress: bigint;
  /** Its pages share the input's blocks. */
  sharesInput: boolean;
  /** Of a kernel dump or one of active memory: what was kept and why. */
  selection?: PageSelection;
  zeroPagesDropped?: number;
  /** `bytes`: of the compressed file. */
  compression?: { format: Compression; bytes: number };
  /** The journal of a file converted in place. */
  journal?: string;
}

/** What is to be written for `windows`. Adds what can't be set to the diagnostics. */
export function planConversion(
  windows: Windows,
  options: Pick<CallOptions<'convert'>, 'patch' | 'context' | 'type' | 'ram'> &
    Pick<PlanOptions, 'firstPage' | 'kept'> = {},
): Conversion {
  const { image, space, kdbg, shared } = windows;
  const { machine, diagnostics } = image;
  const contexts = chooseContexts(windows, options.context ?? 'auto');
  for (const { severity, code, message } of contexts.warnings) diagnostics.add(severity, code, message);
  const patches = new PatchSet(space, diagnostics);
  if (options.patch ?? true) {
    if (kdbg.encoded) patches.add('KDBG', kdbg.address, kdbg.block);
    for (const context of contexts.shown) patchProcessor(windows, context, patches);
  }
  for (const [name, value] of [
    ['SystemTime', shared.systemTime],
    ['InterruptTime', shared.interruptTime],
  ] as const) {
    if (value === undefined) {
      diagnostics.add(
        'loss',
        'time-unknown',
        `SharedUserData.${name} is damaged, or was being updated when the dump was taken: the dump says 0`,
      );
    }
  }
  if (shared.productType === 0) {
    diagnostics.add('loss', 'product-type-damaged', 'SharedUserData.NtProductType is damaged: the dump says 0');
  }
  const { opened } = contexts;
  const exceptionAddress = opened ? machine.viewContext(opened.frame).instructionPointer : 0n;
  const plan = planDump(
    image,
    headerValues(windows, opened?.frame),
    patches.list,
    {
      type: options.type ?? 'auto',
      firstPage: options.firstPage,
      kept: options.kept,
      ranges: options.ram === 'windows' ? windowsRam(windows) : undefined,
    },
    diagnostics,
  );
  return { plan, contexts, exceptionAddress, sharesInput: false };
}
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
