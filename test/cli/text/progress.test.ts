import { afterEach, describe, expect, it, vi } from 'vitest';
import { BatchProgress } from '../../../src/cli/text/batch-progress.ts';
import { ProgressLine } from '../../../src/cli/text/progress.ts';

afterEach(() => vi.restoreAllMocks());

describe('progress', () => {
  it('tells each phase once, however soon after the start of the process it is', () => {
    let now = 5;
    vi.spyOn(performance, 'now').mockImplementation(() => now);
    const said: string[] = [];
    const stream = { write: (text: string) => said.push(text) } as unknown as NodeJS.WriteStream;
    const line = new ProgressLine(stream, { quiet: true, json: true });
    line.update({ phase: 'open' });
    line.update({ phase: 'open' });
    line.update({ phase: 'locate' });
    line.update({ phase: 'write', done: 0, total: 10 });
    now += 50;
    line.update({ phase: 'write', done: 5, total: 10 });
    now += 60;
    line.update({ phase: 'write', done: 10, total: 10 });
    line.end();
    expect(said.map((text) => JSON.parse(text).progress)).toEqual([
      { phase: 'open' },
      { phase: 'locate' },
      { phase: 'write', done: 0, total: 10 },
      { phase: 'write', done: 10, total: 10 },
    ]);
  });

  it('tells how far a batch is, however soon that ends', () => {
    const said: string[] = [];
    const stream = { write: (text: string) => said.push(text) } as unknown as NodeJS.WriteStream;
    const job = { input: '/in/vm.elf', output: '/out/vm.dmp', relative: 'vm.elf', options: {} };
    const progress = new BatchProgress(stream, [{ job, state: 'to do', inputBytes: 4096 }], {
      quiet: true,
      json: true,
    });
    progress.start();
    progress.on({ type: 'started', job, attempt: 1 });
    progress.on({ type: 'ended', result: { job, status: 'skipped' } });
    progress.stop();
    const lines = said.map((text) => JSON.parse(text));
    expect(lines.map((line) => line.progress?.done ?? line.job.status)).toEqual([0, 'skipped', 1]);
    expect(lines[0].progress).toMatchObject({ phase: 'batch', total: 1, secondsLeft: null });
  });
});
