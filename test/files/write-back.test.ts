import { describe, expect, it } from 'vitest';
import { MIB } from '../../src/core/units.ts';
import { MOST_BEHIND, WriteBack } from '../../src/files/write-back.ts';
import fc from '../support/properties.ts';

const turns = async (count: number): Promise<void> => {
  for (let i = 0; i < count; i++) await new Promise((resolve) => setImmediate(resolve));
};

describe('writing to disk while a file is written', () => {
  const sizes = fc.array(fc.integer({ min: 1, max: 80 }), { minLength: 1, maxLength: 60 });
  const delays = fc.infiniteStream(fc.nat(3));

  it('begins each range before it waits for the one before, and never has more than 256 MiB behind', async () => {
    await fc.assert(
      fc.asyncProperty(sizes, delays, async (pieces, ticks) => {
        let [written, begun, onDisk] = [0, 0, 0];
        const writeBack = new WriteBack({
          begin: async (from, size) => {
            expect([from, size > 0, from + size <= written]).toEqual([begun, true, true]);
            await turns(ticks.next().value);
            begun = from + size;
          },
          end: async (from, size) => {
            expect(from).toBe(onDisk);
            // Something else is under way, or nothing else is there yet.
            if (begun < written) expect(begun).toBeGreaterThan(from + size);
            await turns(ticks.next().value);
            onDisk = from + size;
            expect(onDisk).toBeLessThanOrEqual(begun);
          },
        });
        for (const piece of pieces) {
          written += piece * MIB;
          await writeBack.wrote(piece * MIB);
          expect(written - onDisk).toBeLessThanOrEqual(MOST_BEHIND);
        }
        await writeBack.end();
        expect(written - onDisk).toBeLessThanOrEqual(MOST_BEHIND);
      }),
      { numRuns: 100 },
    );
  });

  it.each(['begin', 'end'] as const)('says that the disk could not take it: %s', async (failing) => {
    const failure = new Error('no space left');
    const calls = { begin: async () => undefined, end: async () => undefined };
    const writeBack = new WriteBack({ ...calls, [failing]: () => Promise.reject(failure) });
    const write = async () => {
      for (let i = 0; i < 8; i++) await writeBack.wrote(64 * MIB);
    };
    await expect(write()).rejects.toBe(failure);
    await expect(writeBack.end()).rejects.toBe(failure);
  });
});
