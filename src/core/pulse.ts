/**
 * Lets in a signal that came during a computation, before its result is given away. Rejects with the signal's reason once
 * that is aborted.
 */
export async function takeSignals(signal: AbortSignal | undefined): Promise<void> {
  // Node notes a signal in one turn of its loop, and acts on it in the next at the latest.
  for (let turn = 0; turn < 2; turn++) {
    await new Promise((resolve) => {
      setImmediate(resolve);
    });
  }
  signal?.throwIfAborted();
}

/** Longest stretch without a look at what else is to be done, in milliseconds. */
const STRETCH_MS = 50;

/** Lets signals and other work in during a long computation, and ends it where a signal says so. */
export class Pulse {
  readonly #signal: AbortSignal | undefined;
  #last = performance.now();

  constructor(signal?: AbortSignal) {
    this.#signal = signal;
  }

  /** Cheap enough for each thousand steps of a loop. Rejects with the signal's reason once that is aborted. */
  async beat(): Promise<void> {
    if (performance.now() - this.#last < STRETCH_MS) return;
    await new Promise((resolve) => {
      setImmediate(resolve);
    });
    this.#signal?.throwIfAborted();
    this.#last = performance.now();
  }
}
