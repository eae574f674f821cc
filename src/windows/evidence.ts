/** What was tried, what matched, why it is believed: kept for the report and for failures. */

/** One attempt at a question, and how it went. */
export interface Attempt {
  /** Which question: `page-table root`, `kernel image`, `KDBG`, `processors`, … */
  step: string;
  /** What was tried. */
  method: string;
  accepted: boolean;
  /** Why. */
  detail: string;
}

/** More attempts than this are counted, not kept. */
const MAX_ATTEMPTS = 500;

/** Collects attempts; equal failures are kept once. */
export class Evidence {
  readonly #attempts: Attempt[] = [];

  accept(step: string, method: string, detail: string): void {
    this.#attempts.push({ step, method, accepted: true, detail });
  }

  reject(step: string, method: string, detail: string): void {
    const same = (a: Attempt) => a.step === step && a.method === method && a.detail === detail;
    if (this.#attempts.length >= MAX_ATTEMPTS || this.#attempts.some(same)) return;
    this.#attempts.push({ step, method, accepted: false, detail });
  }

  get attempts(): readonly Attempt[] {
    return this.#attempts;
  }

  /** Lines for an error: every attempt of a step with its reason. */
  failures(step: string): string[] {
    return this.#attempts.filter((a) => a.step === step && !a.accepted).map((a) => `${a.method}: ${a.detail}`);
  }
}
