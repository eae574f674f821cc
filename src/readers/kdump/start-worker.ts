/** How the decoder's thread is started; the executable in one file has another way (scripts/package/start-worker.ts). */
import { Worker } from 'node:worker_threads';

/** Starts page-worker.js, which lies beside the compiled file. */
export const startPageWorker = (workerData: unknown): Worker =>
  new Worker(new URL('./page-worker.js', import.meta.url), { workerData });
