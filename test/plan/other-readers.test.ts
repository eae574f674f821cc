// Other programs that read crash dumps accept ours, and find every page where it is: by their rules, in our words.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { pa } from '../../src/core/units.ts';
import { locateWindows } from '../../src/locate/locator.ts';
import type { MemoryImage } from '../../src/memory/image.ts';
import { convert } from '../../src/operations/convert.ts';
import { chooseContexts } from '../../src/plan/contexts.ts';
import { headerValues } from '../../src/plan/header-values.ts';
import { type DumpPlan, planDump } from '../../src/plan/plan.ts';
import { openImage } from '../../src/readers/registry.ts';
import type { Windows } from '../../src/windows/windows.ts';
import { writeElf } from '../guest/elf.ts';
import { buildGuest } from '../guest/guest.ts';
import { addMemoryManager } from '../guest/memory-manager.ts';
import { kdmpParser, leechCore, memProcFs, type Reading, radare2, volatility3 } from '../support/other-readers.ts';

const READERS: Record<string, (file: Buffer) => Reading> = { kdmpParser, leechCore, memProcFs, volatility3, radare2 };

let dir: string;
let input: string;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'elf2dmp-readers-'));
  input = join(dir, 'vm.elf');
  // Of Windows 7, whose page frame database this has.
  const guest = buildGuest({ build: 'win7', ramMiB: 16, processors: 2 });
  addMemoryManager(guest);
  writeFileSync(input, writeElf(guest));
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

/** Where a plan puts each page. */
function pagesOf({ extents, firstPage }: Pick<DumpPlan, 'extents' | 'firstPage'>): Map<number, number> {
  const pages = new Map<number, number>();
  for (const { start, size } of extents) {
    for (let at = 0; at < size; at += 0x1000) pages.set((start + at) / 0x1000, firstPage + 0x1000 * pages.size);
  }
  return pages;
}

describe.each(['full', 'bitmap', 'kernel', 'active'] as const)('a dump of type %s', (type) => {
  let file: Buffer;
  let pages: Map<number, number>;
  beforeAll(async () => {
    const output = join(dir, `${type}.dmp`);
    const { dump } = await convert({ input, output, type });
    file = readFileSync(output);
    const extents = dump.runs.map(({ start, size }) => ({ start: pa(Number(start)), size }));
    pages = pagesOf({ extents, firstPage: dump.bytes - 0x1000 * dump.pages });
  });

  it.each(Object.keys(READERS))('is read whole by the rules of %s', (name) => {
    const refused = name === 'volatility3' && type === 'kernel';
    expect(READERS[name]!(file)).toEqual(refused ? 'type' : pages);
  });
});

describe('a bitmap dump', () => {
  let image: MemoryImage;
  let windows: Windows;
  beforeAll(async () => {
    image = openImage(input);
    windows = await locateWindows(image);
  });
  afterAll(() => image.close());

  const planned = (pagesKept: number, firstPage?: (prefix: number) => number) => {
    const context = chooseContexts(windows, 'auto').opened?.frame;
    return planDump(image, {
      values: headerValues(windows, context),
      patches: [],
      type: 'bitmap',
      kept: [{ start: pa(0), size: 0x1000 * pagesKept }],
      firstPage,
    });
  };

  // The last page in each place of a byte, of a word of 32 bits and of one of 64.
  it.each([1, 7, 8, 9, 31, 32, 33, 63, 64, 65, 71])('whose last page is number %i is read whole', (count) => {
    // Right behind the map come pages, whose bytes are not its.
    const plan = planned(count, (prefix) => prefix);
    const file = Buffer.concat([plan.prefix, Buffer.alloc(64, 0xff)]);
    for (const [name, read] of Object.entries({ kdmpParser, volatility3, radare2 })) {
      expect(read(file), name).toEqual(pagesOf(plan));
    }
    const aligned = planned(count);
    expect(leechCore(aligned.prefix)).toEqual(pagesOf(aligned));
  });

  it('whose pages stay where the input has them is refused by LeechCore, and a warning says so', () => {
    const plan = planned(64, (prefix) => prefix + 0x123);
    expect(leechCore(plan.prefix)).toBe('first page');
    expect(plan.diagnostics.map((d) => d.code)).toEqual(['unaligned-pages']);
    expect(kdmpParser(plan.prefix)).toEqual(pagesOf(plan));
  });
});
