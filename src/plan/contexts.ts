/**
 * Whose registers each processor shows, and which processor the debugger opens on. Everything that reports or writes
 * registers asks here.
 */

import type { Diagnostic } from '../core/errors.ts';
import { Reason } from '../core/reason.ts';
import { hex64 } from '../core/units.ts';
import type { ContextChoice } from '../options/choices.ts';
import { registerDoubts } from '../windows/exchanged-processors.ts';
import { type Processor, readContextFrame } from '../windows/processors.ts';
import type { Windows } from '../windows/windows.ts';
import type { PatchSet } from './patches.ts';

/**
 * Whose registers a processor shows: its CPU's, those that Windows captured at the bug check, those that a crash dump
 * holds for it; or none are known.
 */
export type ContextSource = 'cpu' | 'captured' | 'dump' | 'unknown';

/** Registers that one processor shows. */
export interface ShownContext {
  processor: Processor;
  source: ContextSource;
  /** A whole CONTEXT of the machine; with `unknown`, one that claims no register. */
  frame: Buffer;
}

/** The registers of all processors, in their order. */
export interface Contexts {
  shown: readonly ShownContext[];
  /** The debugger opens on this one; undefined where no registers are known. */
  opened: ShownContext | undefined;
  /** A conversion has the debugger open on this one. In a crash dump it may be another than `opened`. */
  intended: ShownContext | undefined;
  /** Why a processor does not show what was asked for, or shows nothing. */
  diagnostics: readonly Diagnostic[];
}

/** A crash dump has one set of registers, so that `choice` makes no difference there. */
export function chooseContexts(windows: Windows, choice: ContextChoice): Contexts {
  const { dumpHeader } = windows.image;
  const diagnostics: Diagnostic[] = [];
  const shown = windows.processors.map((processor) => {
    if (dumpHeader) return dumpedContext(windows, processor);
    const { context, warning } = chooseContext(windows, processor, choice);
    if (warning) diagnostics.push(warning);
    return context;
  });
  diagnostics.push(...lossesOf(windows, shown));
  const intended = chooseOpened(windows, shown);
  const opened = dumpHeader ? openedInDump(windows, shown, dumpHeader.ContextRecord) : intended;
  return { shown, opened, intended, diagnostics };
}

/** Registers that are missing, now that it is known which are shown. */
function* lossesOf(windows: Windows, shown: readonly ShownContext[]): Generator<Diagnostic> {
  const { image, processors } = windows;
  const states = image.dumpHeader ? processors.filter(({ cpu }) => cpu) : image.cpus;
  const code = 'no-cpu-states';
  if (states.length === 0 && shown.length > 0 && shown.every(isKnown)) {
    const message = 'the input holds no CPU states: the registers are those that Windows captured';
    yield { severity: 'warning', code, message };
  } else if (states.length === 0) {
    yield { severity: 'loss', code, message: 'the input holds no CPU states' };
  }
  yield* exchangesIn(windows);
  for (const { processor, source } of shown) {
    if (source !== 'unknown') continue;
    yield {
      severity: 'loss',
      code: 'processor-without-state',
      message: `no CPU state belongs to processor ${processor.number} (KPCR ${hex64(processor.kpcr)}): its registers are unknown`,
      where: { prcb: hex64(processor.prcb) },
    };
  }
}

/** In a crash dump; a triage dump has no KPCRs and stacks to tell by. */
function* exchangesIn(windows: Windows): Generator<Diagnostic> {
  const { dumpHeader, triage } = windows.image;
  if (!dumpHeader || triage) return;
  const { exchanged, unconfirmed } = registerDoubts(windows);
  for (const { processor, why } of exchanged) {
    yield {
      severity: 'loss',
      code: 'processor-exchanged',
      message: `processor ${processor.number} shows another one's registers: ${why}`,
      where: { prcb: hex64(processor.prcb) },
    };
  }
  if (unconfirmed.length > 0) {
    const crashed = windows.crash?.processor;
    const doubt = unconfirmed.some(({ number }) => number === crashed?.number)
      ? `, and processor ${crashed?.number}'s the crash`
      : '';
    yield {
      severity: 'warning',
      code: 'registers-unconfirmed',
      message: `nothing in the dump shows that the registers of processors ${numbersOf(unconfirmed)} are their own${doubt}: a writer that goes by the numbers of CPUs, as QEMU does, can give a processor those of another`,
    };
  }
}

