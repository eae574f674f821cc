import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Elf2dmpError } from '../../src/core/errors.ts';
import { pa, va } from '../../src/core/units.ts';
import { checkOutput } from '../../src/files/publish.ts';
import type { MemoryImage } from '../../src/memory/image.ts';
import { encodeBitmap } from '../../src/plan/bitmap.ts';
import type { Patch } from '../../src/plan/patches.ts';
import { applyPatches } from '../../src/plan/patches.ts';
import { type DumpPlan, dumpTypeOf, type PlanOptions, type PlanValues, planDump } from '../../src/plan/plan.ts';
import { emitCopy } from '../../src/write/copy.ts';
import { imageOf } from '../support/images.ts';
import fc, { noise } from '../support/properties.ts';

const VALUES: PlanValues = {
  majorVersion: 0xf,
  build: 19041,
  directoryTableBase: 0x1ad000,
  pfnDatabase: 0xfffff80000000001n,
  psLoadedModuleList: 0xfffff80000000002n,
  psActiveProcessHead: 0xfffff80000000003n,
  machine: 0x8664,
  processors: 4,
  bugCheck: { code: 0xd1, parameters: [1n, 2n, 3n, 0xffffffffffffffffn] },
  kdDebuggerDataBlock: 0xfffff80000000004n,
  context: Buffer.alloc(0x4d0, 0xcc),
  exceptionAddress: 0xfffff80000000005n,
  systemTime: 0x01d9000000000000n,
  systemUpTime: 0x123456789n,
  productType: 1,
  suiteMask: 0x110,
  kdSecondaryVersion: 0,
  pagingLevels: undefined,
  bootId: undefined,
  secureKernel: false,
  comment: 'a comment',
};

const patch = (physical: number, bytes: Buffer): Patch => ({
  what: 'test',
  virtual: va(0n),
  physical: pa(physical),
  bytes,
  original: Buffer.alloc(bytes.length),
});

const plan = (
  image: MemoryImage,
  patches: Patch[] = [],
  options: Omit<PlanOptions, 'values' | 'patches'> = { type: 'auto' },
) => planDump(image, { values: VALUES, patches, ...options });

describe('the attributes', () => {
  it('say that there is a secure kernel, and the type is known all the same', () => {
    const types = ['full', 'bitmap', 'kernel', 'active'] as const;
    const attributesOf = (type: (typeof types)[number], secureKernel: boolean) => {
      const image = imageOf([{ start: 0x1000, bytes: Buffer.alloc(0x2000) }]);
      const { prefix } = planDump(image, { values: { ...VALUES, secureKernel }, patches: [], type });
      const header = image.machine.dumpHeader.decode(prefix);
      expect(dumpTypeOf(header)).toBe(type);
      return header.Attributes;
    };
    expect(types.map((type) => attributesOf(type, false))).toEqual([0x45474150, 0, 0, 0x40]);
    expect(types.map((type) => attributesOf(type, true))).toEqual([0x800, 0x800, 0x800, 0x840]);
  });
});

