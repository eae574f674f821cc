/** What a dump should hold, from its input. */
import { Reason } from '../core/reason.ts';
import type { MemoryImage } from '../memory/image.ts';
import { type Extent, sum, without } from '../memory/runs.ts';
import type { ContextChoice, RamChoice } from '../options/choices.ts';
import { type PlannedConversion, planConversion } from '../plan/conversion.ts';
import { chooseSelection } from '../plan/dump-type.ts';
import { applyPatches, type Patch } from '../plan/patches.ts';
import { dumpTypeOf } from '../plan/plan.ts';
import { withoutZeroPages } from '../plan/zero-pages.ts';
import { openDumpFile } from '../readers/input.ts';
import { openCrashDump } from '../readers/registry.ts';
import { complete, type Finding, inMemory } from '../report/findings.ts';
import { readPatchFile } from '../report/patch-file.ts';
import { type ByteSource, readUpTo } from '../source/source.ts';
import type { Windows } from '../windows/windows.ts';
import { withComment } from './check-header.ts';
import type { Expectation } from './expectation.ts';

/**
 * The input with the changes that a patch file lists. Throws `Elf2dmpError` where it can't be read.
 *
 * @returns also what the input does not hold though the patch file says so
 */
export async function expectationFromPatches(
  image: MemoryImage,
  file: string,
): Promise<{ expectation: Expectation; findings: Finding[] }> {
  const { extents, patches } = await readPatchFile(file);
  return {
    expectation: { image, windows: undefined, extents, patches, prefix: undefined, patched: patches.length > 0 },
    findings: checkOriginals(image, patches),
  };
}

/** The bytes that a patch file says were in the input. */
function checkOriginals(image: MemoryImage, patches: readonly Patch[]): Finding[] {
  return patches.flatMap(({ what, physical, virtual, original }): Finding[] => {
    const bytes = Buffer.alloc(original.length);
    if (image.readSync(physical, bytes) && bytes.equals(original)) return [];
    return [
      complete({
        severity: 'error',
        code: 'patch-original',
        message: `${what}: the input does not hold the bytes that the list of patches says it replaced`,
        where: inMemory({ physical, virtual }),
      }),
    ];
  });
}

/** Ways to convert that differ in what they change. */
const WAYS: readonly { patch: boolean; context: ContextChoice }[] = [
  { patch: true, context: 'auto' },
  { patch: true, context: 'cpu' },
  { patch: true, context: 'captured' },
  { patch: false, context: 'auto' },
];

/** Plans the conversion again, in the way that fits the dump best: the dump does not record its options. */
export async function planAgain(windows: Windows, path: string, signal?: AbortSignal): Promise<Expectation> {
  const source = await openDumpFile(path, signal);
  let dump: MemoryImage | undefined;
  try {
    dump = openCrashDump(source);
  } catch {
    // Reported as a finding when the dump is verified.
  }
  try {
    if (dump?.triage) return planTriageAgain(windows, source);
    const bitmap = dump?.format === 'windows-bitmap-dump';
    const type = dump?.dumpHeader ? dumpTypeOf(dump.dumpHeader) : 'auto';
    const at = bitmap ? dump?.sourceRuns?.[0]?.fileOffset : undefined;
    const plan = (options: (typeof WAYS)[number], ram: RamChoice, kept?: readonly Extent[]) =>
      planConversion(windows, {
        ...options,
        ...{ ram, type, selection },
        ...(kept && { kept }),
        firstPage: at === undefined ? undefined : () => at,
      });
    const ram = dump && leavesOut(dump, windows) ? 'windows' : 'all';
    const selection = await chooseSelection(windows, { type, ram }, signal);
    const plans = WAYS.map((way) => ({ way, conversion: plan(way, ram) }));
    const places = plans.flatMap(({ conversion }) => conversion.plan.patches);
    const ranked = plans.map((p) => ({
      ...p,
      wrong: dump ? mismatches(dump, windows.image, p.conversion, places) : 0,
    }));
    const best = ranked.reduce((a, b) => (b.wrong < a.wrong ? b : a));
    const kept = dump && bitmap ? await extentsWithoutZeros(dump, windows, best.conversion, signal) : undefined;
    const { extents, patches, prefix } = kept ? plan(best.way, ram, kept).plan : best.conversion.plan;
    return { image: windows.image, windows, extents, patches, prefix, patched: best.way.patch };
  } finally {
    dump?.close();
    source.close();
  }
}

/** The first triage dump that is the file, byte for byte; else the one that differs least. */
function planTriageAgain(windows: Windows, source: ByteSource): Expectation {
  const file = readUpTo(source, 0, source.size);
  const form = windows.image.machine.dumpHeader;
  let best: { wrong: number; expectation: Expectation } | undefined;
  for (const way of WAYS) {
    for (const cpus of ['crashing', 'all'] as const) {
      for (const userStacks of [false, true]) {
        const { plan } = planConversion(windows, { ...way, type: 'triage', triage: { cpus, userStacks } });
        const wrong = bytesThatDiffer(file, withComment(form, plan.prefix, file));
        if (best && best.wrong <= wrong) continue;
        const { extents, patches, prefix } = plan;
        best = { wrong, expectation: { image: windows.image, windows, extents, patches, prefix, patched: way.patch } };
        if (wrong === 0) return best.expectation;
      }
    }
  }
  return best!.expectation;
}

function bytesThatDiffer(a: Buffer, b: Buffer): number {
  const common = Math.min(a.length, b.length);
  let count = Math.max(a.length, b.length) - common;
  for (let i = 0; i < common; i++) if (a[i] !== b[i]) count++;
  return count;
}

/** The pages of a dump that lacks just the pages of zeros that --drop-zero-pages leaves out; undefined for others. */
async function extentsWithoutZeros(
  dump: MemoryImage,
  windows: Windows,
  { plan }: PlannedConversion,
  signal: AbortSignal | undefined,
): Promise<readonly Extent[] | undefined> {
  if (dump.size >= sum(plan.extents)) return undefined;
  const { extents } = await withoutZeroPages(windows, plan.extents, plan.patches, signal);
  const present = dump.pageExtents().extents;
  return without(extents, present).length + without(present, extents).length === 0 ? extents : undefined;
}

/** Whether a dump has just what Windows counts as RAM, and the input has more. */
function leavesOut(dump: MemoryImage, { image, physicalMemory }: Windows): boolean {
  if (physicalMemory instanceof Reason || dump.size >= image.size) return false;
  return dump.runs.every((run) =>
    physicalMemory.some((ram) => run.start >= ram.start && run.start + run.size <= ram.start + ram.size),
  );
}

/** Counts the places, of all that some way of converting changes, where the dump differs from this way's. */
function mismatches(
  dump: MemoryImage,
  input: MemoryImage,
  { plan }: PlannedConversion,
  places: readonly Patch[],
): number {
  const wrong = places.filter(({ physical, bytes }) => {
    const [wanted, found] = [Buffer.alloc(bytes.length), Buffer.alloc(bytes.length)];
    if (!input.readSync(physical, wanted) || !dump.readSync(physical, found)) return true;
    applyPatches(plan.patches, physical, wanted);
    return !found.equals(wanted);
  });
  const { ContextRecord } = input.machine.dumpHeader.decode(plan.prefix);
  return wrong.length + (dump.dumpHeader?.ContextRecord.equals(ContextRecord) ? 0 : 1);
}
