import { describe, expect, it } from 'vitest';
import { because, Reason } from '../../src/core/reason.ts';

describe('Reason', () => {
  it('stands in a message as its text', () => {
    const reason = because('the list is not present');
    expect(`processes: ${reason}`).toBe('processes: the list is not present');
    expect(reason.text).toBe('the list is not present');
  });

  it('is told from a value by its class, whatever the value is', () => {
    const results: readonly (Reason | string | { text: string })[] = ['text', { text: 'text' }, because('text')];
    expect(results.map((result) => result instanceof Reason)).toEqual([false, false, true]);
  });
});
