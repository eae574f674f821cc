/** The main job: open, locate, plan, emit. */
import { dirname } from 'node:path';
import { Elf2dmpError } from '../core/errors.ts';
import { sha256OfFile, sha256OfInput } from '../files/hash.ts';
import { checkOutput } from '../files/publish.ts';
import { LIVE_SYSTEM_DUMP } from '../formats/win-dump.ts';
import { type LocateOptions, locateWindows } from '../locate/locator.ts';
import type { MemoryImage } from '../memory/image.ts';
import type { CallOptions } from '../options/values.ts';
import { type Conversion, planConversion } from '../plan/conversion.ts';
import { selectPages } from '../plan/select-pages.ts';
import { sharedFirstPage, sharedPages } from '../plan/shared-pages.ts';
import { withoutZeroPages } from '../plan/zero-pages.ts';
import { checkInput, type OpenOptions, openInput } from '../readers/input.ts';
import { type ConversionReport, reportDump } from '../report/conversion.ts';
import { reportInput } from '../report/input.ts';
import type { PageData } from '../report/page.ts';
import { writePatchFile } from '../report/patch-file.ts';
import { SCHEMA } from '../report/schemas.ts';
import { reportWindows } from '../report/windows.ts';
import { verifyDump } from '../verify/verify-dump.ts';
import { TOOL } from '../version.ts';
import type { Windows } from '../windows/windows.ts';
import { checkCompression, emitCompressed } from '../write/compressed.ts';
import { emitCopy } from '../write/copy.ts';
import { emitReflink } from '../write/reflink.ts';

export interface ConvertOptions
  extends CallOptions<'convert'>,
    LocateOptions,
    Omit<OpenOptions, 'onSpooled' | 'crashDumps'> {
  /** A file, a compressed file, a pipe, or `-` for standard input. */
  input: string;
  output: string;
  /** Called with what a report for people shows, when the dump is there. */
  onPage?: ((page: PageData) => void) | undefined;
  signal?: AbortSignal | undefined;
  onProgress?: ((progress: Progress) => void) | undefined;
}

export type Progress =
  | { phase: 'open' | 'locate' }
  /**
   * Writing the input to a temporary file (a total of 0 is unknown), searching all memory, writing the dump, or
   * comparing it: bytes.
   */
  | { phase: 'spool' | 'search' | 'write' | 'verify'; done: number; total: number };

/** Converts one dump. Throws `Elf2dmpError`; then nothing was written under the output's name. */
export async function convert(options: ConvertOptions): Promise<ConversionReport> {
  const started = performance.now();
  const { input, output, force = false, onProgress } = options;
  if (options.compress !== undefined) checkCompression(options.compress);
  checkInput(input);
  const target = await checkOutput(output, input, force);
  const patchTarget = await checkPatchFile(options, target);
  onProgress?.({ phase: 'open' });
  const opened = await openInput(input, {
    // Where there has to be room for a dump anyway, which a system's /tmp often lacks.
    spoolDirectory: dirname(target),
    ...options,
    onSpooled: onProgress && ((done, total) => onProgress({ phase: 'spool', done, total })),
  });
  try {
    let extra: Pick<ConversionReport, 'verification' | 'sha256'> | undefined;
    const report = await convertImage(opened, options, output, started, async (windows) => {
      const conversion = (await tryShared(windows, options, target)) ?? (await copy(windows, options, target));
      if (patchTarget !== undefined) await writePatchFile(patchTarget, conversion.plan, { input, output }, force);
      extra = await checkWritten(windows, conversion, options);
      return conversion;
    });
    return { ...report, ...extra };
  } finally {
    opened.close();
  }
}

/**
 * Locates Windows, has the dump written, and reports.
 *
 * @param path the dump's, for the report
 * @param started when the conversion began (`performance.now`)
 */
export async function convertImage(
  opened: MemoryImage,
  options: LocateOptions & Pick<ConvertOptions, 'signal' | 'onProgress' | 'onPage'>,
  path: string,
  started: number,
  write: (windows: Windows) => Promise<Conversion>,
): Promise<ConversionReport> {
  const { onProgress } = options;
  onProgress?.({ phase: 'locate' });
  const beforeLocate = performance.now();
  const windows = await locateWindows(opened, {
    ...options,
    onSearch: onProgress && ((done, total) => onProgress({ phase: 'search', done, total })),
  });
  const { image } = windows;
  const effort = {
    locateMilliseconds: Math.round(performance.now() - beforeLocate),
    bytesReadToLocate: image.bytesRead,
  };
  options.signal?.throwIfAborted();
  const conversion = await write(windows);
  const report: ConversionReport = {
    schema: SCHEMA.convert,
    tool: TOOL,
    outcome: image.diagnostics.losses.length > 0 ? 'losses' : 'good',
    input: reportInput(image),
    windows: reportWindows(windows, conversion.contexts),
    dump: reportDump(path, conversion, windows.crash?.bugCheck.code ?? LIVE_SYSTEM_DUMP),
    verification: null,
    sha256: null,
    effort,
    seconds: Math.round(performance.now() - started) / 1000,
    diagnostics: image.diagnostics.list,
    evidence: windows.evidence,
  };
  if (options.onPage) {
    // Loaded when it is wanted, which is rare.
    const { describePage } = await import('../report/page.ts');
    options.onPage({ ...(await describePage(windows, conversion.contexts, conversion.plan)), conversion: report });
  }
  return report;
}

