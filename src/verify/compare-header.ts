/** A dump's first bytes, field by field, against those that it should have. */
import type { Struct } from '../core/struct.ts';
import { hex } from '../core/units.ts';
import { BitmapDumpHeader, DUMP_HEADER64_SIZE, DumpHeader64, ExceptionRecord64 } from '../formats/win-dump.ts';
import type { Findings } from '../report/findings.ts';

interface Place {
  structure: string;
  field: string;
  offset: number;
  size: number;
}

/** A structure's fields at `base`, and the bytes between them as `unused`. */
// biome-ignore lint/suspicious/noExplicitAny: of any fields.
function* fieldsOf(layout: Struct<any>, base: number): Generator<Place> {
  let end = 0;
  const unused = (from: number, to: number): Place => ({
    structure: layout.name,
    field: `unused bytes at ${hex(from)}`,
    offset: base + from,
    size: to - from,
  });
  const fields = Object.entries(layout.fields as Record<string, { offset: number; size: number }>);
  for (const [field, { offset, size }] of fields.sort((a, b) => a[1].offset - b[1].offset)) {
    if (offset > end) yield unused(end, offset);
    if (layout === DumpHeader64 && field === 'Exception') yield* fieldsOf(ExceptionRecord64, base + offset);
    else yield { structure: layout.name, field, offset: base + offset, size };
    end = offset + size;
  }
  if (end < layout.size) yield unused(end, layout.size);
}

/** Fields whose values the dump's memory tells, whoever wrote the dump. (The reader has seen to the layout.) */
const TOLD_BY_MEMORY: ReadonlySet<string> = new Set([
  'MinorVersion',
  'DirectoryTableBase',
  'PsLoadedModuleList',
  'PsActiveProcessHead',
  'NumberProcessors',
  'KdDebuggerDataBlock',
]);

export interface HeaderExpectation {
  /** Header, and the bitmap with its header if there is one. */
  bytes: Buffer;
  /** The dump is not by elf2dmp: fields that writers fill as they like are not compared. */
  foreign: boolean;
  /** Against the input, not the dump's own memory. */
  difference: boolean;
}

export function compareHeader(
  actual: Buffer,
  { bytes: expected, foreign, difference }: HeaderExpectation,
  findings: Findings,
): void {
  const bitmap = expected.length > DUMP_HEADER64_SIZE;
  const mapAt = DUMP_HEADER64_SIZE + BitmapDumpHeader.size;
  const places: Place[] = [
    ...fieldsOf(DumpHeader64, 0),
    ...(bitmap ? fieldsOf(BitmapDumpHeader, DUMP_HEADER64_SIZE) : []),
    ...(bitmap ? [{ structure: 'bitmap', field: 'map', offset: mapAt, size: expected.length - mapAt }] : []),
  ];
  for (const { structure, field, offset, size } of places) {
    if (foreign && !TOLD_BY_MEMORY.has(field)) continue;
    const [wanted, found] = [expected.subarray(offset, offset + size), actual.subarray(offset, offset + size)];
    if (wanted.equals(found)) continue;
    let at = 0;
    while (wanted[at] === found[at]) at++;
    findings.add(
      {
        severity: 'error',
        code: 'header-field',
        message: `${structure}.${field} is not what ${difference ? 'the input' : "the dump's memory"} makes it`,
        structure,
        field,
        offset: hex(offset + (size <= 8 ? 0 : at)),
        expected: shown(wanted, at),
        found: shown(found, at),
      },
      difference,
    );
  }
}

/** A number where it is one; else some bytes from the first that differs. */
function shown(bytes: Buffer, at: number): string {
  if (bytes.length === 0) return 'nothing';
  if (bytes.length <= 8) return hex(BigInt(`0x${Buffer.from(bytes).reverse().toString('hex')}`));
  const some = bytes.subarray(at, at + 16);
  return `bytes ${some.toString('hex').replace(/..(?=.)/g, '$& ')}`;
}