describe('the header of a full dump', () => {
  const image = imageOf([
    { start: 0x1000, bytes: Buffer.alloc(0x9e000) },
    { start: 0x100000, bytes: Buffer.alloc(0x5000) },
  ]);
  const { prefix, size, type } = plan(image);

  it('has every field where Windows has it', () => {
    expect(type).toBe('full');
    expect(prefix.length).toBe(0x2000);
    expect(prefix.toString('latin1', 0, 8)).toBe('PAGEDU64');
    expect([prefix.readUInt32LE(8), prefix.readUInt32LE(0xc)]).toEqual([0xf, 19041]);
    expect(prefix.readBigUInt64LE(0x10)).toBe(0x1ad000n);
    expect(prefix.readBigUInt64LE(0x18)).toBe(0xfffff80000000001n);
    expect(prefix.readBigUInt64LE(0x20)).toBe(0xfffff80000000002n);
    expect(prefix.readBigUInt64LE(0x28)).toBe(0xfffff80000000003n);
    expect([prefix.readUInt32LE(0x30), prefix.readUInt32LE(0x34), prefix.readUInt32LE(0x38)]).toEqual([
      0x8664, 4, 0xd1,
    ]);
    expect([0, 1, 2, 3].map((i) => prefix.readBigUInt64LE(0x40 + 8 * i))).toEqual([1n, 2n, 3n, 0xffffffffffffffffn]);
    expect(prefix.readBigUInt64LE(0x80)).toBe(0xfffff80000000004n);
    expect(prefix.readUInt32LE(0x88)).toBe(2);
    expect(prefix.readBigUInt64LE(0x90)).toBe(0xa3n);
    expect([0, 1, 2, 3].map((i) => prefix.readBigUInt64LE(0x98 + 8 * i))).toEqual([1n, 0x9en, 0x100n, 5n]);
    expect(prefix.subarray(0x348, 0x348 + 0x4d0)).toEqual(Buffer.alloc(0x4d0, 0xcc));
    expect(prefix.readUInt32LE(0xf00)).toBe(0x80000003);
    expect(prefix.readBigUInt64LE(0xf10)).toBe(0xfffff80000000005n);
    expect(prefix.readUInt32LE(0xf98)).toBe(1);
    expect(prefix.readBigUInt64LE(0xfa0)).toBe(BigInt(size));
    expect(prefix.readBigUInt64LE(0xfa8)).toBe(0x01d9000000000000n);
    expect(prefix.toString('latin1', 0xfb0, 0xfba)).toBe('a comment\0');
    expect(prefix.readBigUInt64LE(0x1030)).toBe(0x123456789n);
    expect([prefix.readUInt32LE(0x1040), prefix.readUInt32LE(0x1044)]).toEqual([1, 0x110]);
    expect(size).toBe(0x2000 + 0xa3 * 0x1000);
  });

  it('fills what is not set as Windows does', () => {
    const fill = Buffer.alloc(0x1000, 'PAGE');
    expect(prefix.subarray(0xb8, 0x348)).toEqual(fill.subarray(0, 0x348 - 0xb8));
    expect(prefix.subarray(0x348 + 0x4d0, 0xf00)).toEqual(fill.subarray(0, 0xf00 - 0x818));
    expect(prefix.subarray(0x1058)).toEqual(fill.subarray(0, 0x2000 - 0x1058));
    expect(prefix.toString('latin1', 0x3c, 0x40)).toBe('PAGE');
    expect(prefix.toString('latin1', 0x8c, 0x90)).toBe('PAGE');
    expect(prefix.toString('latin1', 0xf9c, 0xfa0)).toBe('PAGE');
  });
});

