/** A failure as plain data: the same in every report. */
import type { Elf2dmpError, ErrorCode, ErrorKind } from '../core/errors.ts';
import { hex } from '../core/units.ts';
import { TOOL } from '../version.ts';
import { SCHEMA } from './schemas.ts';

/** What failed. Keys that do not apply are null. */
export interface ErrorReport {
  code: ErrorCode;
  kind: ErrorKind;
  /** What is wrong, without the place. */
  message: string;
  /** All of it in one line: file, message, place, expected and found. */
  text: string;
  file: string | null;
  structure: string | null;
  field: string | null;
  /** Offset in the file, hex. */
  offset: string | null;
  expected: string | null;
  found: string | null;
  hint: string | null;
  /** What was tried, and why each attempt failed. */
  attempts: readonly string[];
}

/** What `--json` prints when nothing else can be. */
export interface FailureReport {
  schema: (typeof SCHEMA)['error'];
  tool: typeof TOOL;
  outcome: 'failed';
  exitCode: number;
  error: ErrorReport;
}

export function reportError(error: Elf2dmpError): ErrorReport {
  const { code, kind, message, file, structure, field, offset, expected, actual, hint, attempts } = error.details;
  return {
    code,
    kind,
    message,
    text: error.message,
    file: file ?? null,
    structure: structure ?? null,
    field: field ?? null,
    offset: offset === undefined ? null : hex(offset),
    expected: expected ?? null,
    found: actual ?? null,
    hint: hint ?? null,
    attempts: attempts ?? [],
  };
}

export const reportFailure = (error: Elf2dmpError, exitCode: number): FailureReport => ({
  schema: SCHEMA.error,
  tool: TOOL,
  outcome: 'failed',
  exitCode,
  error: reportError(error),
});
