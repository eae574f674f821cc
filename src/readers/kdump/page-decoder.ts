/** Decompresses pages of kdump files, several at once: zlib's own thread pool costs four times what a page takes. */
import { availableParallelism } from 'node:os';
import type { Worker } from 'node:worker_threads';
import { KIB } from '../../core/units.ts';
import { DUMP_DH_COMPRESSED_LZO, DUMP_DH_COMPRESSED_SNAPPY, DUMP_DH_COMPRESSED_ZLIB } from '../../formats/kdump.ts';
import { decodeLzo1x } from '../../source/lzo.ts';
import { type Inflate, inflateByZlib, loadLibdeflate } from './inflate.ts';
import { decodeSnappy } from './snappy.ts';
import { startPageWorker } from './start-worker.ts';

/** How a page is stored, and its bytes. */
export interface StoredPage {
  flags: number;
  source: Uint8Array;
}

/** Fills `target`, of one page's size, from a compressed page. False if it is damaged. */
export function decodePage(
  { flags, source }: StoredPage,
  target: Uint8Array,
  inflate: Inflate = inflateByZlib,
): boolean {
  switch (flags) {
    case 0:
      if (source.length !== target.length) return false;
      target.set(source);
      return true;
    case DUMP_DH_COMPRESSED_ZLIB:
      return inflate(source, target);
    case DUMP_DH_COMPRESSED_LZO:
      return decodeLzo1x(source, target) === target.length;
    case DUMP_DH_COMPRESSED_SNAPPY:
      return decodeSnappy(source, target) === target.length;
    default:
      return false;
  }
}

/** A compressed page in `JobMemory.source`, and where it goes in `JobMemory.target`. */
export interface PageJob {
  flags: number;
  /** Of the compressed bytes. */
  from: number;
  size: number;
  to: number;
}

/** What threads share: compressed pages, and room for pages. */
export interface JobMemory {
  source: Uint8Array<SharedArrayBuffer>;
  target: Uint8Array<SharedArrayBuffer>;
  /** Of all pages. */
  pageSize: number;
}

/** A job's words in the table: flags, from, size, to, and afterwards whether the page is sound. */
const WORDS = 5;
const GOOD = 4;

/** Pages that are decoded together, as a worker is sent them. */
export class PageJobs {
  readonly memory: JobMemory;
  readonly table: Int32Array<SharedArrayBuffer>;

  constructor(memory: JobMemory, table: Int32Array<SharedArrayBuffer>) {
    this.memory = memory;
    this.table = table;
  }

  static of(memory: JobMemory, jobs: readonly PageJob[]): PageJobs {
    const table = new Int32Array(new SharedArrayBuffer(4 * WORDS * jobs.length));
    jobs.forEach(({ flags, from, size, to }, i) => {
      table[WORDS * i] = flags;
      table[WORDS * i + 1] = from;
      table[WORDS * i + 2] = size;
      table[WORDS * i + 3] = to;
    });
    return new PageJobs(memory, table);
  }

  get count(): number {
    return this.table.length / WORDS;
  }

  /** The jobs in parts of `size`. */
  *parts(size: number): Generator<PageJobs> {
    for (let i = 0; i < this.count; i += size) {
      yield new PageJobs(this.memory, this.table.subarray(WORDS * i, WORDS * (i + size)));
    }
  }

  /** Decodes all. Damaged pages become zeros. */
  decode(inflate: Inflate): void {
    const { table } = this;
    const { source, target, pageSize } = this.memory;
    for (let at = 0; at < table.length; at += WORDS) {
      const from = table[at + 1]!;
      const to = table[at + 3]!;
      const page = target.subarray(to, to + pageSize);
      const good = decodePage(
        { flags: table[at]!, source: source.subarray(from, from + table[at + 2]!) },
        page,
        inflate,
      );
      table[at + GOOD] = good ? 1 : 0;
      if (!good) page.fill(0);
    }
  }

  /** Whether a page is sound, once it is decoded. */
  isGood(i: number): boolean {
    return this.table[WORDS * i + GOOD] === 1;
  }
}

/** Bytes of pages that go to a worker together: a message costs some 20 us, inflating this much 1 to 2 ms. */
export const BATCH_BYTES = 512 * KIB;

/** Batches that a worker has at once, so that it never waits for the next. */
const DEPTH = 2;

/** Bytes of pages that are decoded here before workers are worth their start of 45 ms. */
const BYTES_BEFORE_WORKERS = 4096 * KIB;
const MAX_WORKERS = 7;

/** It takes 50 ms on a quiet machine. */
const LONGEST_LOADING_MS = 5000;

interface Batch {
  jobs: PageJobs;
  resolve: () => void;
}

interface Hand {
  worker: Worker;
  /** What it was sent and has not answered, in order. */
  batches: Batch[];
  /** It has loaded what it needs: before, it gets no work. */
  ready: boolean;
}