describe('runs', () => {
  const scattered = (count: number) =>
    imageOf(Array.from({ length: count }, (_, i) => ({ start: i * 0x2000, bytes: Buffer.alloc(0x1000, i) })));

  it('stay in the header up to 42, and become a bitmap beyond', () => {
    expect(plan(scattered(42)).type).toBe('full');
    const { type, prefix, firstPage, pages, size } = plan(scattered(43));
    expect([type, prefix.readUInt32LE(0xf98)]).toEqual(['bitmap', 5]);
    expect(prefix.toString('latin1', 0x2000, 0x2008)).toBe('SDMPDUMP');
    expect(prefix.readBigUInt64LE(0x2020)).toBe(BigInt(firstPage));
    expect(prefix.readBigUInt64LE(0x2028)).toBe(43n);
    expect(prefix.readBigUInt64LE(0x2030)).toBe(128n);
    expect([...prefix.subarray(0x2038)]).toEqual([...new Array(10).fill(0x55), 0x15, 0, 0, 0, 0, 0]);
    expect([pages, firstPage, size]).toEqual([43, 0x3000, 0x3000 + 43 * 0x1000]);
  });

  it('make the bitmap that a naive loop makes', () => {
    fc.assert(
      fc.property(fc.uniqueArray(fc.nat(300), { minLength: 2, maxLength: 40 }), (cuts) => {
        cuts.sort((a, b) => a - b);
        const extents = [];
        const bits = new Array(320).fill(0);
        let pages = 0;
        for (let i = 0; i + 1 < cuts.length; i += 2) {
          extents.push({ start: pa(cuts[i]! * 0x1000), size: (cuts[i + 1]! - cuts[i]!) * 0x1000 });
          for (let n = cuts[i]!; n < cuts[i + 1]!; n++) bits[n] = 1;
          pages += cuts[i + 1]! - cuts[i]!;
        }
        const map = encodeBitmap(extents, pages, 0x3000).subarray(0x38);
        for (let n = 0; n < map.length * 8; n++) expect((map[n >> 3]! >> (n & 7)) & 1).toBe(bits[n]);
        expect(map.length * 8).toBeGreaterThanOrEqual(cuts.at(cuts.length % 2 === 0 ? -1 : -2)!);
      }),
    );
  });

  it('are never cut to fit a full dump', () => {
    expect(() => plan(scattered(43), [], { type: 'full' })).toThrow('43 runs');
    expect(plan(scattered(2), [], { type: 'bitmap' }).prefix.readUInt32LE(0xf98)).toBe(5);
  });

  it('are kept where Windows has RAM, if only that is wanted', () => {
    const image = imageOf([
      { start: 0x1000, bytes: Buffer.alloc(0x5000) },
      { start: 0x10000, bytes: Buffer.alloc(0x2000) },
    ]);
    const ranges = [
      { start: pa(0x2000), size: 0x2000 },
      { start: pa(0x5000), size: 0x3000 },
    ];
    const { extents, diagnostics } = plan(image, [], { type: 'auto', ranges });
    expect(extents).toEqual([
      { start: 0x2000, size: 0x2000 },
      { start: 0x5000, size: 0x1000 },
    ]);
    expect(diagnostics.map((d) => d.code)).toEqual(['ram-left-out']);
  });

  it('do not cost gigabytes of bitmap for a forged address', () => {
    const image = imageOf([
      { start: 0x1000, bytes: Buffer.alloc(0x1000) },
      { start: 2 ** 52 - 0x1000, bytes: Buffer.alloc(0x1000) },
    ]);
    const { extents, firstPage, diagnostics } = plan(image, [], { type: 'bitmap' });
    expect(extents).toEqual([{ start: 0x1000, size: 0x1000 }]);
    expect(firstPage).toBe(0x3000);
    expect(diagnostics.map((d) => d.code)).toEqual(['extents-too-far']);
  });

  it('do not cost gigabytes for many forged addresses either', () => {
    const far = Array.from({ length: 300 }, (_, i) => ({ start: (i + 1) * 2 ** 39, bytes: Buffer.alloc(0x1000) }));
    const { extents, firstPage, diagnostics } = plan(imageOf([{ start: 0x1000, bytes: Buffer.alloc(0x1000) }, ...far]));
    expect(firstPage).toBeLessThan(17 << 20);
    expect(extents.length).toBeLessThan(4);
    expect(diagnostics.map((d) => d.code)).toEqual(['extents-too-far']);
  });

  it('leave out incomplete pages, and say so', () => {
    const { extents, pages, diagnostics } = plan(imageOf([{ start: 0x1800, bytes: Buffer.alloc(0x2000) }]));
    expect(extents).toEqual([{ start: 0x2000, size: 0x1000 }]);
    expect(pages).toBe(1);
    expect(diagnostics.map(({ severity, code }) => [severity, code])).toEqual([['loss', 'partial-pages']]);
    expect(diagnostics[0]!.message).toContain('0x1800+0x800, 0x3000+0x800');
  });

  it.each([
    [0x1000000, []],
    [0x1001000, ['large-bitmap']],
    [0x3123, ['unaligned-pages']],
  ])('warns where LeechCore would refuse: pages from 0x%x', (firstPage, codes) => {
    const { diagnostics } = plan(imageOf([{ start: 0, bytes: Buffer.alloc(0x1000) }]), [], {
      type: 'bitmap',
      firstPage: () => firstPage,
    });
    expect(diagnostics.map((d) => d.code)).toEqual(codes);
  });
});

describe('patches', () => {
  it('change just their bytes, however the memory is cut into chunks', () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat(900), fc.integer({ min: 1, max: 60 })), { maxLength: 8 }),
        fc.integer({ min: 1, max: 200 }),
        (places, chunk) => {
          const memory = noise(1000);
          const expected = Buffer.from(memory);
          const patches = [];
          let end = 0;
          for (const [at, length] of places.sort((a, b) => a[0] - b[0])) {
            if (at < end) continue;
            end = at + length;
            const bytes = noise(length, 1 + at);
            bytes.copy(expected, at);
            patches.push(patch(at, bytes));
          }
          for (let at = 0; at < memory.length; at += chunk) applyPatches(patches, at, memory.subarray(at, at + chunk));
          expect(memory).toEqual(expected);
        },
      ),
    );
  });
});

it('a patch of a page that is not kept is a loss', () => {
  const image = imageOf([{ start: 0, bytes: Buffer.alloc(0x3000) }]);
  const kept = [{ start: pa(0), size: 0x2000 }];
  const bytes = Buffer.alloc(8, 1);
  const { patches, diagnostics } = plan(image, [patch(0x1ff8, bytes), patch(0x1ffc, bytes), patch(0x2000, bytes)], {
    type: 'bitmap',
    kept,
  });
  expect(patches.map(({ physical }) => physical)).toEqual([0x1ff8]);
  expect(diagnostics.map(({ severity, code }) => `${severity} ${code}`)).toEqual(Array(2).fill('loss patch-left-out'));
});

