/** The main job: open, locate, plan, emit. */
import { dirname } from 'node:path';
import type { Writable } from 'node:stream';
import { Diagnostics, Elf2dmpError } from '../core/errors.ts';
import { takeSignals } from '../core/pulse.ts';
import { because, Reason } from '../core/reason.ts';
import { sha256OfFile } from '../files/hash.ts';
import { checkOutputs, type Publication, publishTogether, type WantedOutput, writeNewFile } from '../files/publish.ts';
import { removeLeftovers } from '../files/temporary.ts';
import type { MemoryImage } from '../memory/image.ts';
import { notTogether } from '../options/check.ts';
import type { Compression } from '../options/choices.ts';
import { localSymbolPaths } from '../options/symbol-path.ts';
import type { CallOptions } from '../options/values.ts';
import { type Conversion, type PlannedConversion, planConversion } from '../plan/conversion.ts';
import { chooseSelection } from '../plan/dump-type.ts';
import { type DumpPlan, dumpTypeOf } from '../plan/plan.ts';
import { sharedFirstPage, sharedPages, sharedParts } from '../plan/shared-pages.ts';
import { withoutZeroPages } from '../plan/zero-pages.ts';
import { checkInput } from '../readers/input.ts';
import { type ConversionReport, reportDump } from '../report/conversion.ts';
import type { VerificationReport } from '../report/findings.ts';
import { reportGuestInput } from '../report/input.ts';
import type { PageData } from '../report/page.ts';
import { encodePatchFile } from '../report/patch-file.ts';
import { Images } from '../report/processors.ts';
import { SCHEMA } from '../report/schemas.ts';
import { reportWindows } from '../report/windows.ts';
import { verifyDump } from '../verify/verify-dump.ts';
import { TOOL } from '../version.ts';
import type { Windows } from '../windows/windows.ts';
import { checkCompression, emitCompressed, emitStream } from '../write/compressed.ts';
import { emitCopy } from '../write/copy.ts';
import { OnePass } from '../write/one-pass.ts';
import { emitReflink } from '../write/reflink.ts';
import { Guest, type Input, nameOf, type ReadingOptions, sha256OfGiven, withGuest } from './guest.ts';
import { type Naming, withNaming } from './naming.ts';

export interface ConvertOptions extends CallOptions<'convert'>, Omit<ReadingOptions, 'onSpooled' | 'onSearch'> {
  /** What to read. */
  input: Input;
  /** The dump's path; or a stream that takes it, and is ended. What a stream got stays there when the conversion fails. */
  output: string | Writable;
  onProgress?: ((progress: Progress) => void) | undefined;
}

export type Progress =
  /** `sync`: all is written, and the disk is waited for. */
  | { phase: 'open' | 'locate' | 'sync' }
  /**
   * Writing the input to a temporary file (a total of 0 is unknown), searching all memory, writing the dump, or
   * comparing it: bytes.
   */
  | { phase: 'spool' | 'search' | 'write' | 'verify'; done: number; total: number };

/** What a conversion made: the report, and what a report for people shows if that was asked for. */
export interface Converted {
  report: ConversionReport;
  page: PageData | undefined;
  patches?: Buffer | undefined;
}

/** What goes with a conversion besides its dump. */
export interface Wanted {
  /** Also return what a report for people shows. */
  page?: boolean | undefined;
  /** Also return the list of patches, as a file has it. */
  patches?: boolean | undefined;
  /** A file with such a report, published together with the dump. */
  pageFile?: { path: string; force: boolean; render: (page: PageData) => Promise<string> } | undefined;
  /** Asked when everything is on disk, with the file that becomes the dump; may throw to refuse it. */
  approve?: ((file: string) => Promise<void>) | undefined;
}

/** Converts one dump. Throws `Elf2dmpError`; then nothing was written under the output's name. */
export async function convert(options: ConvertOptions): Promise<ConversionReport> {
  return (await convertAndDescribe(options, {})).report;
}

