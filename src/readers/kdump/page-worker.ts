/** The thread that `PageDecoder` starts: decodes the batches whose slots' numbers it is sent. */
import { parentPort, workerData } from 'node:worker_threads';
import { BatchSlot, type PageWorkerData } from './page-decoder.ts';

const { pageSize, slots } = workerData as PageWorkerData;
const batches = slots.map((shared) => new BatchSlot(pageSize, shared));

parentPort!.on('message', (index: number) => {
  batches[index]!.decode();
  parentPort!.postMessage(index);
});
