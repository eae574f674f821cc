/** What a verification found wrong, as plain data. */

import type { FindingCode, FindingSeverity } from '../core/codes.ts';
import { Elf2dmpError } from '../core/errors.ts';
import { hex, hex64 } from '../core/units.ts';
import type { DumpPlan } from '../plan/plan.ts';
import type { InputReport } from './input.ts';
import type { PatchReport } from './patch-file.ts';
import type { WindowsReport } from './windows.ts';

export interface Finding {
  severity: FindingSeverity;
  /** Stable identifier in kebab case, see `FINDINGS`. */
  code: FindingCode;
  message: string;
  /** null: the dump as a whole, or the guest. */
  where: FindingPlace | null;
  expected: string | null;
  found: string | null;
}

/** Where a finding is: in the dump file, or in the guest's memory. Offsets and addresses are hex. */
export type FindingPlace =
  | { in: 'file'; offset: string | null; structure: string | null; field: string | null }
  | { in: 'memory'; physical: string | null; virtual: string | null };

/** A finding to add, with what there is to say of it. */
export type NewFinding = Pick<Finding, 'severity' | 'code' | 'message'> & Partial<Finding>;

/** A place in the dump file. */
export const inFile = (offset: number | bigint | undefined, structure?: string, field?: string): FindingPlace => ({
  in: 'file',
  offset: offset === undefined ? null : hex(offset),
  structure: structure ?? null,
  field: field ?? null,
});

/** A place in the guest's memory. */
export const inMemory = ({ physical, virtual }: { physical?: number; virtual?: bigint | string }): FindingPlace => ({
  in: 'memory',
  physical: physical === undefined ? null : hex(physical),
  virtual: typeof virtual === 'bigint' ? hex64(virtual) : (virtual ?? null),
});

/** Findings that are kept; more are only counted. */
const MAX_KEPT = 1000;

export class Findings {
  readonly list: Finding[] = [];
  leftOut = 0;
  #errors = 0;
  #differences = 0;

  add(finding: NewFinding): void {
    if (finding.severity === 'error') this.#errors++;
    if (this.list.length < MAX_KEPT) this.list.push(complete(finding));
    else this.leftOut++;
  }

  /** One that shows in a comparison with the input, not in the dump alone. */
  addDifference(finding: NewFinding): void {
    if (finding.severity === 'error') this.#differences++;
    this.add(finding);
  }

  get outcome(): 'sound' | 'unsound' | 'differs' {
    if (this.#errors === 0) return 'sound';
    return this.#differences > 0 ? 'differs' : 'unsound';
  }
}

/** With all keys. */
export const complete = ({ severity, code, message, where, expected, found }: NewFinding): Finding => ({
  severity,
  code,
  message,
  where: where ?? null,
  expected: expected ?? null,
  found: found ?? null,
});

export interface VerificationReport {
  /** `differs`: the comparison with the input found something; `unsound`: the dump alone shows it. */
  outcome: 'sound' | 'unsound' | 'differs';
  dump: { path: string; bytes: number; type: DumpPlan['type'] | null; pages: number };
  /** The dump as its reader takes it, and the Windows in it; null where it can't be read, or none is found. */
  input: InputReport | null;
  windows: WindowsReport | null;
  /** The comparison with the input that it was made from; null without one. */
  against: {
    input: InputReport;
    pagesCompared: number;
    /** Pages that differ from the input's where no change is listed. */
    pagesDifferent: number;
    /** What the conversion changed, each found as it should be unless a finding says otherwise. */
    changes: PatchReport[];
  } | null;
  findings: readonly Finding[];
  /** Findings beyond those that are listed. */
  findingsLeftOut: number;
}

/** A finding of what a reader or the locator refuses. Throws any other error: that the file cannot be read at all. */
export function asFinding(error: unknown): Finding {
  const details = error instanceof Elf2dmpError ? error.details : undefined;
  if (details?.kind !== 'corrupt' && details?.kind !== 'unsupported') throw error;
  const { code, message, structure, field, offset, expected, actual } = details;
  const place = structure === undefined && offset === undefined ? undefined : inFile(offset, structure, field);
  return complete({
    severity: 'error',
    code,
    message,
    ...(place ? { where: place } : {}),
    expected: expected ?? null,
    found: actual ?? null,
  });
}
