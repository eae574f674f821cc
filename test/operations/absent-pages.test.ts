// Memory of which single pages are missing: each hides itself and nothing else.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { convert } from '../../src/operations/convert.ts';
import { inspect } from '../../src/operations/inspect.ts';
import { verify } from '../../src/operations/verify.ts';
import { writeElf } from '../guest/elf.ts';
import { buildGuest } from '../guest/guest.ts';
import { PAGE } from '../guest/memory.ts';
import { buildTrueGuest, type TrueGuest } from '../guest/true-guest.ts';
import { realCase } from '../support/real-data.ts';

let dir: string;
let input: string;
let output: string;
let guest: TrueGuest;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'elf2dmp-absent-'));
  [input, output] = [join(dir, 'vm.elf'), join(dir, 'out.dmp')];
  guest = buildTrueGuest();
  writeFileSync(input, writeElf(guest));
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const hex = (value: bigint) => `0x${value.toString(16).padStart(16, '0')}`;

describe('a large page of the kernel', () => {
  it('shows the KDBG though another of its pages is missing', async () => {
    const small = buildGuest({ kernelPages: '2m' });
    const { kernelBase, kernelSize, kdbg } = small.truth;
    const translate = (virtual: bigint) => small.kernel.translate(virtual)!;
    // One piece of physical memory, with zeros at the end of the image.
    const hole = translate(kernelBase + BigInt(kernelSize - 2 * PAGE));
    expect(hole - translate(kdbg)).toBe(Number(kernelBase - kdbg) + kernelSize - 2 * PAGE);
    expect(small.memory.page(hole).every((byte) => byte === 0)).toBe(true);
    const path = join(dir, 'hole.elf');
    const runs = [
      [0, 0xa0000],
      [0x100000, hole],
      [hole + PAGE, small.ramBytes],
    ] as const;
    writeFileSync(path, writeElf(small, { runs }));
    const { problem, windows } = await inspect({ input: path });
    expect(problem).toBeNull();
    expect(windows?.kdbg.address).toBe(hex(kdbg));
  });
});

describe('a dump without its pages of zeros', () => {
  it.each(['auto', 'kernel', 'active'] as const)(
    'is sound when it is made, by itself and against its input (%s)',
    async (type) => {
      const report = await convert({ input, output, type, dropZeroPages: true, verify: true, force: true });
      expect(report.dump.zeroPagesDropped).toBeGreaterThan(1000);
      expect(report.verification?.findings).toEqual([]);
      expect((await verify({ dump: output })).findings).toEqual([]);
      expect((await verify({ dump: output, against: input })).findings).toEqual([]);
      const { windows } = await inspect({ input: output });
      expect([windows?.build, windows?.bugCheck]).toEqual([19041, null]);
      expect(windows?.modules.map((m) => m.name)).toEqual(guest.truth.modules.map((m) => m.name));
    },
  );

  it('is not taken for one when it lacks anything else', async () => {
    const lost = guest.known.free;
    const less = join(dir, 'less.elf');
    const runs = [
      [0, 0xa0000],
      [0x100000, lost],
      [lost + PAGE, guest.ramBytes],
    ] as const;
    writeFileSync(less, writeElf(guest, { runs }));
    await convert({ input: less, output, dropZeroPages: true, force: true });
    expect((await verify({ dump: output, against: less })).outcome).toBe('sound');
    const { outcome, findings } = await verify({ dump: output, against: input });
    expect(outcome).toBe('differs');
    expect(findings.some((f) => f.code === 'pages-missing')).toBe(true);
  });
});

for (const name of ['05-drop-zero-pages-then-verify', '06-two-absent-pages-in-the-kernel']) {
  const file = realCase(`${name}/vm.elf.zst`);
  if (file === undefined) continue;
  it(`case ${name} is converted, and sound without its zeros`, async () => {
    const report = await convert({ input: file, output, dropZeroPages: true, verify: true, force: true });
    expect([report.outcome, report.verification?.findings]).toEqual(['losses', []]);
    expect((await verify({ dump: output, against: file })).outcome).toBe('sound');
    expect((await inspect({ input: output })).windows?.modules.length).toBe(6);
  });
}
