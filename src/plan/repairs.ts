/** What memory proves to be wrong in a crash dump that is converted, and how it is set right. */
import { Diagnostics } from '../core/errors.ts';
import { hex64 } from '../core/units.ts';
import { DebuggerData, KDBG_PAE } from '../formats/win-kernel.ts';
import { AddressSpace } from '../memory/address-space.ts';
import type { ListFault } from '../memory/list-fault.ts';
import { findCrash } from '../windows/crash.ts';
import { Evidence } from '../windows/evidence.ts';
import { provenMoves, type RegisterMove } from '../windows/exchanged-processors.ts';
import { type Processor, readContextFrame, readDumpedCpus } from '../windows/processors.ts';
import type { Windows } from '../windows/windows.ts';
import type { HeaderFault } from './header-faults.ts';
import { patchedImage } from './patched-image.ts';
import type { PatchSet, Replacement } from './patches.ts';

/** Something that memory shows to be wrong in a dump, set right in the new one. */
export interface Repair {
  /** `header BugCheckCode`, `KDBG`, `registers of processor 2`. */
  what: string;
  before: string;
  after: string;
  /** What shows it. */
  evidence: string;
}

/** A field of the header, or of its list of pages. */
export const repairOf = ({ field, found, expected, evidence }: HeaderFault | ListFault): Repair => ({
  what: `header ${field}`,
  before: found,
  after: expected,
  evidence,
});

/** Puts the KDBG where it is as debuggers need it, and tells what was wrong with it. */
export function patchKdbg({ image: { machine }, space, kdbg }: Windows, patches: PatchSet): Repair[] {
  const repairs: Repair[] = [];
  const block = Buffer.from(kdbg.block);
  if (kdbg.encoded) {
    const evidence = 'decoded with the keys in the kernel, it fits the kernel';
    repairs.push({ what: 'KDBG', before: 'encoded', after: 'decoded', evidence });
  }
  const found = kdbg.fields.PaeEnabled ?? 0;
  const wanted = space.mode.pae ? found | KDBG_PAE : found & ~KDBG_PAE;
  if (machine.pointerSize === 4 && wanted !== found) {
    DebuggerData.write(block, 0, { PaeEnabled: wanted });
    const evidence = 'the page tables through which Windows was found';
    repairs.push({ what: 'KDBG PaeEnabled', before: `${found}`, after: `${wanted}`, evidence });
  }
  return repairs.length > 0 && patches.add('KDBG', kdbg.address, block) ? repairs : [];
}

/**
 * Decodes the KDBG, and moves registers to the processors that they are proved to belong to: to where a writer that
 * went by the numbers of CPUs should have put them. Registers themselves stay as they are.
 *
 * @returns also Windows as the new dump will show it
 */
export function repairMemory(windows: Windows, patches: PatchSet): { windows: Windows; repairs: Repair[] } {
  const repairs = patchKdbg(windows, patches);
  const moves = provenMoves(windows).sort((a, b) => a.to.number - b.to.number);
  const replacements = moves.flatMap((move) => replacementsOf(windows, move));
  if (moves.length === 0 || !patches.addTogether(replacements)) return { windows, repairs };
  repairs.push(...moves.map((move) => repairOfMove(windows, move)));
  return { windows: withMoved(windows, patches), repairs };
}

function replacementsOf({ space, image }: Windows, { from, to, whole }: RegisterMove): Replacement[] {
  const replacements: Replacement[] = [];
  const add = (what: string, virtual: Processor['context'], bytes: Buffer | undefined) => {
    // Else it would not have had registers.
    if (typeof virtual === 'bigint' && bytes) replacements.push({ what, virtual, bytes });
  };
  add(`CONTEXT of processor ${to.number}`, to.context, readContextFrame(space, from));
  if (whole && from.specialRegisters !== undefined) {
    const special = space.read(from.specialRegisters, image.machine.specialRegistersSize);
    add(`special registers of processor ${to.number}`, to.specialRegisters, special);
  }
  return replacements;
}

function repairOfMove(windows: Windows, { from, to, why }: RegisterMove): Repair {
  return {
    what: `registers of processor ${to.number}`,
    before: placeOf(windows, to),
    after: placeOf(windows, from),
    evidence: `those that the dump has for processor ${from.number}: ${why}`,
  };
}

/** What a processor's registers are known by. */
function placeOf({ image: { machine } }: Windows, { cpu }: Processor): string {
  if (!cpu?.registers) return 'unknown';
  const { instructionPointer, stackPointer } = machine.words;
  return `${instructionPointer} ${hex64(machine.instructionPointer(cpu.registers))}, ${stackPointer} ${hex64(machine.stackPointer(cpu.registers))}`;
}

/** What depends on the registers, read again from the memory that the dump will have. */
function withMoved(windows: Windows, { list: patches }: PatchSet): Windows {
  const image = patchedImage(windows.image, { patches, diagnostics: new Diagnostics() });
  const space = new AddressSpace(image, windows.root, windows.space.mode);
  const processors = windows.processors.map((processor) => ({ ...processor, cpu: undefined, cpuBy: undefined }));
  readDumpedCpus(space, processors);
  const crash = findCrash({ ...windows, space, processors }, new Evidence());
  return { ...windows, image, space, processors, crash };
}
