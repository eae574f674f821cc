/** Whether a processor's frame may be written to: its address comes from guest memory, which may be damaged. */
import { isKernelAddress } from '../core/bits.ts';
import { countOf } from '../core/by-key.ts';
import { RangesFound } from '../core/ranges-found.ts';
import { because, Reason } from '../core/reason.ts';
import { hex, hex64, PAGE_SIZE, va } from '../core/units.ts';
import { kernelStructures } from '../formats/win-kernel.ts';
import type { AddressSpace } from '../memory/address-space.ts';
import type { Kdbg } from './kdbg.ts';
import { type Module, moduleOf } from './modules.ts';
import { ownFrame, type Processor } from './processors.ts';
import { currentThread, currentThreadStack } from './thread-stack.ts';

/** The kernel's structures, which no frame can overlap. */
export interface Surroundings {
  space: AddressSpace;
  kdbg: Kdbg;
  processors: readonly Processor[];
  modules: readonly Module[];
}

/** Why `processor.context` is not believed to be a CONTEXT frame; undefined when it is. */
function frameDoubt(
  { space, kdbg, modules }: Surroundings,
  others: OtherPlaces,
  processor: Processor,
): Reason | undefined {
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
  const taken = others.structures.first(context, machine.contextSize);
  if (taken) return doubt(`${taken.what} is there`);
  const sharing = others.frames.all(context, machine.contextSize).find(({ owner }) => owner !== processor);
  if (sharing) return doubt(`the PRCB of processor ${sharing.owner.number} points to ${hex64(sharing.from)}`);
  const frame = space.read(context, machine.contextSize);
  // Writing the frame reports whether that is a loss.
  if (!frame) return undefined;
  const isUnused = frame.every((byte) => byte === 0);
  if (!isUnused && machine.looksLikeContext(frame)) return undefined;
  const module = moduleOf(modules, context);
  if (module) return doubt(`${module.name} is there, and no CONTEXT`);
  if (!isUnused) return doubt('what is there looks like no CONTEXT');
  const unproven = unusedDoubt({ space, kdbg, others }, processor, context);
  return unproven === undefined ? undefined : doubt(`zeros are there, and ${unproven}`);
}

const inPage = (address: bigint): number => Number(address & BigInt(PAGE_SIZE - 1));

/** Why zeros are not a frame that was never used, as a clause: what the PRCB and the other processors say of it. */
function unusedDoubt(
  { space, kdbg: { fields }, others }: Pick<Surroundings, 'space' | 'kdbg'> & { others: OtherPlaces },
  processor: Processor,
  context: bigint,
): string | undefined {
  const { machine } = space.image;
  // After the pointer the PRCB keeps the flags that a new frame gets, if any were set yet.
  const flags = space
    .read(processor.prcb + BigInt((fields.OffsetPrcbContext ?? 0) + machine.pointerSize), 4)
    ?.readUInt32LE();
  if (flags && !machine.areContextFlags(flags)) {
    return `the flags after the pointer, ${hex(flags)}, are not those of a CONTEXT`;
  }
  // Windows places them alike: in a real dump all 16 begin at 0x340 of a page.
  const own = inPage(context);
  const [place, ...more] = [...others.inPage.keys()].filter((at) => at !== own);
  const isElsewhere =
    others.inPage.get(own) === 1 && place !== undefined && more.length === 0 && others.inPage.get(place)! > 1;
  return isElsewhere ? `other processors have theirs at ${hex(place)} of a page` : undefined;
}

/** What all frames are held against. */
interface OtherPlaces {
  structures: RangesFound<Taken>;
  /** All frames. */
  frames: RangesFound<{ from: bigint; size: number; owner: Processor }>;
  /** How many frames begin at an offset of a page. */
  inPage: ReadonlyMap<number, number>;
}

function otherPlaces(surroundings: Surroundings): OtherPlaces {
  const { space, processors } = surroundings;
  const size = space.image.machine.contextSize;
  const frames = processors.flatMap((owner) =>
    typeof owner.context === 'bigint' ? [{ from: owner.context as bigint, size, owner }] : [],
  );
  return {
    structures: new RangesFound(structures(surroundings)),
    frames: new RangesFound(frames),
    inPage: countOf(frames.map(({ from }) => inPage(from))),
  };
}

/** What a frame can't overlap. */
interface Taken {
  /** `the IDT of processor 1` */
  what: string;
  from: bigint;
  /** Bytes. */
  size: number;
}

/** The descriptor tables that a processor's CPU has loaded. */
function tablesOf({ image: { machine } }: AddressSpace, { number, cpu }: Processor): Taken[] {
  if (!cpu?.registers) return [];
  const tables = [
    { what: machine.words.interruptTable, table: machine.interruptTable(cpu.registers) },
    { what: 'GDT', table: machine.descriptorTable?.(cpu.registers) },
  ];
  return tables.flatMap(({ what, table }) =>
    table ? [{ what: `the ${what} of processor ${number}`, from: table.base, size: table.size }] : [],
  );
}

/** The thread that a processor runs, its stack, and what its CPU has of another one. */
function threadOf(space: AddressSpace, { fields }: Kdbg, { number, prcb, cpu }: Processor): Taken[] {
  const thread = currentThread(space, fields, prcb);
  const stack = currentThreadStack(space, fields, prcb);
  const pointer = cpu?.registers && space.image.machine.stackPointer(cpu.registers);
  const taken: Taken[] = [];
  if (thread !== undefined) {
    const size = Math.min(fields.SizeEThread ?? 0, PAGE_SIZE);
    taken.push({ what: `the thread of processor ${number}`, from: thread, size });
  }
  const onStack = `the stack of processor ${number}`;
  if (stack) taken.push({ what: onStack, from: stack.limit, size: Number(stack.base - stack.limit) });
  // Guard pages are between stacks and other memory, so that nothing else is in its page.
  if (pointer !== undefined && isKernelAddress(pointer))
    taken.push({ what: onStack, from: pointer, size: PAGE_SIZE - inPage(pointer) });
  return taken;
}

/** Kernel structures that a damaged pointer must not lead the writer to. */
function structures({ space, kdbg, processors, modules }: Surroundings): Taken[] {
  const { machine } = space.image;
  const { loaderEntry } = kernelStructures(machine);
  const { KiBugCheckData, KiProcessorBlock, PsLoadedModuleList, PsActiveProcessHead } = kdbg.fields;
  const list: Taken[] = [
    { what: 'the KDBG', from: kdbg.address, size: kdbg.size },
    { what: 'SharedUserData', from: machine.sharedUserData, size: PAGE_SIZE },
    ...modules.map((m) => ({ what: `the list entry of ${m.name}`, from: m.entry, size: loaderEntry.size })),
    ...processors.flatMap((processor) => [...tablesOf(space, processor), ...threadOf(space, kdbg, processor)]),
    ...processors.map((p) => ({
      what: `the KPCR of processor ${p.number}`,
      from: p.kpcr,
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
  const others = otherPlaces(surroundings);
  const doubts = processors.map((processor) => frameDoubt(surroundings, others, processor));
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
