// Starts src/readers/kdump/page-worker.ts in a worker, which by itself loads only compiled files.
import { register } from 'tsx/esm/api';

register();
await import('../../src/readers/kdump/page-worker.ts');
