/** The current phase, its speed and the time left. */

import { bytes } from '../../core/units.ts';
import type { Progress } from '../../operations/convert.ts';
import { STATUS_SIGNALS } from '../signals.ts';

const INTERVAL_MS = 100;
const PHASES = {
  open: 'reading headers',
  locate: 'locating Windows',
  sync: 'waiting for the disk',
  spool: 'reading',
  search: 'searching memory:',
  write: 'writing',
  verify: 'verifying',
} as const satisfies Record<Progress['phase'], string>;

/** How progress is shown. */
export interface ProgressForm {
  /** Only on a signal; JSON is printed nevertheless. */
  quiet: boolean;
  /** One object a line, for programs. */
  json: boolean;
}

/** How far a run is: on a terminal one line that each update replaces. SIGUSR1 and SIGUSR2 print it anywhere. */
export class ProgressLine {
  readonly #stream: NodeJS.WriteStream;
  readonly #form: 'drawn' | 'json' | 'none';
  #state: ProgressState = { phase: 'open' };
  #started = performance.now();
  /** Undefined before the first one, which is always shown: a fast machine gets there within the first interval. */
  #lastShown: number | undefined;
  #shown = false;

  constructor(stream: NodeJS.WriteStream, { quiet, json }: ProgressForm) {
    this.#stream = stream;
    const drawn = stream.isTTY && !quiet ? 'drawn' : 'none';
    this.#form = json ? 'json' : drawn;
    for (const signal of STATUS_SIGNALS) process.on(signal, this.#onSignal);
  }

  /** Removes the line for good. */
  end(): void {
    this.clear();
    for (const signal of STATUS_SIGNALS) process.removeListener(signal, this.#onSignal);
  }

  readonly #onSignal = () => {
    this.clear();
    this.#stream.write(this.#form === 'json' ? jsonLine(this.#state) : `elf2dmp: ${textOf(this.#state)}\n`);
  };

  update(progress: Progress): void {
    const now = performance.now();
    const isNew = this.#state.phase !== progress.phase;
    if (isNew) this.#started = now;
    this.#state = withSpeed(progress, (now - this.#started) / 1000);
    if (!isNew && this.#lastShown !== undefined && now - this.#lastShown < INTERVAL_MS) return;
    this.#lastShown = now;
    if (this.#form === 'json') this.#stream.write(jsonLine(this.#state));
    else if (this.#form === 'drawn') this.#draw(textOf(this.#state));
  }

  /** Removes the line, so that other output starts clean. */
  clear(): void {
    if (this.#shown) this.#stream.write('\r\x1b[K');
    this.#shown = false;
  }

  #draw(text: string): void {
    this.#stream.write(`\r\x1b[K${text.slice(0, Math.max(20, (this.#stream.columns ?? 80) - 1))}`);
    this.#shown = true;
  }
}

/** Progress and, once it is known, how fast that is. */
type ProgressState = Progress & { bytesPerSecond?: number; secondsLeft?: number };

/** Seconds before a speed means anything. */
const SPEED_AFTER = 0.2;

function withSpeed(progress: Progress, seconds: number): ProgressState {
  if (!('total' in progress) || progress.total === 0 || progress.done === 0 || seconds <= SPEED_AFTER) return progress;
  const rate = progress.done / seconds;
  return {
    ...progress,
    bytesPerSecond: Math.round(rate),
    secondsLeft: Math.ceil((progress.total - progress.done) / rate),
  };
}

const jsonLine = (state: ProgressState): string => `${JSON.stringify({ progress: state })}\n`;

function textOf(state: ProgressState): string {
  if (!('total' in state)) return PHASES[state.phase];
  const { done, total, bytesPerSecond, secondsLeft } = state;
  const share = total > 0 ? `${Math.floor((100 * done) / total)}% of ${bytes(total)}` : bytes(done);
  const left = bytesPerSecond === undefined ? '' : `, ${bytes(bytesPerSecond)}/s, ${secondsLeft} s left`;
  return `${PHASES[state.phase]} ${share}${left}`;
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
