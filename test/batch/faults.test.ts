import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { RunOptions } from '../../src/batch/run.ts';

/** Calls of the batch's process so far, and the one that fails. */
const faults = vi.hoisted(() => ({ made: 0, at: Number.POSITIVE_INFINITY }));

vi.mock('node:fs/promises', async (original) => {
  const real = await original<Record<string, (...args: unknown[]) => unknown>>();
  const failing =
    (name: string) =>
    (...args: unknown[]) => {
      if (faults.made++ !== faults.at) return real[name]!(...args);
      return Promise.reject(Object.assign(new Error(`EIO: i/o error, ${name}`), { code: 'EIO' }));
    };
  const names = ['lstat', 'link', 'mkdir', 'open', 'readFile', 'readdir', 'realpath', 'rename', 'rm', 'stat', 'unlink'];
  return { ...real, ...Object.fromEntries(names.map((name) => [name, failing(name)])) };
});

const { runBatch } = await import('../../src/batch/run.ts');

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'elf2dmp-faults-'));
});
afterEach(() => rmSync(dir, { recursive: true }));

/** Instead of elf2dmp: writes its input as the dump, and asks before it gets its name. */
function options(): RunOptions {
  const script = join(dir, 'job.mjs');
  writeFileSync(
    script,
    `import { copyFileSync, existsSync, renameSync, rmSync } from 'node:fs';
    let words, part;
    const report = (ended, exitCode) => process.send({ ended, exitCode, last: false });
    process.on('message', ({ job, refusal }) => {
      words = job ?? words;
      const [input, output] = words.slice(-2);
      if (job) {
        part = output + '.0123456789ab.part';
        copyFileSync(input, part);
        process.send({ ready: part });
        return;
      }
      const error = refusal ? { ...refusal, text: refusal.message } : existsSync(output) && !words.includes('--force') && { code: 'output-exists', kind: 'io-permanent', text: 'exists' };
      if (error) {
        rmSync(part);
        report({ outcome: 'failed', error }, 7);
      } else {
        renameSync(part, output);
        report({ outcome: 'good', windows: { build: 1, bugCheck: null }, diagnostics: [] }, 0);
      }
    });`,
  );
  return {
    command: [process.execPath, script],
    jobs: 1,
    keepGoing: true,
    retries: 0,
    force: false,
    hash: false,
    recheck: false,
    retryFailed: false,
    html: false,
    exitCodeOf: () => 7,
    out: dir,
  };
}

describe('a batch whose n-th call fails', () => {
  it.each(['no dump', 'a dump of its own'])(
    'leaves nothing that the next run does not mend, where there is %s',
    async (before) => {
      const input = join(dir, 'in');
      const output = join(dir, 'sub', 'out.dmp');
      const run = async () =>
        (await runBatch([{ input, output, relative: 'in', options: {} }], options(), () => undefined))[0];
      for (let at = 0; ; at++) {
        rmSync(join(dir, 'sub'), { recursive: true, force: true });
        writeFileSync(input, 'old');
        faults.at = Number.POSITIVE_INFINITY;
        if (before !== 'no dump') expect((await run())?.record?.outcome).toBe('good');
        writeFileSync(input, 'newer');
        Object.assign(faults, { made: 0, at });
        const result = await run().catch((error: unknown) => error);
        const reached = faults.made > at;
        faults.at = Number.POSITIVE_INFINITY;
        const there = existsSync(output) ? readFileSync(output, 'utf8') : undefined;
        expect([undefined, 'old', 'newer'], `call ${at}`).toContain(there);
        if (!(result instanceof Error)) expect(result, `call ${at}`).toMatchObject({ status: 'ran' });
        // Nobody else's file came about: without force the next run makes it good.
        const next = await run();
        expect([next?.record?.outcome, next?.record?.error], `call ${at}`).toEqual(['good', null]);
        expect(readFileSync(output, 'utf8')).toBe('newer');
        expect(readdirSync(join(dir, 'sub')).sort(), `call ${at}`).toEqual(['out.dmp', 'out.dmp.json']);
        if (!reached) break;
        expect(at).toBeLessThan(100);
      }
    },
  );
});
