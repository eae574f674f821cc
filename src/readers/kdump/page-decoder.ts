/** Decompresses pages of kdump files, several at once: zlib's own thread pool costs four times what a page takes. */
import { availableParallelism } from 'node:os';
import type { Worker } from 'node:worker_threads';
import { inflateSync } from 'node:zlib';
import { DUMP_DH_COMPRESSED_LZO, DUMP_DH_COMPRESSED_SNAPPY, DUMP_DH_COMPRESSED_ZLIB } from '../../formats/kdump.ts';
import { decodeLzo1x } from '../../source/lzo.ts';
import { decodeSnappy } from './snappy.ts';
import { startPageWorker } from './start-worker.ts';

/** Fills `target`, of one page's size, from a compressed page. False if it is damaged. */
export function decodePage(flags: number, source: Uint8Array, target: Uint8Array): boolean {
  switch (flags) {
    case 0:
      if (source.length !== target.length) return false;
      target.set(source);
      return true;
    case DUMP_DH_COMPRESSED_ZLIB: {
      let page: Buffer;
      try {
        // A little more than a page: zlib has to see that nothing follows, or it takes a second round.
        page = inflateSync(source, { chunkSize: target.length + 64, maxOutputLength: target.length });
      } catch {
        return false; // whatever zlib finds wrong
      }
      if (page.length !== target.length) return false;
      target.set(page);
      return true;
    }
    case DUMP_DH_COMPRESSED_LZO:
      return decodeLzo1x(source, target) === target.length;
    case DUMP_DH_COMPRESSED_SNAPPY:
      return decodeSnappy(source, target) === target.length;
    default:
      return false;
  }
}

/** A page to be decoded. */
export interface PageJob {
  flags: number;
  source: Uint8Array;
  /** One page. All zero afterwards where the page is damaged. */
  target: Uint8Array;
  /** Set when it is done. */
  good?: boolean;
}

/** Pages that go to a worker together. */
export const BATCH_PAGES = 64;

/** Batches that a worker has at once, so that it never waits for the next. */
const DEPTH = 2;

/** Batches that are decoded here before workers are worth their start of 45 ms. */
const BATCHES_BEFORE_WORKERS = 16;
const MAX_WORKERS = 7;

/**
 * Memory that a worker shares with us: how many pages, then of each size, flags and outcome, then
 * their compressed bytes and room for the pages.
 */
export class BatchSlot {
  readonly shared: SharedArrayBuffer;
  readonly #table: Int32Array;
  readonly #bytes: Uint8Array;
  readonly #pageSize: number;

  constructor(pageSize: number, shared = new SharedArrayBuffer(BatchSlot.#dataAt + 2 * BATCH_PAGES * pageSize)) {
    this.shared = shared;
    this.#pageSize = pageSize;
    this.#table = new Int32Array(shared, 0, 1 + 3 * BATCH_PAGES);
    this.#bytes = new Uint8Array(shared);
  }

  static readonly #dataAt = 4 * (1 + 3 * BATCH_PAGES);

  #source(i: number): Uint8Array {
    const at = BatchSlot.#dataAt + 2 * i * this.#pageSize;
    return this.#bytes.subarray(at, at + this.#table[1 + 3 * i]!);
  }

  #target(i: number): Uint8Array {
    const at = BatchSlot.#dataAt + (2 * i + 1) * this.#pageSize;
    return this.#bytes.subarray(at, at + this.#pageSize);
  }

  put(jobs: readonly PageJob[]): void {
    this.#table[0] = jobs.length;
    jobs.forEach(({ flags, source }, i) => {
      this.#table[1 + 3 * i] = source.length;
      this.#table[2 + 3 * i] = flags;
      this.#source(i).set(source);
    });
  }

  /** In the worker. */
  decode(): void {
    for (let i = 0; i < this.#table[0]!; i++) {
      this.#table[3 + 3 * i] = decodePage(this.#table[2 + 3 * i]!, this.#source(i), this.#target(i)) ? 1 : 0;
    }
  }

  take(jobs: readonly PageJob[]): void {
    jobs.forEach((job, i) => {
      job.good = this.#table[3 + 3 * i] === 1;
      if (job.good) job.target.set(this.#target(i));
      else job.target.fill(0);
    });
  }
}

interface Batch {
  jobs: readonly PageJob[];
  resolve: () => void;
}

interface Hand {
  worker: Worker;
  slots: { slot: BatchSlot; batch: Batch | undefined }[];
}

