/** Gives damaged inputs to the product and says what it did that it must not. */

import { Diagnostics, Elf2dmpError } from '../../src/core/errors.ts';
import { PAGE_SIZE, pa } from '../../src/core/units.ts';
import { locateWindows } from '../../src/locate/locator.ts';
import { AddressSpace } from '../../src/memory/address-space.ts';
import type { MemoryImage } from '../../src/memory/image.ts';
import { type Contexts, chooseContexts } from '../../src/plan/contexts.ts';
import { planConversion } from '../../src/plan/conversion.ts';
import { patchedImage } from '../../src/plan/patched-image.ts';
import { openSource } from '../../src/readers/registry.ts';
import { describeWindows } from '../../src/report/windows.ts';
import { BufferSource } from '../../src/source/buffer.ts';
import { walkStack } from '../../src/windows/stacks.ts';
import type { Windows } from '../../src/windows/windows.ts';
import { apply, type Recipe } from './mutate.ts';
import type { Subject } from './subjects.ts';

export interface Outcome {
  how: 'good' | 'losses' | 'refused';
  /** Of the error, or of the diagnostics. */
  codes: readonly string[];
}

/** Milliseconds of a processor that no input of 16 MiB may take. */
const TOO_LONG = 5000;

/**
 * Opens, locates, plans, walks the stacks, and says what `info` does.
 *
 * @returns how it ended, or what is wrong with that
 */
export async function run(subject: Subject, recipe: Recipe): Promise<Outcome | { problem: string }> {
  const began = performance.now();
  const outcome = await attempt(subject, recipe);
  if (performance.now() - began < TOO_LONG) return outcome;
  // Perhaps the machine was busy: its processor's time counts, which is dear to ask for.
  const started = process.cpuUsage();
  await attempt(subject, recipe);
  const { user, system } = process.cpuUsage(started);
  const took = (user + system) / 1000;
  return took < TOO_LONG ? outcome : { problem: `it took ${Math.round(took)} ms` };
}

async function attempt(subject: Subject, recipe: Recipe): Promise<Outcome | { problem: string }> {
  const undo = apply(subject.file, recipe);
  try {
    const image = openSource(new BufferSource(subject.file.subarray(0, recipe.length), 'fuzzed'), {
      crashDumps: true,
    });
    try {
      if (recipe.depth === 'open') return opened(image);
      const windows = await locateWindows(image);
      // Nothing can be made of a triage dump.
      const planned = windows.image.triage ? undefined : planConversion(windows);
      const contexts = planned?.contexts ?? chooseContexts(windows, 'auto');
      if (recipe.depth !== 'plan') {
        const problem = (planned && triageProblem(windows)) ?? stackProblem(windows, contexts, subject);
        if (problem !== undefined) return { problem };
        JSON.stringify(describeWindows(windows, contexts));
      }
      for (const { start, size } of planned?.plan.extents ?? []) {
        if (!windows.image.has(start, size)) return { problem: `the plan has pages at ${start} that the input lacks` };
      }
      if (!planned) {
        const { list, outcome } = Diagnostics.join(windows.image.diagnostics.list, contexts.diagnostics);
        return { how: outcome, codes: [...new Set(list.map((d) => d.code))] };
      }
      const wrong = recipe.oracle
        ? (disagreement(subject, windows, planned) ??
          (recipe.contradiction ? unsaid(subject, windows, planned) : undefined))
        : undefined;
      if (wrong) return { problem: wrong };
      const { list, outcome } = reported(windows, planned);
      return { how: outcome, codes: [...new Set(list.map((d) => d.code))] };
    } finally {
      image.close();
    }
  } catch (error) {
    if (!(error instanceof Elf2dmpError))
      return { problem: error instanceof Error ? (error.stack ?? error.message) : String(error) };
    // biome-ignore lint/suspicious/noControlCharactersInRegex: that is what must not be there.
    if (/[\x00-\x08\x0b-\x1f\x7f]/.test(error.message))
      return { problem: `control characters in: ${JSON.stringify(error.message)}` };
    return { how: 'refused', codes: [error.code] };
  } finally {
    undo();
  }
}

