/** A dump's first bytes, field by field, against those that it should have. */
import { hex } from '../core/units.ts';
import type { DumpHeaderForm, HeaderLayout } from '../formats/dump-header.ts';
import { BitmapDumpHeader } from '../formats/win-dump.ts';
import { type Findings, inFile, type NewFinding } from '../report/findings.ts';

interface Place {
  structure: string;
  field: string;
  offset: number;
  size: number;
}

/** A structure's fields at `base`, and the bytes between them as `unused`. */
function* fieldsOf(layout: HeaderLayout, base: number, nested: DumpHeaderForm['nested'] = {}): Generator<Place> {
  let end = 0;
  const unused = (from: number, to: number): Place => ({
    structure: layout.name,
    field: `unused bytes at ${hex(from)}`,
    offset: base + from,
    size: to - from,
  });
  const fields = Object.entries(layout.fields);
  for (const [field, { offset, size }] of fields.sort((a, b) => a[1].offset - b[1].offset)) {
    if (offset > end) yield unused(end, offset);
    const inner = nested[field];
    if (inner) yield* fieldsOf(inner, base + offset);
    else yield { structure: layout.name, field, offset: base + offset, size };
    end = offset + size;
  }
  if (end < layout.size) yield unused(end, layout.size);
}

/** What a dump's header should be. */
export interface HeaderExpectation {
  form: DumpHeaderForm;
  /** Header, and the bitmap with its header if there is one. */
  bytes: Buffer;
  /** Against the input, not the dump's own memory. */
  difference: boolean;
}

export function compareHeader(
  actual: Buffer,
  { form, bytes: expected, difference }: HeaderExpectation,
  findings: Findings,
): void {
  const bitmap = expected.length > form.size;
  const mapAt = form.size + BitmapDumpHeader.size;
  const places: Place[] = [
    ...fieldsOf(form.layout, 0, form.nested),
    ...(bitmap ? fieldsOf(BitmapDumpHeader, form.size) : []),
    ...(bitmap ? [{ structure: 'bitmap', field: 'map', offset: mapAt, size: expected.length - mapAt }] : []),
  ];
  for (const { structure, field, offset, size } of places) {
    const [wanted, found] = [expected.subarray(offset, offset + size), actual.subarray(offset, offset + size)];
    if (wanted.equals(found)) continue;
    let at = 0;
    while (wanted[at] === found[at]) at++;
    const finding: NewFinding = {
      severity: 'error',
      code: 'header-field',
      message: `${structure}.${field} does not agree with ${difference ? 'the input' : "the dump's memory"}`,
      where: inFile(offset + (size <= 8 ? 0 : at), structure, field),
      expected: shown(wanted, at),
      found: shown(found, at),
    };
    if (difference) findings.addDifference(finding);
    else findings.add(finding);
  }
}

const numberOf = (bytes: Buffer): bigint => BigInt(`0x${Buffer.from(bytes).reverse().toString('hex')}`);

/** Short fields as a number, others as some bytes from the first that differs. */
function shown(bytes: Buffer, at: number): string {
  if (bytes.length === 0) return 'nothing';
  if (bytes.length <= 8) return hex(numberOf(bytes));
  const some = bytes.subarray(at, at + 16);
  return `bytes ${some.toString('hex').replace(/..(?=.)/g, '$& ')}`;
}
