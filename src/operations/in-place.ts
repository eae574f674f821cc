/** Converting without a second file: the ELF file becomes the dump, and can become the ELF file again. */
import { type DiagnosticCode, Elf2dmpError } from '../core/errors.ts';
import { FILE_CALLS } from '../files/file-calls.ts';
import { Elf64Header } from '../formats/elf.ts';
import type { LocateOptions } from '../locate/locator.ts';
import type { MemoryImage } from '../memory/image.ts';
import type { CallOptions } from '../options/values.ts';
import { type Conversion, planConversion } from '../plan/conversion.ts';
import type { SharedPages } from '../plan/shared-pages.ts';
import { inPlaceFirstPage, sharedPages } from '../plan/shared-pages.ts';
import { openImage } from '../readers/registry.ts';
import type { ConversionReport, UndoReport } from '../report/conversion.ts';
import { SCHEMA } from '../report/schemas.ts';
import { TOOL } from '../version.ts';
import type { Windows } from '../windows/windows.ts';
import { InPlaceFile } from '../write/in-place.ts';
import { type ConvertOptions, convertImage, refuseLosses } from './convert.ts';

export interface InPlaceOptions
  extends CallOptions<'convertInPlace'>,
    LocateOptions,
    Pick<ConvertOptions, 'signal' | 'onProgress'> {
  /** The ELF file that becomes the dump, under its name. */
  file: string;
}

/**
 * Turns an ELF file on ext4 or XFS into a bitmap dump without copying its pages. A journal beside it,
 * `FILE.elf2dmp-undo`, keeps what `undoInPlace` needs; a run that was killed half-way is taken back first.
 * Safe against SIGKILL at any moment, not against power loss. Throws `Elf2dmpError`; then the file is as
 * it was, or the error says that it needs `undoInPlace`.
 *
 * @param calls for tests
 */
export async function convertInPlace(options: InPlaceOptions, calls = FILE_CALLS): Promise<ConversionReport> {
  const started = performance.now();
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
      if (state === 'begun') {
        image.diagnostics.add(
          'warning',
          'in-place-resumed',
          'an earlier run had ended half-way: it was taken back first',
        );
      }
      if (file.unseenProcesses > 0) {
        image.diagnostics.add(
          'warning',
          'in-place-unseen',
          `${file.unseenProcesses} processes of other users could not be asked whether they have the file open for writing`,
        );
      }
      const pages = pagesInPlace(image);
      return await convertImage(image, options, options.file, started, (windows) =>
        write(windows, pages, options, file),
      );
    } finally {
      image.close();
    }
  } finally {
    await file.close();
  }
}

/** Throws `Elf2dmpError` where they can't be the dump's as they lie. */
function pagesInPlace(image: MemoryImage): SharedPages {
  const refuse = (message: string, hint: string) =>
    new Elf2dmpError({ code: 'in-place-impossible', kind: 'unsupported', message, file: image.file, hint });
  const cut = image.diagnostics.list.find(({ code }) => MISSING_BYTES.has(code));
  if (cut)
    throw refuse(`the dump is not complete: ${cut.message}`, 'make a new one, or name an OUTPUT for what there is');
  let pages = image.format === 'elf-core' ? sharedPages(image) : `it is no ELF core file (${image.format})`;
  if (typeof pages !== 'string' && pages.offset < Elf64Header.size) pages = 'its memory begins within its header';
  if (typeof pages !== 'string') return pages;
  throw refuse(`the file can not become the dump: ${pages}`, 'name an OUTPUT: then the dump is a file of its own');
}

async function write(
  windows: Windows,
  pages: SharedPages,
  options: InPlaceOptions,
  file: InPlaceFile,
): Promise<Conversion> {
  const conversion = planConversion(windows, { ...options, type: 'bitmap', firstPage: inPlaceFirstPage(pages) });
  if (options.strict) refuseLosses(windows);
  await file.convert(conversion.plan, pages, options.signal);
  return { ...conversion, journal: file.journal };
}

/** Diagnostics of files that were cut off, or never finished. */
const MISSING_BYTES = new Set<DiagnosticCode>(['input-truncated', 'notes-truncated', 'memory-absent']);

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
