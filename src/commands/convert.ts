/** The main job: open, locate, plan, emit. */
import { Elf2dmpError } from '../core/errors.ts';
import { hex64 } from '../core/units.ts';
import { checkOutput, emitCopy } from '../dump/emit.ts';
import { PatchSet } from '../dump/patches.ts';
import { type DumpPlan, planDump } from '../dump/plan.ts';
import { LIVE_SYSTEM_DUMP } from '../formats/win-dump.ts';
import { type LocateOptions, locateWindows, type Windows } from '../locate/locator.ts';
import type { Processor } from '../locate/processors.ts';
import { openImage } from '../readers/registry.ts';
import { VERSION } from '../version.ts';
import { type ConversionReport, reportDump, reportInput, reportProcessors, reportWindows, TOOL } from './report.ts';

export interface ConvertOptions extends LocateOptions {
  input: string;
  output: string;
  /** Replace an existing output. */
  force?: boolean | undefined;
  /** Fail, and write nothing, when anything would be lost. */
  strict?: boolean | undefined;
  /** false: leave the guest's memory as it is, so without decoded KDBG and without registers in the PRCBs. */
  patch?: boolean | undefined;
  signal?: AbortSignal | undefined;
  onProgress?: ((progress: Progress) => void) | undefined;
}

export type Progress = { phase: 'open' } | { phase: 'locate' } | { phase: 'write'; done: number; total: number };

/** Converts one dump. Throws `Elf2dmpError`; then nothing was written under the output's name. */
export async function convert(options: ConvertOptions): Promise<ConversionReport> {
  const started = performance.now();
  const { input, output, force = false, onProgress } = options;
  onProgress?.({ phase: 'open' });
  const image = openImage(input);
  try {
    const target = await checkOutput(output, input, force);
    onProgress?.({ phase: 'locate' });
    const windows = locateWindows(image, options);
    options.signal?.throwIfAborted();
    const shown = headerProcessor(windows.processors);
    const plan = planConversion(windows, shown, options.patch ?? true);
    if (options.strict) refuseLosses(windows);
    await emitCopy(plan, image, target, {
      force,
      signal: options.signal,
      onProgress: onProgress && ((done, total) => onProgress({ phase: 'write', done, total })),
    });
    return {
      tool: TOOL,
      outcome: image.diagnostics.losses.length > 0 ? 'losses' : 'good',
      input: reportInput(image),
      windows: reportWindows(windows),
      processors: reportProcessors(windows),
      dump: reportDump(output, plan, windows.bugCheck?.code ?? LIVE_SYSTEM_DUMP, shown?.number),
      seconds: Math.round(performance.now() - started) / 1000,
      diagnostics: image.diagnostics.list,
      evidence: windows.evidence,
    };
  } finally {
    image.close();
  }
}

/** The processor whose registers the header shows: the one that crashed if the input says so, else the first. */
function headerProcessor(processors: readonly Processor[]): Processor | undefined {
  const known = processors.filter((p) => p.cpu?.registers);
  return known.find((p) => p.cpu?.crashed) ?? known[0];
}

/** What is to be written for `windows`. Adds what can't be set to the diagnostics. */
export function planConversion(windows: Windows, shown: Processor | undefined, patchMemory: boolean): DumpPlan {
  const { image, space, kdbg, version, shared, bugCheck } = windows;
  const { machine, diagnostics } = image;
  const patches = new PatchSet(space, diagnostics);
  if (patchMemory) {
    if (kdbg.encoded) patches.add('KDBG', kdbg.address, kdbg.block);
    for (const processor of windows.processors) patchProcessor(windows, processor, patches);
  }
  const registers = shown?.cpu?.registers;
  for (const [name, value] of [
    ['SystemTime', shared.systemTime],
    ['InterruptTime', shared.interruptTime],
  ] as const) {
    if (value === undefined) {
      diagnostics.add(
        'loss',
        'time-torn',
        `SharedUserData.${name} was being updated when the dump was taken: the dump says 0`,
      );
    }
  }
  const lastNumber = windows.processors.reduce((last, p) => Math.max(last, p.number), -1);
  return planDump(
    image,
    {
      majorVersion: version.majorVersion,
      build: version.build,
      directoryTableBase: windows.root,
      pfnDatabase: kdbg.fields.MmPfnDatabase ?? 0n,
      psLoadedModuleList: kdbg.fields.PsLoadedModuleList ?? 0n,
      psActiveProcessHead: kdbg.fields.PsActiveProcessHead ?? 0n,
      machine: machine.imageFileMachine,
      processors: lastNumber + 1,
      bugCheck: bugCheck ?? { code: LIVE_SYSTEM_DUMP, parameters: [0n, 0n, 0n, 0n] },
      kdDebuggerDataBlock: kdbg.address,
      context: registers && machine.encodeContext(registers),
      exceptionAddress: registers ? machine.instructionPointer(registers) : 0n,
      systemTime: shared.systemTime ?? 0n,
      systemUpTime: shared.interruptTime ?? 0n,
      productType: shared.productType,
      suiteMask: shared.suiteMask,
      kdSecondaryVersion: version.kdSecondaryVersion,
      comment: `Converted by elf2dmp ${VERSION} from a QEMU guest memory dump`,
    },
    patches.list,
    diagnostics,
  );
}

/** Puts a CPU's registers where the debugger takes them from. */
function patchProcessor({ image, space, kdbg }: Windows, processor: Processor, patches: PatchSet): void {
  const { machine, diagnostics } = image;
  const registers = processor.cpu?.registers;
  const name = `of processor ${processor.number}`;
  if (processor.context === undefined) {
    diagnostics.add(
      'loss',
      'no-context-frame',
      `processor ${processor.number}: its PRCB at ${hex64(processor.prcb)} points to no CONTEXT frame, so the debugger shows no registers for it`,
      {
        prcb: hex64(processor.prcb),
      },
    );
  } else {
    patches.add(
      `CONTEXT ${name}`,
      processor.context,
      registers ? machine.encodeContext(registers) : machine.encodeUnknownContext(),
    );
  }
  if (!registers || processor.specialRegisters === undefined) return;
  const { OffsetPrcbProcStateContext: contextAt = 0, OffsetPrcbProcStateSpecialReg: specialAt = 0 } = kdbg.fields;
  const original = space.read(processor.specialRegisters, machine.specialRegistersSize);
  if (!original || (contextAt > specialAt && contextAt - specialAt < machine.specialRegistersSize)) {
    diagnostics.add(
      'loss',
      'no-special-registers',
      `processor ${processor.number}: its special registers at ${hex64(processor.specialRegisters)} can't be set`,
      {
        virtual: hex64(processor.specialRegisters),
      },
    );
    return;
  }
  patches.add(
    `special registers ${name}`,
    processor.specialRegisters,
    machine.patchSpecialRegisters(original, registers),
  );
}

function refuseLosses({ image }: Windows): void {
  const { losses } = image.diagnostics;
  if (losses.length === 0) return;
  throw new Elf2dmpError({
    code: 'strict-losses',
    kind: 'losses',
    message: `the dump would lack ${losses.length === 1 ? 'something' : `${losses.length} things`}, and --strict was given: nothing was written`,
    file: image.file,
    attempts: losses.map((d) => d.message),
    hint: 'without --strict the dump is written, with exit code 3',
  });
}
