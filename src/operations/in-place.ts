/** Converting without a second file: the ELF file becomes the dump, and can become the ELF file again. */
import { type Diagnostic, Elf2dmpError } from '../core/errors.ts';
import { takeSignals } from '../core/pulse.ts';
import { because, Reason } from '../core/reason.ts';
import { FILE_CALLS } from '../files/file-calls.ts';
import { checkOutputs, publishTogether, writeNewFile } from '../files/publish.ts';
import { Elf64Header } from '../formats/elf.ts';
import type { LocateOptions } from '../locate/locator.ts';
import type { MemoryImage } from '../memory/image.ts';
import { localSymbolPaths } from '../options/symbol-path.ts';
import type { CallOptions } from '../options/values.ts';
import { type Conversion, planConversion } from '../plan/conversion.ts';
import type { SharedPages } from '../plan/shared-pages.ts';
import { inPlaceFirstPage, sharedPages } from '../plan/shared-pages.ts';
import { openImage } from '../readers/registry.ts';
import type { ConversionReport, UndoReport } from '../report/conversion.ts';
import { SCHEMA } from '../report/schemas.ts';
import { TOOL } from '../version.ts';
import { InPlaceFile } from '../write/in-place.ts';
import {
  type Converted,
  type ConvertOptions,
  describeConverted,
  refuseLosses,
  reportConversion,
  secondsSince,
  type Wanted,
  withProgress,
} from './convert.ts';
import { Guest } from './guest.ts';
import { type Naming, withNaming } from './naming.ts';

export interface InPlaceOptions
  extends CallOptions<'convertInPlace'>,
    Omit<LocateOptions, 'onSearch'>,
    Pick<ConvertOptions, 'signal' | 'onProgress'> {
  /** The ELF file that becomes the dump, under its name. */
  file: string;
}

/**
 * Turns an ELF file on ext4 or XFS into a bitmap dump without copying its pages. A journal beside it,
 * `FILE.elf2dmp-undo`, keeps what `undoInPlace` needs; a run that was killed half-way is undone first.
 * Safe against SIGKILL at any moment, not against power loss. Throws `Elf2dmpError`; then the file is as
 * it was, or the error says that it needs `undoInPlace`.
 *
 * @param calls for tests
 */
export async function convertInPlace(options: InPlaceOptions, calls = FILE_CALLS): Promise<ConversionReport> {
  return (await convertInPlaceAndDescribe(options, {}, calls)).report;
}

/** As `convertInPlace`: file and page become what they shall be together, or neither does. */
export const convertInPlaceAndDescribe = (
  options: InPlaceOptions,
  wanted: Pick<Wanted, 'page' | 'pageFile'>,
  calls = FILE_CALLS,
): Promise<Converted> =>
  withNaming(options.symbols, (naming) => convertInPlaceNaming(options, wanted, { calls, naming }));

async function convertInPlaceNaming(
  options: InPlaceOptions,
  wanted: Pick<Wanted, 'page' | 'pageFile'>,
  { calls, naming }: { calls: typeof FILE_CALLS; naming: Naming },
): Promise<Converted> {
  const started = performance.now();
  const { pageFile } = wanted;
  const symbols = localSymbolPaths(options.symbols ?? '');
  const [pageTarget] = pageFile
    ? await checkOutputs([{ what: '--report', ...pageFile }], [options.file, ...symbols])
    : [];
  options.onProgress?.({ phase: 'open' });
  const file = await InPlaceFile.open(options.file, calls);
  try {
    const state = await file.state();
    if (state === 'dump') {
      throw new Elf2dmpError({
        code: 'in-place-done',
        kind: 'unsupported',
        message: 'the file was converted in place already: it is a Windows crash dump',
        file: options.file,
        hint: 'open it in WinDbg as it is; elf2dmp --undo FILE makes the ELF file again',
      });
    }
    if (state === 'begun') await file.undo();
    const image = openImage(file.path);
    try {
      const pages = pagesInPlace(image);
      const guest = await Guest.locate(options.file, image, withProgress(options));
      options.signal?.throwIfAborted();
      const planned = planConversion(guest.windows, {
        patch: options.patch,
        context: options.context,
        type: 'bitmap',
        firstPage: inPlaceFirstPage(pages),
      });
      const conversion: Conversion = {
        ...planned,
        diagnostics: [...diagnosticsOf(file, state), ...planned.diagnostics],
        written: { how: 'in place', journal: file.journal },
      };
      if (options.strict) refuseLosses(guest.image, conversion);
      // Afterwards the guest's memory is elsewhere in the file, and partly changed.
      const report = reportConversion(guest, conversion, { path: options.file, naming });
      const page = wanted.page || pageFile ? await describeConverted(conversion, { report, naming }) : undefined;
      await takeSignals(options.signal);
      const work = () => file.convert(conversion.plan, pages, options.signal);
      if (!pageFile || !page || pageTarget === undefined) await work();
      else {
        const content = Buffer.from(await pageFile.render(page));
        let converted = false;
        await publishTogether(undefined, async (together) => {
          await writeNewFile(pageTarget, content, { force: pageFile.force, together });
          await work();
          converted = true;
        }).catch(async (error) => {
          if (converted) await file.undo();
          throw error;
        });
      }
      report.seconds = secondsSince(started);
      return { report, page };
    } finally {
      image.close();
    }
  } finally {
    await file.close();
  }
}

function* diagnosticsOf(file: InPlaceFile, state: 'untouched' | 'begun'): Generator<Diagnostic> {
  if (state === 'begun') {
    yield {
      severity: 'warning',
      code: 'in-place-resumed',
      message: 'an earlier run was interrupted half-way: it was undone first',
    };
  }
  if (file.unseenProcesses > 0) {
    yield {
      severity: 'warning',
      code: 'in-place-unseen',
      message: `${file.unseenProcesses} processes of other users could not be asked whether they have the file open for writing`,
    };
  }
}

/** Throws `Elf2dmpError` where they can't be the dump's as they lie. */
function pagesInPlace(image: MemoryImage): SharedPages {
  const refuse = (message: string, hint: string) =>
    new Elf2dmpError({ code: 'in-place-impossible', kind: 'unsupported', message, file: image.file, hint });
  const [missing] = image.missing;
  if (missing) {
    throw refuse(`the dump is not complete: ${missing.text}`, 'make a new one, or name an OUTPUT for what there is');
  }
  let pages =
    image.format === 'elf-core' ? sharedPages(image) : because(`it is not an ELF core file (${image.format})`);
  if (!(pages instanceof Reason) && pages.offset < Elf64Header.size) {
    pages = because('its memory begins within its header');
  }
  if (!(pages instanceof Reason)) return pages;
  throw refuse(`the file cannot become the dump: ${pages}`, 'name an OUTPUT: the dump then is a separate file');
}

/**
 * Makes a file that was converted in place, wholly or in part, the ELF file that it was: byte for byte, with its
 * mode and modification time. Removes the journal. Throws `Elf2dmpError`; then it can be called again.
 *
 * @param calls for tests
 */
export async function undoInPlace(options: { file: string }, calls = FILE_CALLS): Promise<UndoReport> {
  const file = await InPlaceFile.open(options.file, calls);
  try {
    const { size, patched } = await file.undo();
    return {
      schema: SCHEMA.undo,
      tool: TOOL,
      outcome: 'good',
      path: options.file,
      bytes: size,
      patchesUndone: patched.length,
    };
  } finally {
    await file.close();
  }
}
