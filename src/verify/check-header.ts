import type { DumpHeaderForm } from '../formats/dump-header.ts';
import { BitmapDumpHeader } from '../formats/win-dump.ts';
import { rootIn } from '../machines/paging-mode.ts';
import { chooseContexts, ownerOf } from '../plan/contexts.ts';
import { COMMENT_START, headerValues } from '../plan/header-values.ts';
import { dumpTypeOf, planDump } from '../plan/plan.ts';
import { type Findings, inFile } from '../report/findings.ts';
import { baseBuild } from '../windows/releases.ts';
import type { Windows } from '../windows/windows.ts';
import { compareHeader, type OtherForms } from './compare-header.ts';

/** Compares the header with the one that elf2dmp would write for this memory. */
export function checkHeader(windows: Windows, prefix: Buffer, patched: boolean, findings: Findings): void {
  const { image } = windows;
  const form = image.machine.dumpHeader;
  const foreign = !isOurs(form, prefix);
  const at = form.layout.offsetOf('ContextRecord');
  const inHeader = prefix.subarray(at, at + image.machine.contextSize);
  const { shown, intended } = chooseContexts(windows, 'auto');
  const owner = ownerOf(windows, shown, inHeader);
  // Without patches the header has registers that the PRCBs do not.
  const context = patched ? (owner ?? intended)?.frame : inHeader;
  const crashed = shown.find(({ processor }) => processor === windows.crash?.processor);
  const isMisplaced = owner && crashed && crashed.source !== 'unknown' && !crashed.frame.equals(owner.frame);
  if (!foreign && patched && isMisplaced) {
    findings.add({
      severity: 'error',
      code: 'header-context',
      message: `the header's context is that of processor ${owner.processor.number}, but processor ${crashed.processor.number} crashed`,
      where: inFile(at, form.layout.name, 'ContextRecord'),
    });
  }
  const type = dumpTypeOf(form.decode(prefix));
  if (type === 'triage') return;
  // Losses of this plan would concern a conversion of the dump, which nobody asked for.
  const plan = planDump(image, {
    values: headerValues(windows, context),
    patches: [],
    type,
    firstPage: () => firstPageOf(form, prefix),
  });
  const bytes = withComment(form, plan.prefix, prefix);
  compareHeader(
    prefix,
    { form, bytes, foreign: foreign ? otherForms(windows) : undefined, difference: false },
    findings,
  );
}

/** Forms in which Windows and other writers have what memory says. */
const otherForms = ({ space: { mode }, crash }: Windows): OtherForms => {
  // A dump of a running system has a code that its memory need not have; one that memory has is the crash's.
  const isOfRunning = () => crash === undefined;
  return new Map<string, (expected: bigint, found: bigint) => boolean>([
    // Windows writes the base build or the edition's.
    ['MinorVersion', (expected, found) => baseBuild(Number(expected)) === baseBuild(Number(found))],
    // CR3 as it is has flags and a PCID; debuggers mask them.
    ['DirectoryTableBase', (expected, found) => rootIn(mode, expected) === rootIn(mode, found)],
    ['BugCheckCode', isOfRunning],
    ['BugCheckParameters', isOfRunning],
  ]);
};

/** The comment names the version that wrote the dump, which need not be this one. */
export function withComment({ layout }: DumpHeaderForm, expected: Buffer, actual: Buffer): Buffer {
  const at = layout.offsetOf('Comment');
  const size = layout.fields['Comment']!.size;
  const comment = actual.toString('latin1', at, at + size);
  const version = comment.slice(COMMENT_START.length).match(/^\d+\.\d+\.\d+[\w.+-]*(?= from)/)?.[0];
  if (version === undefined) return expected;
  const bytes = Buffer.from(expected);
  const text = expected.toString('latin1', at, at + size).replace(/^(.{20})\S+([^\0]*)\0*$/s, `$1${version}$2`);
  bytes.fill(0, at, at + size);
  bytes.write(text, at, size - 1, 'latin1');
  return bytes;
}

/** Most of the comment's first words are there, damaged or not. */
export function isOurs({ layout }: DumpHeaderForm, header: Buffer): boolean {
  const at = layout.offsetOf('Comment');
  let same = 0;
  for (let i = 0; i < COMMENT_START.length; i++) if (header[at + i] === COMMENT_START.charCodeAt(i)) same++;
  return same >= COMMENT_START.length - 4;
}

/** File offset of the first page. */
export const firstPageOf = ({ size }: DumpHeaderForm, prefix: Buffer): number =>
  prefix.length === size ? size : Number(BitmapDumpHeader.read(prefix, size).FirstPage);
