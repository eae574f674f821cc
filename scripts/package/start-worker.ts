/** In the executable in one file: the worker's code is an asset. */
import { getAsset } from 'node:sea';
import { Worker } from 'node:worker_threads';

/** As in src/readers/kdump/start-worker.ts. */
export const startPageWorker = (workerData: unknown): Worker =>
  new Worker(getAsset('page-worker.cjs', 'utf8'), { eval: true, workerData });
