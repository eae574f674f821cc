/** What a verification found wrong, as plain data. */

export interface Finding {
  /** `error`: the dump is not as it should be. `warning`: worth a look, and no fault of the dump. */
  severity: 'error' | 'warning';
  /** Stable identifier in kebab case. */
  code: string;
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
