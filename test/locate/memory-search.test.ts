import { describe, expect, it } from 'vitest';
import { locateWindows } from '../../src/locate/locator.ts';
import { everyPage, MemorySearch, searchMemory } from '../../src/locate/memory-search.ts';
import { createScanMemory } from '../../src/machines/page-scan.ts';
import { createMemory, instantiate } from '../../src/machines/wasm.ts';
import { X64 } from '../../src/machines/x64/index.ts';
import { buildGuest } from '../guest/guest.ts';
import { imageOf } from '../support/images.ts';
import fc from '../support/properties.ts';

const PAGE = 0x1000;

describe('the search of all memory', () => {
  it('finds the same by its fast scan and by looking at every page', async () => {
    const guest = buildGuest({ seed: 80, processors: 3, highMiB: 16 });
    const pieces = [...guest.memory.pages].map(([start, bytes]) => ({ start, bytes }));
    const [fast, slow] = [
      await searchMemory(imageOf(pieces)),
      await searchMemory(imageOf(pieces), { scan: everyPage() }),
    ];
    expect(fast).toEqual(slow);
    expect(fast.kpcrs.map((k) => k.virtual).sort()).toEqual(guest.truth.processors.map((p) => p.kpcr).sort());
    expect(new Set(fast.roots.map((r) => r.how))).toEqual(new Set(['processor start block', 'self-map']));
    expect(fast.kdbgs.length).toBeGreaterThan(0);
  });

  it('leaves out no page that has a clue or a tag', () => {
    const { buffers, ...memory } = createScanMemory(16 * PAGE, 2);
    const scan = X64.createPageScan({ buffers, ...memory })!;
    const words = buffers.map((b) => new Uint32Array(b.buffer, b.byteOffset, b.length / 4));
    const at = fc.record({
      page: fc.nat(15),
      word: fc.nat(511),
      what: fc.constantFrom('tag', 'self', 'nearly self', 'kpcr', 'noise'),
    });
    fc.assert(
      fc.property(
        fc.array(at, { maxLength: 12 }),
        fc.integer({ min: 0, max: 2 ** 36 }),
        fc.constantFrom(0 as const, 1 as const),
        (marks, pfn, which) => {
          const physical = 2 ** 20 + pfn * PAGE;
          const buffer = buffers[which]!.fill(0);
          for (const { page, word, what } of marks) {
            const offset = page * PAGE + 8 * word;
            const self = BigInt(physical + page * PAGE);
            if (what === 'tag') buffer.write('KDBG', offset, 'latin1');
            else if (what === 'self') buffer.writeBigUInt64LE(self | 0x8000_0000_0000_0063n, offset);
            else if (what === 'nearly self') buffer.writeBigUInt64LE(self | 0xe3n, offset);
            else if (what === 'kpcr') {
              // In whole cache lines, as Windows 7 has its first one.
              const within = (8 * word) & ~63;
              const address = 0xfffff804_00001000n + BigInt(within);
              buffer.writeBigUInt64LE(address, page * PAGE + within + 0x18);
              buffer.writeBigUInt64LE(address + 0x180n, page * PAGE + within + 0x20);
              buffer.writeBigUInt64LE(0xfffff804_00002000n, page * PAGE + within + 0x38);
            } else buffer.writeUInt32LE(0x4742444b, offset + 4);
          }
          const found = new Set(scan.scan(which, 15 * PAGE, 16 * PAGE, physical));
          for (let page = 0; page < 16; page++) {
            const clues = page < 15 ? [...X64.pageClues(words[which]!, (page * PAGE) / 4, physical + page * PAGE)] : [];
            const tagged = Array.from({ length: 512 }, (_, i) => buffer.readUInt32LE(page * PAGE + 8 * i)).includes(
              0x4742444b,
            );
            // More may be looked at than has a clue: a KPCR's lower halves are enough. Never where nothing is.
            if (clues.length > 0 || tagged) expect(found.has(page * PAGE), `page ${page}`).toBe(true);
            else if (!marks.some((mark) => mark.page === page)) expect(found.has(page * PAGE)).toBe(false);
          }
        },
      ),
      { numRuns: 400 },
    );
  });

  it('stops at the block with the first root that is good enough, and goes on from there', async () => {
    const guest = buildGuest({ seed: 82, processors: 2 });
    const image = imageOf([{ start: 0, bytes: guest.memory.flat(0, guest.ramBytes) }]);
    const whole = await searchMemory(image);
    const before = image.bytesRead;
    const search = new MemorySearch([image]);
    const [first] = whole.roots;
    const part = { ...(await search.run((clue) => clue.root === first!.root)) };
    expect(part.bytes).toBeLessThan(whole.bytes);
    // The block, with the page behind it.
    expect(image.bytesRead - before).toBe(part.bytes + 0x1000);
    expect(search.finished).toBe(false);
    expect(await search.run()).toEqual(whole);
    expect(search.finished).toBe(true);
    // Again: nothing is left.
    expect(await search.run()).toEqual(whole);
  });

  it('is not all of memory where a root leads to Windows', async () => {
    const guest = buildGuest({ seed: 83, processors: 2 });
    const image = imageOf([{ start: 0, bytes: guest.memory.flat(0, guest.ramBytes) }]);
    const progress: number[] = [];
    const windows = await locateWindows(image, { onSearch: (done) => progress.push(done) });
    expect(windows.kernel.base).toBe(guest.truth.kernelBase);
    expect(progress.at(-1)).toBeLessThan(image.size);
    // The same as when everything is searched.
    const other = imageOf([{ start: 0, bytes: guest.memory.flat(0, guest.ramBytes) }]);
    expect(windows.root).toBe(
      (await searchMemory(other)).roots.find(({ how }) => how === 'processor start block')?.root,
    );
  });

  it('goes on behind a page that can not be read', async () => {
    const guest = buildGuest({ seed: 81, processors: 1 });
    const start = 0;
    const image = imageOf([{ start, bytes: guest.memory.flat(0, guest.ramBytes) }]);
    const whole = await searchMemory(image);
    // As a kdump reader has it: zeros on the way out, and a refusal to those who ask for sound bytes.
    image.readSync = () => false;
    expect(await searchMemory(image)).toEqual(whole);
  });

  it('does without, where an engine lacks the instructions', () => {
    const unknown = Uint8Array.of(0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0, 0xff);
    expect(instantiate(unknown, createMemory(1)!)).toBeUndefined();
    // More than 4 GiB.
    expect(createMemory(0x1_0000 + 1)).toBeUndefined();
    expect(X64.createPageScan({ buffers: [Buffer.alloc(PAGE)], wasm: undefined })).toBeUndefined();
  });
});
