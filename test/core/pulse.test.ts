import { describe, expect, it } from 'vitest';
import { Pulse, takeSignals } from '../../src/core/pulse.ts';

describe('a pulse', () => {
  it('lets other work in', async () => {
    const pulse = new Pulse();
    let isIn = false;
    setImmediate(() => {
      isIn = true;
    });
    for (let beats = 0; !isIn && beats < 20_000_000; beats++) await pulse.beat();
    expect(isIn).toBe(true);
  });

  it('ends the work that a signal ends, with its reason', async () => {
    const controller = new AbortController();
    const pulse = new Pulse(controller.signal);
    setImmediate(() => controller.abort(new Error('to be ended')));
    const work = async () => {
      for (let beats = 0; beats < 20_000_000; beats++) await pulse.beat();
    };
    await expect(work()).rejects.toThrow('to be ended');
  });

  it('has let in a signal when a result is given away', async () => {
    const stop = new AbortController();
    setImmediate(() => stop.abort(new Error('stop')));
    await expect(takeSignals(stop.signal)).rejects.toThrow('stop');
    await takeSignals(undefined);
  });
});