/** As `convert`: dump, list of patches and page get their names together, or none does. */
export async function convertAndDescribe(options: ConvertOptions, wanted: Wanted): Promise<Converted> {
  const started = performance.now();
  const { input, force = false, signal, onProgress } = options;
  const output = nameOfOutput(options.output);
  if (options.compress !== undefined) checkCompression(options.compress);
  if (typeof options.output !== 'string') refuseForStream(options);
  if (!(input instanceof Guest)) checkInput(input);
  const targets = await checkTargets(options, wanted);
  // A batch did it for all of its outputs.
  if (!wanted.approve && targets.dump !== undefined) await removeLeftovers([targets.dump]);
  onProgress?.({ phase: 'open' });
  const convertGuest = async (guest: Guest, naming: Naming, destination: Destination) => {
    const { windows } = guest;
    const { together } = destination;
    refuseTriage(guest);
    signal?.throwIfAborted();
    const { conversion, sha256 } = await makeDump(windows, options, destination);
    const patches =
      targets.patches !== undefined || wanted.patches
        ? encodePatchFile(conversion.plan, { input: guest.input, output })
        : undefined;
    if (targets.patches !== undefined && patches) await writeNewFile(targets.patches, patches, { force, together });
    const file = targets.dump === undefined ? undefined : together.fileOf(targets.dump);
    const checked =
      file === undefined
        ? {
            verification: null,
            sha256: options.hash ? { input: await sha256OfGiven(input, signal), dump: sha256! } : null,
          }
        : await checkWritten(guest, conversion, { file, name: output }, options);
    // Whatever was read, the hash included, is of one state of the input.
    await guest.image.checkUnchanged();
    if (options.strict) refuseLosses(guest.image, conversion);
    await takeSignals(signal);
    const described = reportConversion(guest, conversion, { path: output, naming });
    const report = { ...described, seconds: secondsSince(started), ...checked };
    const { page, pageFile } = wanted;
    const data = page || pageFile ? await describeConverted(conversion, { report, naming }) : undefined;
    if (pageFile && data && targets.page !== undefined) {
      const content = Buffer.from(await pageFile.render(data));
      await writeNewFile(targets.page, content, { force: pageFile.force, together });
    }
    if (file !== undefined) await wanted.approve?.(file);
    return { report, page: data, patches: wanted.patches ? patches : undefined };
  };
  return withNaming(options.symbols, (naming) =>
    publishTogether(signal, (together) => {
      const { dump: target } = targets;
      const onePass =
        target === undefined ? undefined : new OnePass(together, target, { ...options, isReadNext: options.hash });
      const opening = {
        crashDumps: true,
        // The output's directory has room for a dump anyway; a system's /tmp often lacks it.
        spoolDirectory: target === undefined ? undefined : dirname(target),
        ...withProgress(options),
        arrange: goesInOnePass(options) ? onePass?.arrange : undefined,
      };
      const destination: Destination =
        target === undefined || !onePass
          ? { together, target: options.output as Writable }
          : { together, target, onePass };
      return withGuest(input, opening, (guest) => convertGuest(guest, naming, destination));
    }),
  );
}

/** Whether the dump's pages and their places can be known before Windows has been found. */
function goesInOnePass({
  type = 'auto',
  ram,
  dropZeroPages,
  compress,
  reflink = 'never',
  verify,
}: ConvertOptions): boolean {
  const keepsAll = (type === 'auto' || type === 'full' || type === 'bitmap') && ram !== 'windows' && !dropZeroPages;
  // The check compares the dump with the input, which has to be there for that.
  return keepsAll && compress === undefined && reflink === 'never' && !verify;
}

/** Checks all files that a conversion writes. */
async function checkTargets(options: ConvertOptions, { pageFile }: Wanted) {
  const { input, ramFile, symbols = '', output, patches, force = false } = options;
  const outputs: WantedOutput[] = [];
  if (typeof output === 'string') outputs.push({ what: 'OUTPUT', path: output, force });
  if (patches !== undefined) outputs.push({ what: '--patches', path: patches, force });
  if (pageFile) outputs.push({ what: '--report', path: pageFile.path, force: pageFile.force });
  const read = typeof input === 'string' || input instanceof Guest ? [nameOf(input)] : [];
  if (ramFile !== undefined) read.push(ramFile);
  read.push(...localSymbolPaths(symbols));
  const paths = await checkOutputs(outputs, read);
  const pathOf = (what: string) => paths[outputs.findIndex((wanted) => wanted.what === what)];
  return { dump: pathOf('OUTPUT'), patches: pathOf('--patches'), page: pathOf('--report') };
}

/** What reports call the dump. */
function nameOfOutput(output: ConvertOptions['output']): string {
  if (typeof output === 'string') return output;
  return isStandardOutput(output) ? 'standard output' : 'a stream';
}

const isStandardOutput = (stream: Writable): boolean => stream === (process.stdout as Writable);

/** Throws `Elf2dmpError` for what needs the dump as a file. */
function refuseForStream({ verify, reflink = 'never', sparse = 'auto' }: ConvertOptions): void {
  const option = [verify && '--verify', reflink !== 'never' && '--reflink', sparse === 'always' && '--sparse always'];
  const first = option.find(Boolean);
  if (first) throw notTogether(first, 'a dump that goes to a stream', 'name a file');
}

