import { hex } from '../core/units.ts';
import { BitmapDumpHeader, DUMP_HEADER64_SIZE, DumpHeader64 } from '../formats/win-dump.ts';
import { COMMENT_START, headerValues } from '../plan/header-values.ts';
import { dumpTypeOf, planDump } from '../plan/plan.ts';
import type { Findings } from '../report/findings.ts';
import type { Processor } from '../windows/processors.ts';
import type { Windows } from '../windows/windows.ts';
import { compareHeader } from './compare-header.ts';

/** The header against the one that elf2dmp would write for this memory. */
export function checkHeader(windows: Windows, prefix: Buffer, patched: boolean, findings: Findings): void {
  const { image, space } = windows;
  const foreign = !isOurs(prefix);
  const at = DumpHeader64.offsetOf('ContextRecord');
  const inHeader = prefix.subarray(at, at + image.machine.contextSize);
  const frames = windows.processors.flatMap((processor) => {
    const frame =
      processor.cpu && processor.context !== undefined
        ? space.read(processor.context, image.machine.contextSize)
        : undefined;
    return frame ? [{ processor, frame }] : [];
  });
  const same = frames.filter(({ frame }) => frame.equals(inHeader));
  const expected = expectedProcessor(windows, frames);
  // Without patches the header has registers that the PRCBs do not.
  const context = patched ? (same[0] ?? expected)?.frame : inHeader;
  const crashed = windows.crash?.processor;
  if (!foreign && patched && crashed?.cpu && same.length > 0 && !same.some((s) => s.processor === crashed)) {
    findings.add({
      severity: 'error',
      code: 'header-context',
      message: `the header's context is that of processor ${same[0]!.processor.number}, but processor ${crashed.number} crashed`,
      structure: DumpHeader64.name,
      field: 'ContextRecord',
      offset: hex(at),
    });
  }
  const type = dumpTypeOf(DumpHeader64.read(prefix));
  // Its losses would be about a conversion of the dump, which nobody asked for.
  const plan = planDump(
    image,
    headerValues(windows, context),
    [],
    { type, firstPage: () => firstPageOf(prefix) },
    image.diagnostics,
  );
  compareHeader(prefix, { bytes: withComment(plan.prefix, prefix), foreign, difference: false }, findings);
}

/** The comment names the version that wrote the dump, which need not be this one. */
export function withComment(expected: Buffer, actual: Buffer): Buffer {
  const at = DumpHeader64.offsetOf('Comment');
  const { size } = DumpHeader64.fields.Comment;
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
export function isOurs(header: Buffer): boolean {
  const at = DumpHeader64.offsetOf('Comment');
  let same = 0;
  for (let i = 0; i < COMMENT_START.length; i++) if (header[at + i] === COMMENT_START.charCodeAt(i)) same++;
  return same >= COMMENT_START.length - 4;
}

/** The processor that the debugger opens on. */
export function expectedProcessor<T extends { processor: Processor }>(
  windows: Windows,
  known: readonly T[],
): T | undefined {
  const { machine } = windows.image;
  return (
    known.find((s) => s.processor === windows.crash?.processor) ??
    known.find(({ processor: { cpu } }) => cpu?.registers && machine.runsNativeCode(cpu.registers)) ??
    known[0]
  );
}

/** File offset of the first page. */
export const firstPageOf = (prefix: Buffer): number =>
  prefix.length === DUMP_HEADER64_SIZE
    ? DUMP_HEADER64_SIZE
    : Number(BitmapDumpHeader.read(prefix, DUMP_HEADER64_SIZE).FirstPage);
