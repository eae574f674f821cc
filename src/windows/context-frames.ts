/** Whether a processor's frame may be written to: its address comes from guest memory, which may be damaged. */
import { because, Reason } from '../core/reason.ts';
import { hex64, PAGE_SIZE, va } from '../core/units.ts';
import { kernelStructures } from '../formats/win-kernel.ts';
import type { AddressSpace } from '../memory/address-space.ts';
import type { Kdbg } from './kdbg.ts';
import { type Module, moduleOf } from './modules.ts';
import { ownFrame, type Processor } from './processors.ts';

/** The kernel's structures, which no frame can overlap. */
export interface Surroundings {
  space: AddressSpace;
  kdbg: Kdbg;
  processors: readonly Processor[];
  modules: readonly Module[];
}

/** Why `processor.context` is not believed to be a CONTEXT frame; undefined when it is. */
function frameDoubt(surroundings: Surroundings, processor: Processor): Reason | undefined {
  const { space, kdbg, modules } = surroundings;
  const { context } = processor;
  const { machine } = space.image;
  if (context === undefined || context instanceof Reason) return undefined;
  // Where the KDBG says: the PRCB's own frame, which Windows uses before 7, and later where the CPU has no XSAVE.
  const own = kdbg.fields.OffsetPrcbProcStateContext;
  if (!kdbg.fields.OffsetPrcbContext || (own && context === processor.prcb + BigInt(own))) return undefined;
  const doubt = (why: string) => because(`its PRCB points to ${hex64(context)} for its CONTEXT frame, but ${why}`);
  if (context % BigInt(machine.contextAlignment) !== 0n) {
    return doubt(`it is not aligned to ${machine.contextAlignment} bytes`);
  }
  const taken = structures(surroundings).find(
    ({ from, size }) => context < from + BigInt(size) && from < context + BigInt(machine.contextSize),
  );
  if (taken) return doubt(`${taken.what} is there`);
  const frame = space.read(context, machine.contextSize);
  // Writing the frame reports whether that is a loss.
  if (!frame || machine.looksLikeContext(frame)) return undefined;
  const module = moduleOf(modules, context);
  if (module) return doubt(`${module.name} is there, and no CONTEXT`);
  // After the pointer the PRCB keeps the flags that a new frame gets.
  const flags = space
    .read(processor.prcb + BigInt(kdbg.fields.OffsetPrcbContext + machine.pointerSize), 4)
    ?.readUInt32LE();
  if (flags !== undefined && machine.areContextFlags(flags)) return undefined;
  return doubt('what is there looks like no CONTEXT');
}

/** Kernel structures that a damaged pointer must not lead the writer to. */
function structures({ space, kdbg, processors, modules }: Surroundings) {
  const { machine } = space.image;
  const { loaderEntry } = kernelStructures(machine);
  const { KiBugCheckData, KiProcessorBlock, PsLoadedModuleList, PsActiveProcessHead } = kdbg.fields;
  const list = [
    { what: 'the KDBG', from: kdbg.address as bigint, size: kdbg.size },
    { what: 'SharedUserData', from: machine.sharedUserData as bigint, size: PAGE_SIZE },
    ...modules.map((m) => ({ what: `the list entry of ${m.name}`, from: m.entry, size: loaderEntry.size })),
    ...processors.flatMap(({ number, cpu }) => {
      const table = cpu?.registers && machine.interruptTable(cpu.registers);
      return table
        ? [{ what: `the ${machine.words.interruptTable} of processor ${number}`, from: table.base, size: table.size }]
        : [];
    }),
    ...processors.map((p) => ({
      what: `the KPCR of processor ${p.number}`,
      from: p.kpcr as bigint,
      size: machine.kpcr.reach,
    })),
  ];
  const add = (what: string, from: bigint | undefined, size: number) => {
    if (from !== undefined) list.push({ what, from, size });
  };
  add('KiBugCheckData', KiBugCheckData, 5 * machine.pointerSize);
  add('KiProcessorBlock', KiProcessorBlock, machine.pointerSize * processors.length);
  add('PsLoadedModuleList', PsLoadedModuleList, 2 * machine.pointerSize);
  add('PsActiveProcessHead', PsActiveProcessHead, 2 * machine.pointerSize);
  return list;
}

/** Takes the frames that are not believed from their processors, and notes why. */
export function dropDoubtfulFrames(surroundings: Surroundings): void {
  const { processors } = surroundings;
  const doubts = processors.map((processor) => frameDoubt(surroundings, processor));
  processors.forEach((processor, i) => {
    const doubt = doubts[i];
    if (!doubt) return;
    const { space, kdbg } = surroundings;
    const { OffsetPrcbContext: pointerAt } = kdbg.fields;
    const own = space.image.dumpHeader ? undefined : ownFrame(space, kdbg.fields, processor.prcb);
    processor.context = own ?? doubt;
    if (own !== undefined && pointerAt) processor.missingPointer = va(processor.prcb + BigInt(pointerAt));
  });
}
