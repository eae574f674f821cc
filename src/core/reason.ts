/**
 * Why something cannot be had. Functions that find a value or can say why there is none return
 * `T | Reason`; callers ask `result instanceof Reason`. A failure that ends the work is an `Elf2dmpError`.
 */
export class Reason {
  // Private, so that nothing else that has a `text` passes for a reason.
  readonly #text: string;

  constructor(text: string) {
    this.#text = text;
  }

  /** A clause without final stop, for messages and evidence: `the KDBG names no PsActiveProcessHead`. */
  get text(): string {
    return this.#text;
  }

  /** The text, so that a reason can stand in a larger message. */
  toString(): string {
    return this.#text;
  }
}

/** A reason: `return because('no image begins there')`. */
export const because = (text: string): Reason => new Reason(text);