/** Workers to decode with; the defaults fit the machine. */
export interface PageDecoderOptions {
  /** Default: one less than there are cores, at most 7. */
  workers?: number;
  batchesBeforeWorkers?: number;
  /** For tests, which run from sources that a worker of Node can't load. Default: the compiled page-worker.js beside. */
  startWorker?: (workerData: PageWorkerData) => Worker;
}

/** What a worker is started with: the page size and the memory of its slots. */
export interface PageWorkerData {
  pageSize: number;
  slots: SharedArrayBuffer[];
}

/** Decodes batches in workers and, where those are all busy, here. */
export class PageDecoder {
  readonly #pageSize: number;
  readonly #wanted: number;
  readonly #startWorker: (workerData: PageWorkerData) => Worker;
  #untilWorkers: number;
  #hands: Hand[] | undefined;
  readonly #queue: Batch[] = [];
  #turn = false;
  #closed = false;

  /** @param pageSize of all pages; no compressed one is larger. */
  constructor(pageSize: number, options: PageDecoderOptions = {}) {
    this.#pageSize = pageSize;
    this.#wanted = options.workers ?? Math.min(MAX_WORKERS, availableParallelism() - 1);
    this.#startWorker = options.startWorker ?? startPageWorker;
    this.#untilWorkers = options.batchesBeforeWorkers ?? BATCHES_BEFORE_WORKERS;
  }

  /** How many workers are there, for tests and figures. */
  get workers(): number {
    return this.#hands?.length ?? 0;
  }

  /** Does all jobs. A damaged page does not fail it: its job says so. */
  async decode(jobs: readonly PageJob[]): Promise<void> {
    const waits: Promise<void>[] = [];
    for (let i = 0; i < jobs.length; i += BATCH_PAGES) {
      const part = jobs.slice(i, i + BATCH_PAGES);
      waits.push(new Promise((resolve) => this.#queue.push({ jobs: part, resolve })));
    }
    this.#pump();
    await Promise.all(waits);
  }

  close(): void {
    this.#closed = true;
    for (const { worker } of this.#hands ?? []) void worker.terminate();
    this.#hands = [];
  }

  #pump(): void {
    if (!this.#hands && !this.#closed && this.#untilWorkers <= 0) {
      this.#hands = Array.from({ length: this.#wanted }, () => this.#start());
    }
    for (let round = 0; round < DEPTH; round++) {
      for (const { worker, slots } of this.#hands ?? []) {
        const place = slots[round]!;
        if (this.#queue.length === 0) return;
        if (place.batch) continue;
        place.batch = this.#queue.shift()!;
        place.slot.put(place.batch.jobs);
        worker.ref();
        worker.postMessage(round);
      }
    }
    if (this.#queue.length === 0 || this.#turn) return;
    this.#turn = true;
    // In a turn of its own, so that I/O and the workers' answers get theirs.
    setImmediate(() => {
      this.#turn = false;
      const batch = this.#queue.shift();
      if (batch) {
        this.#untilWorkers--;
        decodeHere(batch);
      }
      this.#pump();
    });
  }

  #start(): Hand {
    const slots = Array.from({ length: DEPTH }, () => ({
      slot: new BatchSlot(this.#pageSize),
      batch: undefined as Batch | undefined,
    }));
    const worker = this.#startWorker({ pageSize: this.#pageSize, slots: slots.map((s) => s.slot.shared) });
    const hand = { worker, slots };
    worker.unref();
    worker.on('message', (index: number) => {
      const place = slots[index]!;
      const batch = place.batch;
      place.batch = undefined;
      if (batch) {
        place.slot.take(batch.jobs);
        batch.resolve();
      }
      // An idle one keeps no process alive.
      if (slots.every((s) => !s.batch)) worker.unref();
      this.#pump();
    });
    // A worker that can't start or dies (no memory, no thread left, no compiled file beside) leaves its work to the others.
    worker.on('error', () => undefined);
    worker.on('exit', () => {
      this.#hands = this.#hands?.filter((h) => h !== hand);
      for (const place of slots) {
        if (place.batch) this.#queue.unshift(place.batch);
        place.batch = undefined;
      }
      this.#pump();
    });
    return hand;
  }
}

function decodeHere({ jobs, resolve }: Batch): void {
  for (const job of jobs) {
    job.good = decodePage(job.flags, job.source, job.target);
    if (!job.good) job.target.fill(0);
  }
  resolve();
}
