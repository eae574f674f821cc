import { afterEach, describe, expect, it, vi } from 'vitest';
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
});
