/** One line on a terminal: the current phase, its speed and the time left. */

import { bytes } from '../../core/units.ts';
import type { Progress } from '../../operations/convert.ts';

const INTERVAL_MS = 100;
const VERBS = { spool: 'reading', search: 'searching memory:', write: 'writing', verify: 'verifying' } as const;

/** As dd and qemu-img users expect: these print how far a run is, and never end it. */
const STATUS_SIGNALS = ['SIGUSR1', 'SIGUSR2'] as const;

/** A line that each update replaces on a terminal, and that SIGUSR1 and SIGUSR2 print anywhere. */
export class ProgressLine {
  readonly #stream: NodeJS.WriteStream;
  readonly #drawn: boolean;
  #text = 'starting';
  #phase = '';
  #started = 0;
  #lastShown = 0;
  #shown = false;

  /** @param quiet the line is printed on a signal only */
  constructor(stream: NodeJS.WriteStream, quiet: boolean) {
    this.#stream = stream;
    this.#drawn = stream.isTTY && !quiet;
    for (const signal of STATUS_SIGNALS) process.on(signal, this.#onSignal);
  }

  /** Removes the line for good. */
  end(): void {
    this.clear();
    for (const signal of STATUS_SIGNALS) process.removeListener(signal, this.#onSignal);
  }

  readonly #onSignal = () => {
    this.clear();
    this.#stream.write(`elf2dmp: ${this.#text}\n`);
  };

  update(progress: Progress): void {
    const now = performance.now();
    if ('total' in progress) {
      if (this.#phase !== progress.phase) {
        this.#phase = progress.phase;
        this.#started = now;
      }
      if (now - this.#lastShown < INTERVAL_MS) return;
      const seconds = (now - this.#started) / 1000;
      const rate = seconds > 0.2 ? progress.done / seconds : 0;
      const left =
        rate > 0 && progress.total > 0
          ? `, ${bytes(Math.round(rate))}/s, ${Math.ceil((progress.total - progress.done) / rate)} s left`
          : '';
      const share =
        progress.total > 0
          ? `${Math.floor((100 * progress.done) / progress.total)}% of ${bytes(progress.total)}`
          : bytes(progress.done);
      this.#show(`${VERBS[progress.phase]} ${share}${left}`);
    } else {
      this.#show(progress.phase === 'open' ? 'reading headers' : 'locating Windows');
    }
    this.#lastShown = now;
  }

  /** Removes the line, so that other output starts clean. */
  clear(): void {
    if (this.#shown) this.#stream.write('\r\x1b[K');
    this.#shown = false;
  }

  #show(text: string): void {
    this.#text = text;
    if (!this.#drawn) return;
    this.#stream.write(`\r\x1b[K${text.slice(0, Math.max(20, (this.#stream.columns ?? 80) - 1))}`);
    this.#shown = true;
  }
}

/** Sends progress to the batch that runs this process; undefined in any other process. */
export function progressForBatch(): ((progress: Progress) => void) | undefined {
  if (!process.channel) return undefined;
  let last = 0;
  let phase = '';
  return (progress) => {
    const now = performance.now();
    if (progress.phase === phase && now - last < INTERVAL_MS) return;
    phase = progress.phase;
    last = now;
    // The batch may have ended.
    if (process.connected) process.send?.(progress, undefined, undefined, () => undefined);
  };
}
