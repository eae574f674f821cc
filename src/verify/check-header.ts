import type { DumpHeaderForm } from '../formats/dump-header.ts';
import { DumpType } from '../formats/win-dump.ts';
import { chooseContexts, ownerOf } from '../plan/contexts.ts';
import { headerFaults } from '../plan/header-faults.ts';
import { COMMENT_START, headerValues } from '../plan/header-values.ts';
import { dumpTypeOf, planDump } from '../plan/plan.ts';
import { type Findings, inFile } from '../report/findings.ts';
import type { Windows } from '../windows/windows.ts';
import { compareHeader } from './compare-header.ts';

/**
 * Checks the header against the dump's memory: of our own dumps, every byte is known; of others, what memory decides.
 *
 * @param firstPage file offset of the first page
 */
export function checkHeader(
  windows: Windows,
  { prefix, firstPage }: { prefix: Buffer; firstPage: number },
  patched: boolean,
  findings: Findings,
): void {
  const { image } = windows;
  const form = image.machine.dumpHeader;
  const header = form.decode(prefix);
  const type = dumpTypeOf(header);
  if (!isOurs(form, prefix) || type === 'triage' || !WRITTEN_TYPES.has(header.DumpType)) {
    for (const { field, severity, found, expected, evidence } of headerFaults(windows, header)) {
      findings.add({
        severity,
        code: 'header-field',
        message: `${form.layout.name}.${field} does not agree with the dump's memory (${evidence})`,
        where: inFile(form.layout.offsetOf(field), form.layout.name, field),
        expected,
        found,
      });
    }
    return;
  }
  const at = form.layout.offsetOf('ContextRecord');
  const inHeader = prefix.subarray(at, at + image.machine.contextSize);
  const { shown, intended } = chooseContexts(windows, 'auto');
  const owner = ownerOf(windows, shown, inHeader);
  // Without patches the header has registers that the PRCBs do not.
  const context = patched ? (owner ?? intended)?.frame : inHeader;
  const crashed = shown.find(({ processor }) => processor === windows.crash?.processor);
  const isMisplaced = owner && crashed && crashed.source !== 'unknown' && !crashed.frame.equals(owner.frame);
  if (patched && isMisplaced) {
    findings.add({
      severity: 'error',
      code: 'header-context',
      message: `the header's context is that of processor ${owner.processor.number}, but processor ${crashed.processor.number} crashed`,
      where: inFile(at, form.layout.name, 'ContextRecord'),
    });
  }
  // Losses of this plan would concern a conversion of the dump, which nobody asked for.
  const plan = planDump(image, {
    values: headerValues(windows, context),
    patches: [],
    type,
    firstPage: () => firstPage,
  });
  const bytes = withComment(form, plan.prefix, prefix);
  compareHeader(prefix, { form, bytes, difference: false }, findings);
}

/** Those of our own dumps. WinDbg's keep the comment of the dump that they are made from. */
const WRITTEN_TYPES: ReadonlySet<number> = new Set([DumpType.full, DumpType.bitmapFull, DumpType.bitmapKernel]);

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
