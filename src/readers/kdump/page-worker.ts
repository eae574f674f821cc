/** The thread that `PageDecoder` starts: decodes the jobs that it is sent, in their order, and answers each. */
import { parentPort, workerData } from 'node:worker_threads';
import { inflateByZlib, loadLibdeflate } from './inflate.ts';
import { PageJobs, type PageWorkerAnswer, type PageWorkerData, type PageWorkerTask } from './page-decoder.ts';

const answer = (word: PageWorkerAnswer): void => parentPort!.postMessage(word);

void loadLibdeflate().then((faster) => {
  const inflate = faster ?? inflateByZlib;
  const ready = new Int32Array((workerData as PageWorkerData).ready);
  Atomics.store(ready, 0, 1);
  Atomics.notify(ready, 0);
  answer('ready');
  parentPort!.on('message', ({ memory, table }: PageWorkerTask) => {
    new PageJobs(memory, table).decode(inflate);
    answer('done');
  });
});