/** Pages that are read of an image whose memory is not looked into. */
const SAMPLES = 24;

/** Some pages of an image, at the edges of its runs: each is there, as the image says, and has a page's size. */
function opened(image: MemoryImage): Outcome | { problem: string } {
  const edges = image.runs
    .slice(0, SAMPLES / 2)
    .flatMap(({ start, size }) => [start, pa(start + Math.max(0, size - 1))]);
  for (const address of edges) {
    const page = pa(address - (address % PAGE_SIZE));
    if (!image.has(address)) return { problem: `the image has a run with ${address}, but lacks it` };
    const bytes = image.page(page);
    if (bytes && bytes.length !== PAGE_SIZE) return { problem: `a page of ${bytes.length} bytes` };
  }
  const { list, outcome } = Diagnostics.join(image.diagnostics.list, []);
  return { how: outcome, codes: [...new Set(list.map((d) => d.code))] };
}

function stackProblem(windows: Windows, { shown }: Contexts, { frame: at = X64_FRAME }: Subject): string | undefined {
  for (const { processor, source, frame } of shown) {
    if (source === 'unknown') continue;
    const { frames, end } = walkStack(windows, processor, frame);
    if (frames.length === 0 || frames.length > 256 || !end) return 'a stack without frames or end';
    if (frames[0]?.instructionPointer !== addressIn(frame, at.instructionPointer, at.bytes))
      return 'a stack begins elsewhere';
  }
  return undefined;
}

const REFUSED_TRIAGE = new Set<string>(['triage-no-processor']);

/** Whatever memory says, a triage dump is small, and only what is known to be impossible is refused. */
function triageProblem(windows: Windows): string | undefined {
  try {
    const { plan } = planConversion(windows, { type: 'triage', triage: { cpus: 'all', userStacks: true } });
    return plan.size > 0x20_0000 ? `a triage dump of ${plan.size} bytes` : undefined;
  } catch (error) {
    if (error instanceof Elf2dmpError && REFUSED_TRIAGE.has(error.code)) return undefined;
    throw error;
  }
}

type Planned = ReturnType<typeof planConversion>;

/** What a conversion reports: of the image, and of the plan. */
const reported = (windows: Windows, planned: Planned): Diagnostics =>
  Diagnostics.join(windows.image.diagnostics.list, planned.diagnostics);

const X64_FRAME: NonNullable<Subject['frame']> = { instructionPointer: 0xf8, stackPointer: 0x98 };

/** An address in a CONTEXT; those of 4 bytes are kept sign-extended. */
const addressIn = (frame: Buffer, offset: number, bytes?: 4): bigint =>
  bytes === 4 ? BigInt.asUintN(64, BigInt(frame.readInt32LE(offset))) : frame.readBigUInt64LE(offset);

/** The guest's word and the notes are whole: a register, address or patch that is shown as sure has to be right. */
function disagreement(
  { guest, frame: at = X64_FRAME }: Subject,
  windows: Windows,
  planned: Planned,
): string | undefined {
  const { truth, cpus } = guest;
  const { shown } = planned.contexts;
  if (windows.kernel.base !== truth.kernelBase) return `kernel base ${windows.kernel.base.toString(16)}`;
  if (windows.kdbg.address !== truth.kdbg) return undefined; // damaged beyond use: a stale one may be all there is
  for (const { processor, source, frame } of shown) {
    const real = truth.processors[processor.number];
    if (source !== 'cpu' || !real || processor.prcb !== real.prcb) continue;
    const cpu = cpus[real.cpu]!;
    const shownAt = [at.instructionPointer, at.stackPointer].map((offset) => addressIn(frame, offset, at.bytes));
    if (shownAt[0] !== cpu.regs.rip || shownAt[1] !== cpu.regs.rsp) {
      return `processor ${processor.number} shows another CPU's registers`;
    }
  }
  for (const { what, virtual, bytes, original } of planned.plan.patches) {
    if (/^KDBG/.test(what) && virtual >= truth.kdbg && virtual < truth.kdbg + 0x1000n) continue;
    const number = Number(/\d+$/.exec(what)?.[0]);
    const real = truth.processors[number];
    // A frame that is another processor's, too: the debugger follows the same pointers.
    const homes = real ? [...truth.processors.map(({ context }) => context), real.specialRegisters] : [];
    const inside = homes.some((home) => virtual >= home && virtual + BigInt(bytes.length) <= home + 0x1000n);
    // Where there was nothing, nothing is lost: the debugger follows the same pointer to the right registers.
    const costs = original.some((byte) => byte !== 0);
    if (!inside && costs && reported(windows, planned).list.length === 0) {
      return `${what} would be written to ${virtual.toString(16)}, and nothing says that anything is wrong`;
    }
  }
  return undefined;
}

