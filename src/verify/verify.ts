/** Verifies a crash dump: by itself, or against the input that it was made from. */

import { Reason } from '../core/reason.ts';
import { sha256OfFile, sha256OfInput } from '../files/hash.ts';
import { locateWindows } from '../locate/locator.ts';
import type { MemoryImage } from '../memory/image.ts';
import type { ContextChoice } from '../options/choices.ts';
import type { CallOptions } from '../options/values.ts';
import { type Conversion, planConversion } from '../plan/conversion.ts';
import { applyPatches, type Patch } from '../plan/patches.ts';
import { dumpTypeOf } from '../plan/plan.ts';
import { selectPages } from '../plan/select-pages.ts';
import { type OpenOptions, openInput } from '../readers/input.ts';
import { openCrashDump } from '../readers/registry.ts';
import type { HashReport } from '../report/conversion.ts';
import { complete, type Finding, inMemory, type VerificationReport } from '../report/findings.ts';
import { readPatchFile } from '../report/patch-file.ts';
import { SCHEMA } from '../report/schemas.ts';
import { TOOL } from '../version.ts';
import type { Windows } from '../windows/windows.ts';
import type { Expectation, VerifyDumpOptions } from './expectation.ts';
import { verifyDump } from './verify-dump.ts';

/** How to open `against`, and how to locate Windows in it. */
export interface VerifyOptions extends CallOptions<'verify'>, VerifyDumpOptions, Omit<OpenOptions, 'crashDumps'> {
  /** The crash dump. */
  dump: string;
}

export interface VerifyReport extends VerificationReport {
  schema: (typeof SCHEMA)['verify'];
  tool: typeof TOOL;
  /** null without `hash`. */
  sha256: HashReport | null;
}

/** Throws `Elf2dmpError` where a file can't be read, or the input is not one that could have been converted. */
export async function verify(options: VerifyOptions): Promise<VerifyReport> {
  const { dump, against, hash, signal } = options;
  // The roots and bases that a caller names are the input's: the dump's header names its own.
  const own: VerifyDumpOptions = { signal, onProgress: options.onProgress, onSearch: options.onSearch };
  let report: VerificationReport;
  if (against === undefined) report = await verifyDump(dump, undefined, { ...options, ...own });
  else {
    const image = await openInput(against, options);
    try {
      const { expectation, findings } = await expectationOf(image, options);
      report = await verifyDump(dump, expectation, own);
      if (findings.length > 0) {
        report = { ...report, outcome: 'differs', findings: [...findings, ...report.findings] };
      }
    } finally {
      image.close();
    }
  }
  return {
    schema: SCHEMA.verify,
    tool: TOOL,
    ...report,
    sha256: hash
      ? {
          dump: await sha256OfFile(dump, signal),
          input: against === undefined ? null : await sha256OfInput(against, signal),
        }
      : null,
  };
}

async function expectationOf(
  opened: MemoryImage,
  options: VerifyOptions,
): Promise<{ expectation: Expectation; findings: Finding[] }> {
  if (options.patches !== undefined) {
    const { extents, patches } = await readPatchFile(options.patches);
    // Which layout of raw memory is right, only Windows tells.
    const image = opened.alternatives.length > 0 ? (await locateWindows(opened, options)).image : opened;
    const expectation = { image, windows: undefined, extents, patches, prefix: undefined, patched: patches.length > 0 };
    return { expectation, findings: checkOriginals(image, patches) };
  }
  const windows = await locateWindows(opened, options);
  return { expectation: planAgain(windows, options.dump), findings: [] };
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

/** Plans the conversion again, in the way that fits the dump best: it does not say which options it was made with. */
function planAgain(windows: Windows, path: string): Expectation {
  let dump: MemoryImage | undefined;
  try {
    dump = openCrashDump(path);
  } catch {
    // What is wrong with it becomes a finding when it is verified.
  }
  try {
    const bitmap = dump?.format === 'windows-bitmap-dump';
    const type = dump?.dumpHeader ? dumpTypeOf(dump.dumpHeader) : 'auto';
    const at = bitmap ? dump?.stored?.runs[0]?.fileOffset : undefined;
    const plan = (options: (typeof WAYS)[number], ram: CallOptions<'convert'>['ram']) =>
      planConversion(windows, { ...options, ram, type, kept, firstPage: at === undefined ? undefined : () => at });
    const ram = dump && leavesOut(dump, windows) ? 'windows' : 'all';
    const kept = type === 'kernel' || type === 'active' ? selectPages(windows, type, ram).extents : undefined;
    const plans = WAYS.map((way) => ({ way, conversion: plan(way, ram) }));
    const places = plans.flatMap(({ conversion }) => conversion.plan.patches);
    const ranked = plans.map((p) => ({
      ...p,
      wrong: dump ? mismatches(dump, windows.image, p.conversion, places) : 0,
    }));
    const best = ranked.reduce((a, b) => (b.wrong < a.wrong ? b : a));
    return {
      image: windows.image,
      windows,
      extents: best.conversion.plan.extents,
      patches: best.conversion.plan.patches,
      prefix: best.conversion.plan.prefix,
      patched: best.way.patch,
    };
  } finally {
    dump?.close();
  }
}

/** Whether a dump has just what Windows counts as RAM, and the input has more. */
function leavesOut(dump: MemoryImage, { image, physicalMemory }: Windows): boolean {
  if (physicalMemory instanceof Reason || dump.size >= image.size) return false;
  return dump.runs.every((run) =>
    physicalMemory.some((ram) => run.start >= ram.start && run.start + run.size <= ram.start + ram.size),
  );
}

/** In how many of the places that any way of conversion changes, or in its header's context, a dump is not this one's. */
function mismatches(dump: MemoryImage, input: MemoryImage, { plan }: Conversion, places: readonly Patch[]): number {
  const wrong = places.filter(({ physical, bytes }) => {
    const [wanted, found] = [Buffer.alloc(bytes.length), Buffer.alloc(bytes.length)];
    if (!input.readSync(physical, wanted) || !dump.readSync(physical, found)) return true;
    applyPatches(plan.patches, physical, wanted);
    return !found.equals(wanted);
  });
  const { ContextRecord } = input.machine.dumpHeader.decode(plan.prefix);
  return wrong.length + (dump.dumpHeader?.ContextRecord.equals(ContextRecord) ? 0 : 1);
}