/** The path of the patch file with links resolved, if one is wanted. */
async function checkPatchFile({ patches, input, force = false }: ConvertOptions, target: string) {
  if (patches === undefined) return undefined;
  const resolved = await checkOutput(patches, input, force);
  if (resolved !== target) return resolved;
  throw new Elf2dmpError({
    code: 'patches-is-output',
    kind: 'usage',
    message: 'the file for the patches is the output',
    file: patches,
    hint: 'name another file for the patches',
  });
}

/** What is asked of the finished dump. */
async function checkWritten(
  windows: Windows,
  { plan: { extents, patches, prefix } }: Conversion,
  { input, output, verify, hash, patch = true, signal, onProgress }: ConvertOptions,
): Promise<Pick<ConversionReport, 'verification' | 'sha256'>> {
  const { image } = windows;
  const verification = verify
    ? await verifyDump(
        output,
        { image, windows, extents, patches, prefix, patched: patch },
        { signal, onProgress: onProgress && ((done, total) => onProgress({ phase: 'verify', done, total })) },
      )
    : null;
  const sha256 = hash ? { input: await sha256OfInput(input, signal), dump: await sha256OfFile(output, signal) } : null;
  return { verification, sha256 };
}

async function copy(windows: Windows, options: ConvertOptions, target: string): Promise<Conversion> {
  const { onProgress, type, compress } = options;
  const selection =
    type === 'kernel' || type === 'active' ? selectPages(windows, type, options.ram ?? 'all') : undefined;
  let conversion: Conversion = planConversion(windows, { ...options, kept: selection?.extents });
  if (options.dropZeroPages) conversion = await dropZeroPages(windows, options, conversion);
  if (selection) conversion = { ...conversion, selection };
  if (options.strict) refuseLosses(windows);
  const emitOptions = {
    force: options.force,
    sparse: options.sparse,
    signal: options.signal,
    // Damaged pages may turn up only while they are read.
    beforePublish: () => options.strict && refuseLosses(windows),
    onProgress: onProgress && ((done: number, total: number) => onProgress({ phase: 'write', done, total })),
  };
  const { plan } = conversion;
  if (compress === undefined) {
    await emitCopy(plan, windows.image, target, emitOptions);
    return conversion;
  }
  const bytes = await emitCompressed(plan, windows.image, target, compress, emitOptions);
  return { ...conversion, compression: { format: compress, bytes } };
}

async function dropZeroPages(windows: Windows, options: ConvertOptions, all: Conversion): Promise<Conversion> {
  const { image } = windows;
  const { extents, dropped } = await withoutZeroPages(image, all.plan.extents, all.plan.patches, options.signal);
  if (dropped > 0) {
    image.diagnostics.add(
      'loss',
      'zero-pages-dropped',
      `${dropped} pages of zeros were left out: a debugger can't tell them from pages that are missing`,
    );
  }
  return { ...planConversion(windows, { ...options, kept: extents }), zeroPagesDropped: dropped };
}

/** A dump that shares the input's pages, where that is wanted and can be done; undefined where it has to be copied. */
async function tryShared(windows: Windows, options: ConvertOptions, target: string): Promise<Conversion | undefined> {
  const { reflink = 'never' } = options;
  if (reflink === 'never') return undefined;
  const { image } = windows;
  let obstacle: string | undefined;
  const pages = sharedPages(image);
  if (options.type === 'full') obstacle = 'a full dump (--type full) has its pages right behind its header';
  else if (options.type === 'kernel' || options.type === 'active')
    obstacle = `--type ${options.type} leaves out pages that lie in between`;
  else if (options.dropZeroPages) obstacle = '--drop-zero-pages leaves out pages that lie in between';
  else if (options.ram === 'windows') obstacle = '--ram windows leaves out pages that lie in between';
  else if (typeof pages === 'string') obstacle = pages;
  else {
    const conversion = planConversion(windows, { ...options, type: 'bitmap', firstPage: sharedFirstPage(pages) });
    if (options.strict) refuseLosses(windows);
    obstacle = await emitReflink(conversion.plan, pages, target, { force: options.force, signal: options.signal });
    if (obstacle === undefined) return { ...conversion, sharesInput: true };
  }
  if (reflink === 'always') {
    throw new Elf2dmpError({
      code: 'reflink-impossible',
      kind: 'unsupported',
      message: `the dump can not share the input's blocks: ${obstacle}`,
      file: image.file,
      hint: 'use --reflink=auto, which copies where it has to; sharing needs XFS or Btrfs, both files on one file system',
    });
  }
  image.diagnostics.add('warning', 'copied', `the pages were copied, not shared: ${obstacle}`);
  return undefined;
}

export function refuseLosses({ image }: Windows): void {
  const { losses } = image.diagnostics;
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
