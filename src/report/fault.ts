/** The registers at the fault that a crash itself keeps, as plain data. */
import { hex64 } from '../core/units.ts';
import type { Symbols } from '../symbols/symbols.ts';
import type { Fault } from '../windows/fault.ts';
import { frameAt, walkFrom } from '../windows/stacks.ts';
import type { Windows } from '../windows/windows.ts';
import { reportFramePlace } from './frame-place.ts';
import type { Places } from './places.ts';
import type { CodePlace } from './processors.ts';
import { type FrameReport, reportFrames } from './stack-frames.ts';

/** Where a crash keeps the registers of the code at fault. */
export interface FaultReport {
  /** In the debugger `.cxr` or `.trap` with the address shows them. */
  from: 'context' | 'trap-frame';
  address: string;
  /** Number of the bug check's parameter that names it; null: it was found on the stack of the crash. */
  parameter: number | null;
  /** What else says the same. */
  witness: string;
  instructionPointer: string;
  stackPointer: string;
  /** Where the instruction lies; null outside all modules. */
  at: CodePlace | null;
}

/** The same, with all that is known there. */
export interface FaultStackReport extends FaultReport {
  /** Those that the record holds, in hex, as wide as each register. */
  registers: readonly { name: string; value: string }[];
  frames: FrameReport[];
  /** Why the stack goes no further. */
  end: string;
  /** Why frames were guessed. */
  doubts: readonly string[];
}

/** Which processor's memory the fault is looked at in. */
const processorOf = ({ crash, processors }: Windows) => crash?.processor ?? processors[0];

/** null where the crash keeps none, or nothing bears them out. */
export function reportFault(windows: Windows, fault: Fault | undefined, symbols?: Symbols): FaultReport | null {
  const processor = processorOf(windows);
  if (!fault || !processor) return null;
  const { from, address, parameter = null, witness, state } = fault;
  return {
    from,
    address: hex64(address),
    parameter,
    witness,
    instructionPointer: hex64(state.instructionPointer),
    stackPointer: hex64(state.stackPointer),
    at: reportFramePlace(frameAt(windows, processor, state.instructionPointer, symbols)),
  };
}

/** As `reportFault`, with registers and stack. */
export function reportFaultStack(
  windows: Windows,
  fault: Fault | undefined,
  { symbols, places }: { symbols: Symbols | undefined; places: Places },
): FaultStackReport | null {
  const report = reportFault(windows, fault, symbols);
  const processor = processorOf(windows);
  if (!fault || !report || !processor) return null;
  const { frames, end, doubts } = walkFrom(windows, processor, fault.state, { symbols });
  return {
    ...report,
    registers: fault.registers.map(({ name, value, bits }) => ({
      name,
      value: value.toString(16).padStart(bits / 4, '0'),
    })),
    frames: reportFrames(frames, places),
    end,
    doubts,
  };
}
