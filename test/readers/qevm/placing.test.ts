// Pages that are put into a file while others are on their way to it, against a copy of memory.
import { setImmediate as turn } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { Busy } from '../../../src/readers/qevm/cursor.ts';
import { Placing } from '../../../src/readers/qevm/placing.ts';
import { type ArrangedFile, Arrangement } from '../../../src/source/arranged.ts';
import fc from '../../support/properties.ts';

const PAGE = 4096;
const PAGES = 1200;
/** Bytes in front of a page in its record. */
const WORD = 8;

/** A disk that takes its time: what it is given is read in the end, and in any order. */
function slowFile(size: number, waits: () => number): { bytes: Buffer; file: ArrangedFile } {
  const bytes = Buffer.alloc(size);
  const file: ArrangedFile = {
    path: '',
    holes: true,
    memory: (length) => Buffer.alloc(length, 0xee),
    write: () => Promise.reject(new Error('not asked for')),
    async overwrite(from, position) {
      for (let left = waits(); left > 0; left--) await turn();
      from.copy(bytes, position);
    },
    writeNow: (from, position) => void from.copy(bytes, position),
    readNow: (target, position) => void bytes.copy(target, 0, position),
    settle: () => Promise.resolve(),
    end: () => Promise.resolve(),
    close: () => Promise.resolve(),
  };
  return { bytes, file };
}

const COMMANDS = fc.record({
  kind: fc.constantFrom('raw', 'raw', 'raw', 'zeros', 'one', 'fill', 'delta'),
  page: fc.nat(PAGES - 1),
  count: fc.oneof(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 200, max: 900 })),
  byte: fc.integer({ min: 1, max: 255 }),
  /** Of the pages of a run, the zeros among them. */
  every: fc.integer({ min: 2, max: 300 }),
});

type Command = typeof COMMANDS extends fc.Arbitrary<infer T> ? T : never;

/** Records of a run, in which some pages are zeros. */
function recordsOf({ count, byte, every }: Command): Buffer {
  const records = Buffer.alloc(3 + count * (WORD + PAGE), 0x99);
  for (let i = 0; i < count; i++) {
    const at = 3 + i * (WORD + PAGE) + WORD;
    records.fill(i % every === every - 1 ? 0 : byte + i, at, at + PAGE);
    // Zeros but for their last byte.
    if (i % 7 === 3) records.fill(0, at, at + PAGE - 1);
  }
  return records;
}

describe('pages that are put into a file', () => {
  it('are those that came last, whatever was still on its way', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(COMMANDS, { minLength: 1, maxLength: 60 }),
        fc.infiniteStream(fc.nat(12)),
        async (commands, delays) => {
          const { bytes, file } = slowFile((PAGES + 1) * PAGE, () => delays.next().value as number);
          // Two parts, the second in front of the first, and a page between them that is kept in memory.
          const half = PAGES / 2;
          const arrangement = new Arrangement(
            file,
            [
              { offset: 0, size: half * PAGE, position: (half + 1) * PAGE },
              { offset: (half + 1) * PAGE, size: (half - 1) * PAGE, position: PAGE },
            ],
            [{ offset: half * PAGE, size: PAGE }],
          );
          const placing = new Placing(arrangement, new Map([['ram', 0]]));
          const block = placing.block('ram', PAGES * PAGE);
          const model = Buffer.alloc(PAGES * PAGE);
          const came = new Set<number>();
          const retried = async <T>(step: () => T): Promise<T> => {
            for (;;) {
              try {
                return step();
              } catch (error) {
                if (!(error instanceof Busy)) throw error;
                await placing.settle();
              }
            }
          };
          for (const command of commands) {
            const { kind, page, byte } = command;
            const count = Math.min(command.count, PAGES - page);
            const at = page * PAGE;
            if (kind === 'raw') {
              const records = recordsOf({ ...command, count });
              for (let i = 0; i < count; i++) {
                records.copy(model, at + i * PAGE, 3 + i * (WORD + PAGE) + WORD, 3 + (i + 1) * (WORD + PAGE));
              }
              for (let taken = 0; taken < count; ) {
                const left = { from: 3 + taken * (WORD + PAGE), count: count - taken };
                taken += await retried(() => block.rawRun(page + taken, records, left));
              }
              for (let i = 0; i < count; i++) came.add(page + i);
            } else if (kind === 'zeros') {
              model.fill(0, at, at + count * PAGE);
              for (let taken = 0; taken < count; ) {
                taken += await retried(() => block.zeroRun(page + taken, count - taken));
              }
              for (let i = 0; i < count; i++) came.add(page + i);
            } else if (kind === 'delta') {
              // Five bytes stay, one is new.
              if (!came.has(page)) continue;
              model[at + 5] = byte;
              await retried(() => block.delta(page, Buffer.from([5, 1, byte])));
            } else {
              const content = Buffer.alloc(PAGE, byte);
              content.copy(model, at);
              await retried(() => (kind === 'one' ? block.raw(page, content) : block.fill(page, byte)));
              came.add(page);
            }
          }
          await placing.end();
          for (let page = 0; page < PAGES; page++) expect(block.has(page)).toBe(came.has(page));
          expect(arrangement.keptFrom(half * PAGE)!.bytes.equals(model.subarray(half * PAGE, (half + 1) * PAGE))).toBe(
            true,
          );
          const found = Buffer.concat([
            bytes.subarray((half + 1) * PAGE, (2 * half + 1) * PAGE),
            model.subarray(half * PAGE, (half + 1) * PAGE),
            bytes.subarray(PAGE, half * PAGE),
          ]);
          expect(found.equals(model)).toBe(true);
        },
      ),
      { numRuns: 150 },
    );
  });
});
