import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { locateWindows } from '../../src/locate/locator.ts';
import type { MemoryImage } from '../../src/memory/image.ts';
import { planConversion } from '../../src/plan/conversion.ts';
import { openImage } from '../../src/readers/registry.ts';
import type { Windows } from '../../src/windows/windows.ts';
import { writeElf } from '../guest/elf.ts';
import { buildGuest, type GuestOptions } from '../guest/guest.ts';

let dir: string;
const opened: MemoryImage[] = [];
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'elf2dmp-losses-'));
});
afterAll(() => {
  for (const image of opened) image.close();
  rmSync(dir, { recursive: true, force: true });
});

async function located(options: GuestOptions, withoutNotes: boolean): Promise<Windows> {
  const file = join(dir, `${opened.length}.elf`);
  writeFileSync(file, writeElf(buildGuest(options), { withoutNotes }));
  const image = openImage(file);
  opened.push(image);
  return locateWindows(image);
}

const seen = ({ diagnostics }: { diagnostics: readonly { severity: string; code: string }[] }) =>
  diagnostics.map(({ severity, code }) => `${severity} ${code}`);

const CRASH = { code: 0xd1, parameters: [0x10n, 2n, 0n, 0xfffff8042c460004n] as const, processor: 1 };

describe('a plan', () => {
  it('leaves the image and a second plan as they are', async () => {
    const windows = await located({}, true);
    const before = [...windows.image.diagnostics.list];
    const first = planConversion(windows, { ram: 'windows' });
    const second = planConversion(windows);
    expect(seen(first)).toContain('loss processor-without-state');
    expect(planConversion(windows, { ram: 'windows' }).diagnostics).toEqual(first.diagnostics);
    expect(seen(second)).not.toContain('note ram-left-out');
    expect(windows.image.diagnostics.list).toEqual(before);
  });

  it('has a loss for registers that nothing is known of', async () => {
    expect(seen(planConversion(await located({}, true)))).toEqual([
      'loss no-cpu-states',
      'loss processor-without-state',
      'loss processor-without-state',
    ]);
  });

  it('has none for registers that Windows captured, which are shown', async () => {
    const of = async (options: GuestOptions) => planConversion(await located(options, true));
    const both = await of({ crash: CRASH });
    expect(both.contexts.shown.map(({ source }) => source)).toEqual(['unknown', 'captured']);
    expect(both.diagnostics.filter(({ code }) => code === 'processor-without-state')).toMatchObject([
      { message: expect.stringContaining('processor 0') },
    ]);
    const only = await of({ processors: 1, crash: { ...CRASH, processor: 0 } });
    expect(only.contexts.shown.map(({ source }) => source)).toEqual(['captured']);
    expect(seen(only)).toEqual(['warning no-cpu-states']);
  });
});
