/** Binary annotations: a small program for each inlined call that says which code it became, and of which lines. */
import {
  BA_CHANGE_CODE_AND_LINE_OFFSET,
  BA_CHANGE_CODE_LENGTH,
  BA_CHANGE_CODE_OFFSET,
  BA_CHANGE_CODE_OFFSET_BASE,
  BA_CHANGE_FILE,
  BA_CHANGE_LENGTH_AND_CODE_OFFSET,
  BA_CHANGE_LINE_OFFSET,
  BA_CODE_OFFSET,
  BA_END,
  BA_LAST,
} from '../formats/codeview.ts';

/** Code of an inlined call: which line of the inlined function it is. */
export interface InlineRow {
  /** From the outer function's start, bytes. */
  offset: number;
  /** undefined: up to the next row. */
  length: number | undefined;
  /** From the inlined function's first line. */
  line: number;
  /** Offset in the module's checksums subsection; undefined: the inlined function's own file. */
  file: number | undefined;
}

/**
 * The row that covers an offset from the outer function's start, and where the first row begins; undefined: the call
 * has no code there.
 */
export function inlineRowAt(annotations: Buffer, offset: number): { row: InlineRow; begin: number } | undefined {
  const rows = [...inlineRows(annotations)];
  // A row without a length reaches to the next one; the last one needs a length.
  const row = rows.find(({ offset: start, length }, i) => {
    const end = length === undefined ? rows[i + 1]?.offset : start + length;
    return end !== undefined && offset >= start && offset < end;
  });
  return row && { row, begin: rows[0]!.offset };
}

/** Stops at the first thing that it does not understand. */
export function* inlineRows(annotations: Buffer): Generator<InlineRow> {
  const operands = compressedIntegers(annotations);
  const next = (): number | undefined => operands.next().value ?? undefined;
  let offset = 0;
  let line = 0;
  let file: number | undefined;
  let pending: InlineRow | undefined;
  for (;;) {
    const operation = next();
    if (operation === undefined || operation === BA_END || operation > BA_LAST) break;
    const operand = next();
    if (operand === undefined) break;
    let length: number | undefined;
    switch (operation) {
      case BA_CODE_OFFSET:
        offset = operand;
        continue;
      case BA_CHANGE_CODE_LENGTH:
        if (pending) pending.length ??= operand;
        // The next delta counts from the end of what has a length.
        offset += operand;
        continue;
      case BA_CHANGE_FILE:
        file = operand;
        continue;
      case BA_CHANGE_LINE_OFFSET:
        line += signed(operand);
        continue;
      case BA_CHANGE_CODE_OFFSET:
        offset += operand;
        break;
      case BA_CHANGE_CODE_AND_LINE_OFFSET:
        offset += operand & 0xf;
        line += signed(operand >>> 4);
        break;
      case BA_CHANGE_LENGTH_AND_CODE_OFFSET: {
        const delta = next();
        if (delta === undefined) return;
        length = operand;
        offset += delta;
        break;
      }
      case BA_CHANGE_CODE_OFFSET_BASE:
        // The main chunk of code is 0; others would need the function's separated code.
        if (operand === 0) continue;
        if (pending) yield pending;
        return;
      default:
        continue;
    }
    if (pending) yield pending;
    pending = { offset, length, line, file };
  }
  if (pending) yield pending;
}

/** 1, 2 or 4 bytes, told apart by the first one's high bits. */
function* compressedIntegers(bytes: Buffer): Generator<number> {
  for (let at = 0; at < bytes.length; ) {
    const first = bytes[at]!;
    if (first < 0x80) {
      yield first;
      at += 1;
    } else if (first < 0xc0 && at + 2 <= bytes.length) {
      yield bytes.readUInt16BE(at) & 0x3fff;
      at += 2;
    } else if (first < 0xe0 && at + 4 <= bytes.length) {
      yield bytes.readUInt32BE(at) & 0x1fff_ffff;
      at += 4;
    } else return;
  }
}

/** The sign is in the lowest bit. */
const signed = (value: number): number => (value & 1 ? -(value >>> 1) : value >>> 1);