/** What a worker is started with. */
export interface PageWorkerData {
  /** One number, which becomes 1 when it has loaded what it needs. */
  ready: SharedArrayBuffer;
}

/** What a worker is sent. */
export type PageWorkerTask = Pick<PageJobs, 'memory' | 'table'>;

/** What a worker answers: once that it is ready, then that it has done each of its jobs. */
export type PageWorkerAnswer = 'ready' | 'done';

/** Workers to decode with; the defaults fit the machine. */
export interface PageDecoderOptions {
  /** Default: one less than there are cores, at most 7. */
  workers?: number;
  bytesBeforeWorkers?: number;
  /** For tests, which run from sources that a worker of Node can't load. Default: the compiled page-worker.js beside. */
  startWorker?: (workerData: PageWorkerData) => Worker;
}

/** Decodes batches in workers and, where those are all busy, here. */
export class PageDecoder {
  readonly #wanted: number;
  readonly #startWorker: (workerData: PageWorkerData) => Worker;
  #untilWorkers: number;
  #hands: Hand[] | undefined;
  #inflate: Inflate = inflateByZlib;
  readonly #queue: Batch[] = [];
  #turn = false;
  #closed = false;

  constructor(options: PageDecoderOptions = {}) {
    this.#wanted = options.workers ?? Math.min(MAX_WORKERS, availableParallelism() - 1);
    this.#startWorker = options.startWorker ?? startPageWorker;
    this.#untilWorkers = options.bytesBeforeWorkers ?? BYTES_BEFORE_WORKERS;
  }

  /** How many workers are there, for tests and figures. */
  get workers(): number {
    return this.#hands?.length ?? 0;
  }

  /** Does all jobs. A damaged page does not fail it: the jobs say so. */
  async decode(jobs: PageJobs): Promise<void> {
    const waits: Promise<void>[] = [];
    for (const part of jobs.parts(Math.max(1, BATCH_BYTES / jobs.memory.pageSize))) {
      waits.push(new Promise((resolve) => this.#queue.push({ jobs: part, resolve })));
    }
    this.#pump();
    await Promise.all(waits);
  }

  close(): void {
    this.#closed = true;
    for (const hand of this.#hands ?? []) this.#endIfIdle(hand);
  }

  /** Ends a worker that nothing is wanted of. Not one that loads: the process aborts where that is a native module. */
  #endIfIdle({ worker, batches, ready }: Hand): void {
    if (this.#closed && ready && batches.length === 0) void worker.terminate();
  }

  #pump(): void {
    if (!this.#hands && !this.#closed && this.#untilWorkers <= 0) this.#begin();
    for (let depth = 0; depth < DEPTH; depth++) {
      for (const { worker, batches, ready } of this.#hands ?? []) {
        if (this.#queue.length === 0) return;
        if (!ready || this.#closed || batches.length > depth) continue;
        const batch = this.#queue.shift()!;
        batches.push(batch);
        worker.ref();
        const { memory, table } = batch.jobs;
        worker.postMessage({ memory, table } satisfies PageWorkerTask);
      }
    }
    if (this.#queue.length === 0 || this.#turn) return;
    this.#turn = true;
    // In a turn of its own, so that I/O and the workers' answers get theirs.
    setImmediate(() => {
      this.#turn = false;
      const batch = this.#queue.shift();
      if (batch) {
        this.#untilWorkers -= batch.jobs.count * batch.jobs.memory.pageSize;
        batch.jobs.decode(this.#inflate);
        batch.resolve();
      }
      this.#pump();
    });
  }

  #begin(): void {
    this.#hands = Array.from({ length: this.#wanted }, () => this.#start());
    void loadLibdeflate().then((inflate) => {
      this.#inflate = inflate ?? this.#inflate;
    });
  }

  #start(): Hand {
    const loading = new SharedArrayBuffer(4);
    const worker = this.#startWorker({ ready: loading });
    const hand: Hand = { worker, batches: [], ready: false };
    // As long as it loads it keeps the process alive, and `process.exit` waits for it: see `#endIfIdle`.
    const awaitLoading = () => Atomics.wait(new Int32Array(loading), 0, 0, LONGEST_LOADING_MS);
    process.once('exit', awaitLoading);
    worker.on('message', (answer: PageWorkerAnswer) => {
      if (answer === 'ready') {
        hand.ready = true;
        process.off('exit', awaitLoading);
      } else hand.batches.shift()?.resolve();
      // An idle one keeps no process alive.
      if (hand.batches.length === 0) worker.unref();
      this.#endIfIdle(hand);
      this.#pump();
    });
    // A worker that can't start or dies (no memory, no thread left, no compiled file beside) leaves its work to the others.
    worker.on('error', () => undefined);
    worker.on('exit', () => {
      process.off('exit', awaitLoading);
      this.#hands = this.#hands?.filter((h) => h !== hand);
      this.#queue.unshift(...hand.batches.splice(0));
      this.#pump();
    });
    return hand;
  }
}
