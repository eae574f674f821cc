import type { ContextChoice } from '../choices.ts';
import { hex64 } from '../core/units.ts';
import type { Processor } from '../windows/processors.ts';
import type { Windows } from '../windows/windows.ts';
import type { PatchSet } from './patches.ts';

/** Registers that the dump shows for a processor. */
export interface ShownContext {
  processor: Processor;
  source: 'cpu' | 'captured' | 'unknown';
  frame: Buffer;
}

/** The registers that each processor shows. */
export const showContexts = (windows: Windows, choice: ContextChoice): ShownContext[] =>
  windows.processors.map((processor) => chooseContext(windows, processor, choice));
/** Decides whose registers a processor shows. */
export function chooseContext({ image, crash }: Windows, processor: Processor, choice: ContextChoice): ShownContext {
  const { machine, diagnostics } = image;
  const registers = processor.cpu?.registers;
  const captured = crash?.captured.get(processor);
  const usable = captured !== undefined && captured.doubt === undefined;
  const wanted =
    choice === 'captured' ||
    (choice === 'auto' && (!registers || (processor === crash?.processor && captured?.atBugCheck)));
  if (usable && wanted) return { processor, source: 'captured', frame: captured.bytes };
  if (wanted && captured && processor === crash?.processor) {
    diagnostics.add(
      'warning',
      'captured-frame-doubtful',
      `processor ${processor.number} crashed, but the frame that Windows captured at ${hex64(processor.context ?? 0n)} does not hold up (${captured.doubt}): its CPU's later registers are shown`,
    );
  }
  if (registers) return { processor, source: 'cpu', frame: machine.encodeContext(registers) };
  return { processor, source: 'unknown', frame: machine.encodeUnknownContext() };
}

/** Puts the registers that a processor shows where the debugger takes them from. */
export function patchProcessor(
  { image, space, kdbg, bugCheck }: Windows,
  { processor, frame }: ShownContext,
  patches: PatchSet,
): void {
  const { machine, diagnostics } = image;
  const registers = processor.cpu?.registers;
  const name = `of processor ${processor.number}`;
  if (processor.context === undefined) {
    const reason = processor.contextDoubt ?? `its PRCB at ${hex64(processor.prcb)} points to no CONTEXT frame`;
    diagnostics.add(
      'loss',
      'no-context-frame',
      `processor ${processor.number}: ${reason}: the debugger shows no registers of its CPU`,
      { prcb: hex64(processor.prcb) },
    );
  } else {
    patches.add(`CONTEXT ${name}`, processor.context, frame);
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
  const special = machine.patchSpecialRegisters(original, registers, kpcr, bugCheck !== undefined);
  if (!special.equals(original)) patches.add(`special registers ${name}`, processor.specialRegisters, special);
}
