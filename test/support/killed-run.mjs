// Converts a file in place, or undoes it, and is killed (SIGKILL) before its n-th call that changes something.
// Prints the names of those calls: killed-run.mjs convert|undo FILE N
import { writeSync } from 'node:fs';
import { FILE_CALLS } from '../../dist/files/file-calls.js';
import { convertInPlace, undoInPlace } from '../../dist/operations/in-place.js';

const [job, file, at] = process.argv.slice(2);
const HARMLESS = new Set(['read', 'stat', 'lock', 'openForWriting']);
let count = 0;
const calls = Object.fromEntries(
  Object.entries(FILE_CALLS).map(([name, call]) => [
    name,
    (...args) => {
      if (!HARMLESS.has(name)) {
        if (count++ === Number(at)) process.kill(process.pid, 'SIGKILL');
        writeSync(1, `${name}\n`);
      }
      return call(...args);
    },
  ]),
);
await (job === 'undo' ? undoInPlace : convertInPlace)({ file }, calls);