const NAMED = 8;

const numbersOf = (processors: readonly Processor[]): string => {
  const shown = processors.slice(0, NAMED).map(({ number }) => `${number}`);
  const more = processors.length - shown.length;
  return more > 0 ? `${shown.join(', ')} and ${more} more` : shown.join(', ');
};

function chooseContext(
  { image: { machine }, crash }: Windows,
  processor: Processor,
  choice: ContextChoice,
): { context: ShownContext; warning?: Diagnostic } {
  const registers = processor.cpu?.registers;
  const captured = crash?.captured.get(processor);
  const atCrash = processor === crash?.processor;
  const wanted =
    captured !== undefined &&
    (choice === 'captured' || (choice === 'auto' && (!registers || (atCrash && captured.atBugCheck))));
  if (wanted && captured.doubt === undefined) {
    return { context: { processor, source: 'captured', frame: captured.bytes } };
  }
  const context: ShownContext = registers
    ? { processor, source: 'cpu', frame: machine.encodeContext(registers) }
    : { processor, source: 'unknown', frame: machine.encodeUnknownContext() };
  // Which processor crashed is unknown perhaps because of its frame.
  const expected = wanted || (choice !== 'cpu' && (atCrash || crash?.processor === undefined));
  // Windows fills the frame of a processor that it stops; others have none.
  if (!captured?.doubt || captured.view.instructionPointer === 0n || !expected) return { context };
  return {
    context,
    warning: {
      severity: 'warning',
      code: 'captured-frame-doubtful',
      message: `processor ${processor.number}${atCrash ? ' crashed, but' : ':'} the frame that Windows captured at ${hex64(captured.address)} cannot be right (${captured.doubt}): ${registers ? "its CPU's later registers are shown" : 'its registers are unknown'}`,
    },
  };
}

/** What the debugger reads from the PRCB of a dump. */
function dumpedContext({ image: { machine }, space, crash }: Windows, processor: Processor): ShownContext {
  const captured = crash?.captured.get(processor);
  const isKnown = processor.cpu?.registers !== undefined || (captured !== undefined && captured.doubt === undefined);
  const frame = isKnown ? readContextFrame(space, processor) : undefined;
  return frame
    ? { processor, source: 'dump', frame }
    : { processor, source: 'unknown', frame: machine.encodeUnknownContext() };
}

const isKnown = ({ source }: ShownContext): boolean => source !== 'unknown';

/** The crashing processor; else one in native code, since on another the debugger would read every CPU as 32-bit. */
function chooseOpened({ image: { machine }, crash }: Windows, shown: readonly ShownContext[]) {
  const known = shown.filter(isKnown);
  return (
    known.find(({ processor }) => processor === crash?.processor) ??
    known.find(
      ({ source, processor: { cpu } }) =>
        source !== 'captured' && cpu?.registers && machine.runsNativeCode(cpu.registers),
    ) ??
    known[0]
  );
}

/** A triage dump opens on the processor whose PRCB it has; its header's context need not be that one's. */
const openedInDump = (windows: Windows, shown: readonly ShownContext[], record: Buffer) =>
  shown.filter(isKnown).find(({ processor }) => processor.number === windows.image.triage?.current) ??
  ownerOf(windows, shown, record) ??
  (shown.some(isKnown) ? shown[0] : undefined);

