/**
 * What elf2dmp is known to get wrong on true guests, each with its point in issue 16. Tests state what is right; while
 * a gap is listed here, they hold that it still is one. Who mends it removes its line, and the tests hold the mend.
 */
import { it } from 'vitest';

export const KNOWN_GAPS: Readonly<Record<string, { point: number; what: string }>> = {};

/** A test of what is right. While `gap` is listed as known, the test is that the check fails, by an assertion. */
export function right(name: string, gap: string | undefined, check: () => Promise<void> | void): void {
  const known = gap === undefined ? undefined : KNOWN_GAPS[gap];
  if (!known) {
    it(name, check);
    return;
  }
  it(`${name} [known gap, point ${known.point}: ${gap}]`, async () => {
    try {
      await check();
    } catch (error) {
      // A refusal to convert is a gap like a wrong value; a fault of the test is not.
      if (error instanceof Error && /^(AssertionError|Elf2dmpError)$/.test(error.name)) return;
      throw error;
    }
    throw new Error(`"${gap}" is mended: remove it from test/support/known-gaps.ts`);
  });
}