/** The options for opening and locating, with their progress as a conversion's. */
export function withProgress<T extends ReadingOptions & Pick<ConvertOptions, 'onProgress'>>(options: T): T {
  const { onProgress } = options;
  if (!onProgress) return options;
  return {
    ...options,
    onSpooled: (done: number, total: number) => onProgress({ phase: 'spool', done, total }),
    onLocate: () => onProgress({ phase: 'locate' }),
    onSearch: (done: number, total: number) => onProgress({ phase: 'search', done, total }),
  };
}

/** Seconds since a time of `performance.now`. */
export const secondsSince = (started: number): number => Math.round(performance.now() - started) / 1000;

/**
 * The report of a conversion. Reads the guest's memory, so the input has to be as it was.
 *
 * @param described.path the dump's
 */
export function reportConversion(
  guest: Guest,
  conversion: Conversion,
  { path, naming }: { path: string; naming: Naming },
): ConversionReport {
  const { image, effort } = guest;
  const { windows } = conversion;
  const images = new Images(windows, naming.symbols);
  const described = reportWindows(windows, conversion.contexts, images);
  const diagnostics = Diagnostics.join(image.diagnostics.list, conversion.diagnostics, naming.diagnostics());
  return {
    schema: SCHEMA.convert,
    tool: TOOL,
    outcome: diagnostics.outcome,
    input: reportGuestInput(windows, conversion.contexts, naming.symbols),
    windows: described,
    dump: reportDump(path, conversion, images),
    verification: null,
    sha256: null,
    effort,
    seconds: 0,
    diagnostics: diagnostics.list,
    evidence: windows.evidence,
  };
}

/** What a report for people shows of a conversion. Reads the guest's memory too. */
export async function describeConverted(
  conversion: PlannedConversion,
  { report, naming: { symbols } }: { report: ConversionReport; naming: Naming },
): Promise<PageData> {
  // Loaded when it is wanted, which is rare.
  const { describePage } = await import('../report/page.ts');
  return {
    ...(await describePage(conversion.windows, conversion.contexts, { plan: conversion.plan, symbols })),
    diagnostics: report.diagnostics,
    conversion: report,
  };
}

/** A triage dump is a crash dump without physical memory. */
function refuseTriage({ image }: Guest): void {
  if (!image.triage) return;
  throw new Elf2dmpError({
    code: 'triage-input',
    kind: 'unsupported',
    message: 'a triage dump holds no physical memory: no other type can be made of it',
    file: image.file,
    hint: 'open it in WinDbg as it is, or convert the dump that it was made from',
  });
}

async function checkWritten(
  { image, windows }: Guest,
  { plan: { extents, patches, prefix } }: Conversion,
  { file, name }: { file: string; name: string },
  { input: given, verify, hash, patch = true, signal, onProgress }: ConvertOptions,
): Promise<Pick<ConversionReport, 'verification' | 'sha256'>> {
  const verification = verify
    ? await verifyDump(
        file,
        { image, windows, extents, patches, prefix, patched: patch },
        { signal, onProgress: onProgress && ((done, total) => onProgress({ phase: 'verify', done, total })) },
      )
    : null;
  if (verification) nameAs(verification, file, name);
  const sha256 = hash ? { input: await sha256OfGiven(given, signal), dump: await sha256OfFile(file, signal) } : null;
  return { verification, sha256 };
}

/** Gives a file that was read under its temporary name the name that it is about to get. */
function nameAs(report: VerificationReport, temporary: string, name: string): void {
  report.dump.path = name;
  if (report.input) report.input.path = name;
  for (const finding of report.findings) finding.message = finding.message.replaceAll(temporary, name);
}

/** Where the dump goes, and what it is published with. */
type Destination = { together: Publication } & ({ target: string; onePass: OnePass } | { target: Writable });

/** What was written; the hash of a dump that went to a stream. */
interface Made {
  conversion: Conversion;
  sha256?: string;
}

/** Writes the dump in the way that is asked for. */
async function makeDump(windows: Windows, options: ConvertOptions, destination: Destination): Promise<Made> {
  const { reflink = 'never' } = options;
  if (!('onePass' in destination) || reflink === 'never') return copy(windows, options, destination);
  const shared = await share(windows, options, destination);
  if (!(shared instanceof Reason)) return { conversion: shared };
  if (reflink === 'always') {
    throw new Elf2dmpError({
      code: 'reflink-impossible',
      kind: 'unsupported',
      message: `the dump cannot share the input's blocks: ${shared}`,
      file: windows.image.file,
      hint: 'use --reflink=auto, which copies where it has to; sharing needs XFS or Btrfs, both files on one file system',
    });
  }
  const { conversion: copied } = await copy(windows, options, destination);
  const message = `the pages were copied, not shared: ${shared}`;
  const diagnostics = [...copied.diagnostics, { severity: 'warning', code: 'copied', message } as const];
  return { conversion: { ...copied, diagnostics } };
}