/**
 * The processor that a header's context belongs to: the first with its stack pointer, which is all that the debugger
 * compares (docs/debugger.md). undefined where none has it.
 */
export function ownerOf(
  { image: { machine } }: Windows,
  shown: readonly ShownContext[],
  record: Buffer,
): ShownContext | undefined {
  const { stackPointer } = machine.viewContext(record);
  return shown.filter(isKnown).find(({ frame }) => machine.viewContext(frame).stackPointer === stackPointer);
}

/** Where a PRCB's pointer to its frame is missing, the debugger shows neither registers nor memory. */
function mendPointer({ number, prcb, missingPointer }: Processor, frame: bigint, patches: PatchSet): void {
  if (missingPointer === undefined) return;
  const pointer = Buffer.alloc(8);
  pointer.writeBigUInt64LE(frame);
  if (!patches.add(`pointer to the CONTEXT of processor ${number}`, missingPointer, pointer)) return;
  patches.diagnostics.add(
    'warning',
    'context-pointer-mended',
    `processor ${number}: its PRCB at ${hex64(prcb)} points to no CONTEXT frame, without which the debugger shows nothing of the dump: in the dump it points to its own at ${hex64(frame)}`,
    { prcb: hex64(prcb) },
  );
}

/** Without its entry in KiProcessorBlock the debugger knows nothing of a processor. */
function mendEntry({ number, prcb, missingEntry }: Processor, pointerSize: 4 | 8, patches: PatchSet): void {
  if (missingEntry === undefined) return;
  const pointer = Buffer.alloc(8);
  pointer.writeBigUInt64LE(prcb);
  const bytes = pointer.subarray(0, pointerSize);
  if (!patches.add(`entry of processor ${number} in KiProcessorBlock`, missingEntry, bytes)) return;
  patches.diagnostics.add(
    'warning',
    'processor-entry-mended',
    `processor ${number}: KiProcessorBlock does not have its PRCB at ${hex64(prcb)}, to which its CPU leads: in the dump it has, at ${hex64(missingEntry)}`,
    { prcb: hex64(prcb) },
  );
}

/** Puts the registers that a processor shows where the debugger takes them from. */
export function patchProcessor(
  { image: { machine }, space, kdbg, crash }: Windows,
  { processor, frame }: ShownContext,
  patches: PatchSet,
): void {
  const { diagnostics } = patches;
  const registers = processor.cpu?.registers;
  const name = `of processor ${processor.number}`;
  mendEntry(processor, machine.pointerSize, patches);
  if (processor.context === undefined || processor.context instanceof Reason) {
    const reason = processor.context ?? `its PRCB at ${hex64(processor.prcb)} points to no CONTEXT frame`;
    diagnostics.add(
      'loss',
      'no-context-frame',
      `processor ${processor.number}: ${reason}: the debugger shows no registers of its CPU`,
      { prcb: hex64(processor.prcb) },
    );
  } else {
    patches.add(`CONTEXT ${name}`, processor.context, frame);
    mendPointer(processor, processor.context, patches);
  }
  if (processor.specialRegisters === undefined) return;
  const { OffsetPrcbProcStateContext: contextAt = 0, OffsetPrcbProcStateSpecialReg: specialAt = 0 } = kdbg.fields;
  const original = space.read(processor.specialRegisters, machine.specialRegistersSize);
  if (!original || (contextAt > specialAt && contextAt - specialAt < machine.specialRegistersSize)) {
    diagnostics.add(
      'loss',
      'no-special-registers',
      `processor ${processor.number}: its special registers at ${hex64(processor.specialRegisters)} can't be set`,
      { virtual: hex64(processor.specialRegisters) },
    );
    return;
  }
  const kpcr = space.read(processor.kpcr, machine.kpcr.size);
  const special = machine.patchSpecialRegisters(original, registers, kpcr, crash !== undefined);
  if (!special.equals(original)) patches.add(`special registers ${name}`, processor.specialRegisters, special);
}
