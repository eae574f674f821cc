/** What a verification found wrong, as plain data. */

import type { FindingCode, FindingSeverity } from '../core/codes.ts';
import { Elf2dmpError } from '../core/errors.ts';
import { hex } from '../core/units.ts';
import type { DumpPlan } from '../plan/plan.ts';
import type { PatchReport } from './patch-file.ts';

export interface Finding {
  severity: FindingSeverity;
  /** Stable identifier in kebab case, see `FINDINGS`. */
  code: FindingCode;
  message: string;
  structure?: string;
  field?: string;
  /** Offset in the dump file, hex. */
  offset?: string;
  /** Guest addresses, hex. */
  physical?: string;
  virtual?: string;
  expected?: string;
  found?: string;
}

/** Findings that are kept each; the others are counted. */
const MAX_KEPT = 1000;

export class Findings {
  readonly list: Finding[] = [];
  leftOut = 0;
  #errors = 0;
  #differences = 0;

  /** @param difference it shows in a comparison with the input, not in the dump alone */
  add(finding: Finding, difference = false): void {
    if (finding.severity === 'error') {
      this.#errors++;
      if (difference) this.#differences++;
    }
    if (this.list.length < MAX_KEPT) this.list.push(finding);
    else this.leftOut++;
  }

  get outcome(): 'sound' | 'unsound' | 'differs' {
    if (this.#errors === 0) return 'sound';
    return this.#differences > 0 ? 'differs' : 'unsound';
  }
}

export interface VerificationReport {
  /** `differs`: the comparison with the input found something; `unsound`: the dump alone shows it. */
  outcome: 'sound' | 'unsound' | 'differs';
  dump: { path: string; bytes: number; type: DumpPlan['type'] | null; pages: number };
  /** The comparison with the input; null without one. */
  against: {
    path: string;
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

/** What a reader or the locator refuses is a finding here; what can't be read at all is not. */
export function asFinding(error: unknown): Finding {
  const details = error instanceof Elf2dmpError ? error.details : undefined;
  if (details?.kind !== 'corrupt' && details?.kind !== 'unsupported') throw error;
  const { code, message, structure, field, offset, expected, actual } = details;
  return {
    severity: 'error',
    code,
    message,
    ...(structure === undefined ? {} : { structure }),
    ...(field === undefined ? {} : { field }),
    ...(offset === undefined ? {} : { offset: hex(offset) }),
    ...(expected === undefined ? {} : { expected }),
    ...(actual === undefined ? {} : { found: actual }),
  };
}