async function copy(windows: Windows, options: ConvertOptions, destination: Destination): Promise<Made> {
  const { together } = destination;
  const { onProgress, compress } = options;
  const { image } = windows;
  const planned = await planCopy(windows, options);
  if (options.strict) refuseLosses(image, planned);
  const emitOptions = {
    force: options.force,
    together,
    sparse: options.sparse,
    isReadNext: options.verify || options.hash,
    signal: options.signal,
    // Damaged pages may turn up only while they are read.
    beforePublish: () => options.strict && refuseLosses(image, planned),
    onSync: onProgress && (() => onProgress({ phase: 'sync' })),
    onProgress: onProgress && ((done: number, total: number) => onProgress({ phase: 'write', done, total })),
  };
  const copied = { ...planned, written: { how: 'copied' } } as const;
  const compressed = (format: Compression, bytes: number): Conversion => ({
    ...planned,
    written: { how: 'compressed', format, bytes },
  });
  if (!('onePass' in destination)) {
    const { target: stream } = destination;
    const to = { stream, name: nameOfOutput(stream), end: !isStandardOutput(stream), compression: compress };
    const { bytes, sha256 } = await emitStream(planned.plan, image, to, emitOptions);
    return { conversion: compress === undefined ? copied : compressed(compress, bytes), sha256 };
  }
  const { target, onePass } = destination;
  if (await onePass.finish(planned.plan, image, emitOptions)) return { conversion: copied };
  if (compress === undefined) {
    await emitCopy(planned.plan, image, target, emitOptions);
    return { conversion: copied };
  }
  const bytes = await emitCompressed(planned.plan, image, target, { ...emitOptions, compression: compress });
  return { conversion: compressed(compress, bytes) };
}

async function planCopy(windows: Windows, options: ConvertOptions): Promise<PlannedConversion> {
  const { type, ram = 'all', patch, context, triageCpus: cpus, triageUserStacks: userStacks } = options;
  const selection = type && (await chooseSelection(windows, { type, ram }, options.signal));
  const choices = { type, ram, patch, context, selection, triage: { cpus, userStacks } };
  const all = planConversion(windows, choices);
  if (!options.dropZeroPages) return all;
  const { extents, dropped } = await withoutZeroPages(windows, all.plan.extents, all.plan.patches, options.signal);
  const fewer = planConversion(windows, { ...choices, kept: extents });
  if (dropped === 0) return fewer;
  const message = `${dropped} pages of zeros were left out: a debugger cannot tell them from missing pages`;
  return {
    ...fewer,
    zeroPagesDropped: dropped,
    diagnostics: [...fewer.diagnostics, { severity: 'loss', code: 'zero-pages-dropped', message }],
  };
}

/** Writes a dump that shares the input's pages; a reason where it has to be copied. */
async function share(
  windows: Windows,
  options: ConvertOptions,
  { target, together }: Extract<Destination, { onePass: OnePass }>,
): Promise<Conversion | Reason> {
  const { image } = windows;
  const choices = unsharable(options);
  if (choices) return choices;
  const pages = sharedParts(image) ?? sharedPages(image);
  if (pages instanceof Reason) return pages;
  const planned = planConversion(windows, {
    ...options,
    type: image.dumpHeader ? sharedType(dumpTypeOf(image.dumpHeader)) : 'bitmap',
    firstPage: sharedFirstPage(pages),
  });
  if (options.strict) refuseLosses(image, planned);
  const { force, signal } = options;
  const obstacle = await emitReflink(planned.plan, pages, target, { force, signal, together });
  return obstacle ?? { ...planned, written: { how: 'shared' } };
}

/** A dump that shares a full dump's pages has them behind a page map. */
const sharedType = (type: DumpPlan['type']): DumpPlan['type'] => (type === 'full' ? 'bitmap' : type);

/** Why the dump that the options ask for cannot have the input's pages as they are. */
function unsharable({ type, ram, dropZeroPages }: ConvertOptions): Reason | undefined {
  if (type === 'full') return because('in a full dump (--type full) the pages follow right after the header');
  const leavesOut = [
    (type === 'kernel' || type === 'active') && `--type ${type}`,
    dropZeroPages && '--drop-zero-pages',
    ram === 'windows' && '--ram windows',
  ].find(Boolean);
  return leavesOut ? because(`${leavesOut} leaves out pages that lie in between`) : undefined;
}

/** For `strict`. Throws `Elf2dmpError` where the input or the plan has losses. */
export function refuseLosses(image: MemoryImage, planned: PlannedConversion): void {
  const { losses } = Diagnostics.join(image.diagnostics.list, planned.diagnostics);
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