describe('writing', () => {
  let dir: string;
  let out: string;
  const bytes = noise(0x1000 * 700);
  const image = imageOf([
    { start: 0x1000, bytes: bytes.subarray(0, 0x1000 * 500) },
    { start: 0x800000, bytes: bytes.subarray(0x1000 * 500) },
  ]);
  const thePlan: DumpPlan = plan(image, [patch(0x1ffe, Buffer.from('abcd'))]);

  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'elf2dmp-test-'));
    out = join(dir, 'out.dmp');
  });
  afterEach(() => rmSync(dir, { recursive: true, force: true }));

  const failing = (after: number, error: Error) => {
    let calls = 0;
    return new Proxy(image, {
      get: (target, key) =>
        key === 'read'
          ? async (address: number, buffer: Buffer) => {
              if (calls++ >= after) throw error;
              return target.read(address, buffer);
            }
          : Reflect.get(target, key, target),
    });
  };

  it('writes the header, then all pages in order, with patches', async () => {
    const progress: number[] = [];
    await emitCopy(thePlan, image, out, { onProgress: (done) => progress.push(done) });
    const file = readFileSync(out);
    expect(file.subarray(0, 0x2000)).toEqual(thePlan.prefix);
    const expected = Buffer.from(bytes);
    expected.write('abcd', 0xffe, 'latin1');
    expect(file.subarray(0x2000).equals(expected)).toBe(true);
    expect(file.length).toBe(thePlan.size);
    expect(progress.at(-1)).toBe(thePlan.size);
    expect(statSync(out).mode & 0o777).toBe(0o600);
    expect(readdirSync(dir)).toEqual(['out.dmp']);
  });

  it('leaves nothing behind when a read fails, wherever it does', async () => {
    for (const after of [0, 1, 2]) {
      await expect(emitCopy(thePlan, failing(after, new Error('EIO')), out)).rejects.toThrow('EIO');
      expect(readdirSync(dir)).toEqual([]);
    }
  });

  it('keeps an existing output when it fails, also with force', async () => {
    writeFileSync(out, 'precious');
    await expect(emitCopy(thePlan, failing(1, new Error('EIO')), out, { force: true })).rejects.toThrow('EIO');
    expect(readFileSync(out, 'utf8')).toBe('precious');
    expect(readdirSync(dir)).toEqual(['out.dmp']);
  });

  it('does not replace a file that appeared while it worked', async () => {
    await expect(
      emitCopy(thePlan, image, out, { onProgress: (done) => done > 0x3000 && writeFileSync(out, 'precious') }),
    ).rejects.toMatchObject({ code: 'output-exists', kind: 'io-permanent' });
    expect(readFileSync(out, 'utf8')).toBe('precious');
    expect(readdirSync(dir)).toEqual(['out.dmp']);
  });

  it('replaces an existing output with force', async () => {
    writeFileSync(out, 'old');
    await emitCopy(thePlan, image, out, { force: true });
    expect(statSync(out).size).toBe(thePlan.size);
  });

  it('stops when it is aborted, and leaves nothing behind', async () => {
    const abort = new AbortController();
    const reason = new Elf2dmpError({ code: 'aborted', kind: 'aborted', message: 'stop' });
    await expect(
      emitCopy(thePlan, image, out, { signal: abort.signal, onProgress: () => abort.abort(reason) }),
    ).rejects.toBe(reason);
    expect(readdirSync(dir)).toEqual([]);
  });

  it('refuses a dump that the file system has no room for, before writing', async () => {
    await expect(emitCopy({ ...thePlan, size: 2 ** 60 }, image, out)).rejects.toMatchObject({
      code: 'no-space',
      kind: 'io-transient',
    });
    expect(readdirSync(dir)).toEqual([]);
  });

  it('refuses outputs that are the input, directories, links, or in no directory', async () => {
    const input = join(dir, 'in.elf');
    writeFileSync(input, 'x');
    symlinkSync(input, join(dir, 'link'));
    await expect(checkOutput(input, input, true)).rejects.toMatchObject({ code: 'output-is-input', kind: 'usage' });
    await expect(checkOutput(dir, input, true)).rejects.toMatchObject({ code: 'output-not-a-file' });
    await expect(checkOutput(join(dir, 'link'), input, true)).rejects.toMatchObject({ code: 'output-not-a-file' });
    await expect(checkOutput(join(dir, 'no', 'out'), input, true)).rejects.toMatchObject({ code: 'io-enoent' });
    await expect(checkOutput(input, join(dir, 'other'), false)).rejects.toMatchObject({ code: 'output-exists' });
    await expect(checkOutput('/dev/null', input, true)).rejects.toMatchObject({ code: 'output-not-a-file' });
    expect(await checkOutput(out, input, false)).toBe(out);
  });
});
