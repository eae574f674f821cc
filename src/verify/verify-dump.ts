/** Checks a crash dump by reading it back: whether it is consistent, and has what it should. */
import { Elf2dmpError } from '../core/errors.ts';
import { hex, MIB, PAGE_SIZE } from '../core/units.ts';
import type { DumpHeaderForm } from '../formats/dump-header.ts';
import { BitmapDumpHeader, DumpType } from '../formats/win-dump.ts';
import { type LocateOptions, locateWindows } from '../locate/locator.ts';
import type { MemoryImage } from '../memory/image.ts';
import { type Contexts, chooseContexts } from '../plan/contexts.ts';
import { dumpTypeOf } from '../plan/plan.ts';
import { openDumpFile } from '../readers/input.ts';
import { openCrashDump } from '../readers/registry.ts';
import { asFinding, Findings, inFile, type VerificationReport } from '../report/findings.ts';
import { type InputReport, reportGuestInput, reportInput } from '../report/input.ts';
import { reportPatch } from '../report/patch-file.ts';
import { reportWindows } from '../report/windows.ts';
import { FramedSource } from '../source/framed.ts';
import { type ByteSource, readUpTo } from '../source/source.ts';
import type { Windows } from '../windows/windows.ts';
import { checkHeader, withComment } from './check-header.ts';
import { checkMemory } from './check-memory.ts';
import { checkTriage, compareTriage } from './check-triage.ts';
import { compareHeader } from './compare-header.ts';
import { comparePages } from './compare-pages.ts';
import type { Expectation, VerifyDumpOptions } from './expectation.ts';

/** Throws `Elf2dmpError` where a file can't be read. */
export async function verifyDump(
  path: string,
  expectation: Expectation | undefined,
  options: VerifyDumpOptions = {},
): Promise<VerificationReport> {
  const findings = new Findings();
  const source = await openDumpFile(path, options.signal);
  let image: MemoryImage | undefined;
  let windows: Windows | undefined;
  let comparison: { pagesCompared: number; pagesDifferent: number } | undefined;
  try {
    image = openForFindings(source, findings, expectation !== undefined);
    const prefix =
      image && !image.triage ? readUpTo(source, 0, prefixSize(source, image.machine.dumpHeader)) : undefined;
    if (image?.triage) {
      windows = await locateForFindings(image, options, findings);
      if (windows) {
        checkMemory(windows, expectation, findings);
        checkTriage(windows, findings);
      }
      if (expectation?.prefix) {
        compareTriage(windows, readUpTo(source, 0, Math.min(source.size, MAX_TRIAGE)), expectation.prefix, findings);
      }
    } else if (image && prefix) {
      checkSize(image, source.size, findings);
      windows = await locateForFindings(image, options, findings);
      if (windows) checkMemory(windows, expectation, findings);
      const wanted = expectation?.prefix;
      if (wanted) {
        const form = image.machine.dumpHeader;
        const bytes = withComment(form, wanted, prefix);
        compareHeader(prefix, { form, bytes, difference: true }, findings);
      } else if (windows) {
        const firstPage = firstPageOf(image);
        checkHeader(windows, { prefix, firstPage }, expectation?.patched ?? true, findings);
      }
      if (expectation) comparison = await comparePages(image, expectation, findings, options);
    }
    await checkFrames(source, findings, options.signal);
    const described = windows && { windows, contexts: chooseContexts(windows, 'auto') };
    return {
      outcome: findings.outcome,
      dump: {
        path,
        bytes: source.size,
        type: image?.dumpHeader ? dumpTypeOf(image.dumpHeader) : null,
        pages: image && !image.triage ? Math.floor(image.size / PAGE_SIZE) : 0,
      },
      input: inputOf(image, described),
      windows: described ? reportWindows(described.windows, described.contexts) : null,
      against: expectation
        ? {
            input: reportInput(expectation.image),
            pagesCompared: 0,
            pagesDifferent: 0,
            ...comparison,
            changes: expectation.patches.map(reportPatch),
          }
        : null,
      findings: findings.list,
      findingsLeftOut: findings.leftOut,
    };
  } finally {
    image?.close();
    source.close();
  }
}

/**
 * Opens a dump; where it is damaged, adds the finding. Throws `Elf2dmpError` (kind `unsupported`) for files that are not
 * read: they are not unsound. A conversion's own dump that is one of those differs from its plan.
 */
function openForFindings(source: ByteSource, findings: Findings, expected: boolean): MemoryImage | undefined {
  try {
    return openCrashDump(source);
  } catch (error) {
    if (!expected && error instanceof Elf2dmpError && error.kind === 'unsupported') {
      throw new Elf2dmpError({ ...error.details, message: `cannot be verified: ${error.details.message}` });
    }
    findings.add(asFinding(error));
    return undefined;
  }
}

async function locateForFindings(
  image: MemoryImage,
  options: LocateOptions,
  findings: Findings,
): Promise<Windows | undefined> {
  try {
    return await locateWindows(image, options);
  } catch (error) {
    findings.add(asFinding(error));
    return undefined;
  }
}

/** Of a compressed dump: compares all checksums, and says what is damaged. */
async function checkFrames(source: ByteSource, findings: Findings, signal: AbortSignal | undefined): Promise<void> {
  if (!(source instanceof FramedSource)) return;
  await source.unpackRest(signal);
  for (const message of source.damage) findings.add({ severity: 'error', code: 'container-damaged', message });
}

/** File offset of the first page that the file has. */
const firstPageOf = ({ sourceRuns = [] }: MemoryImage): number =>
  sourceRuns.reduce((first, { fileOffset }) => Math.min(first, fileOffset), Number.MAX_SAFE_INTEGER);

/** Bytes of header and bitmap of a dump that the reader accepts; of dumps that elf2dmp doesn't write, of the header. */
function prefixSize(source: ByteSource, form: DumpHeaderForm): number {
  const head = readUpTo(source, 0, form.size + BitmapDumpHeader.size);
  const { DumpType: type } = form.decode(head);
  if (type !== DumpType.bitmapFull && type !== DumpType.bitmapKernel) return form.size;
  const { Pages } = BitmapDumpHeader.read(head, form.size);
  return head.length + Math.ceil(Number(Pages) / 8);
}

/** Larger ones were not made by elf2dmp, and none that it makes is their like. */
const MAX_TRIAGE = 4 * MIB;

function checkSize(image: MemoryImage, size: number, findings: Findings): void {
  const truncated = image.missing.find(({ what }) => what === 'memory');
  const end = firstPageOf(image) + image.size;
  if (!truncated && size === end) return;
  findings.add({
    // A file converted in place keeps the ELF file's last bytes.
    severity: truncated || image.format === 'windows-full-dump' ? 'error' : 'warning',
    code: 'file-size',
    message: truncated?.text ?? 'the file continues after the last page that it lists',
    where: inFile(truncated ? size : end),
    ...(truncated ? {} : { expected: `${hex(end)} bytes`, found: `${hex(size)} bytes` }),
  });
}

function inputOf(
  image: MemoryImage | undefined,
  described: { windows: Windows; contexts: Contexts } | undefined,
): InputReport | null {
  if (described) return reportGuestInput(described.windows, described.contexts);
  return image ? reportInput(image) : null;
}