/** Of a guest with contradictions: what differs from what it was built with, though nothing is reported. */
function unsaid(subject: Subject, windows: Windows, planned: Planned): string | undefined {
  const { truth, build, kernel } = subject.guest;
  if (reported(windows, planned).list.length > 0) return undefined;
  const header = windows.image.machine.dumpHeader.decode(planned.plan.prefix);
  const size = truth.kdbgBlock.length;
  const isLost = !windows.space.read(truth.kdbg, size)?.equals(kernel.read(truth.kdbg, size));
  const isCopy = isLost && windows.kdbg.block.equals(truth.kdbgBlock);
  const pairs: [string, unknown, unknown][] = [
    // Where the block itself is lost, a copy of all its bytes is as good: the debugger goes by the header.
    ['KdDebuggerDataBlock', header.KdDebuggerDataBlock, isCopy ? windows.kdbg.address : truth.kdbg],
    ['PsLoadedModuleList', header.PsLoadedModuleList, truth.psLoadedModuleList],
    ['PsActiveProcessHead', header.PsActiveProcessHead, truth.psActiveProcessHead],
    ['PfnDatabase', header.PfnDatabase, truth.pfnDatabaseVariable],
    ['NumberProcessors', header.NumberProcessors, truth.processors.length],
    ['build', header.MinorVersion, build.build],
    ['bug check', windows.crash?.bugCheck.code, truth.bugCheck?.code],
    ['PRCBs', list(windows.processors.map((p) => p.prcb)), list(truth.processors.map((p) => p.prcb))],
    ['CPUs', list(windows.processors.map((p) => p.cpu?.index)), list(truth.processors.map((p) => p.cpu))],
    ['KDBG size', windows.kdbg.size, size],
    [
      'modules',
      list(windows.modules.flatMap((m) => [m.name, m.base, m.size])),
      list(truth.modules.flatMap((m) => [m.name, m.base, m.size])),
    ],
  ];
  pairs.push(...shownRegisters(subject, windows, planned));
  const wrong = pairs.find(([, shown, real]) => shown !== real);
  return wrong && `${wrong[0]} is shown as ${String(wrong[1])}, was built as ${String(wrong[2])}, and nothing is said`;
}

/**
 * The registers that a debugger finds in the dump, as it goes: through each PRCB's pointer, wherever that leads, to a
 * frame. Two pointers that were exchanged harm nothing while nothing was saved in the frames.
 */
function shownRegisters(
  { guest: { truth, build, cpus }, frame: at = X64_FRAME }: Subject,
  { image, space }: Windows,
  { plan: { patches, extents: runs } }: Planned,
): [string, unknown, unknown][] {
  const dump = patchedImage(image, { patches, runs, diagnostics: new Diagnostics() });
  const patched = new AddressSpace(dump, space.root, space.mode);
  return truth.processors.map(({ number, prcb, context, cpu }) => {
    // Without a pointer the frame has its place in the PRCB.
    const where = build.prcbContext === undefined ? context : patched.readPointer(prcb + BigInt(build.prcbContext));
    const frame = where === undefined ? undefined : patched.read(where, image.machine.contextSize);
    const shown = frame && [at.instructionPointer, at.stackPointer].map((offset) => addressIn(frame, offset, at.bytes));
    const { rip, rsp } = truth.captured?.processor === number ? truth.captured : cpus[cpu]!.regs;
    return [`processor ${number}`, list(shown ?? []), list([rip, rsp])];
  });
}

const list = (values: readonly unknown[]): string => values.map(String).join(', ');
