/** The thread that `PageDecoder` starts: decodes the batches whose slots' numbers it is sent. */
import { parentPort, workerData } from 'node:worker_threads';
import { BatchSlot } from './page-decoder.ts';

const { pageSize, slots } = workerData as { pageSize: number; slots: SharedArrayBuffer[] };
const batches = slots.map((shared) => new BatchSlot(pageSize, shared));

parentPort!.on('message', (index: number) => {
  batches[index]!.decode();
  parentPort!.postMessage(index);
});
