import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { locateWindows } from '../../src/locate/locator.ts';
import type { MemoryImage } from '../../src/memory/image.ts';
import { chooseContexts } from '../../src/plan/contexts.ts';
import { planConversion } from '../../src/plan/conversion.ts';
import { openImage } from '../../src/readers/registry.ts';
import type { Windows } from '../../src/windows/windows.ts';
import { writeElf } from '../guest/elf.ts';
import { buildGuest, type Guest, type GuestOptions } from '../guest/guest.ts';

let dir: string;
const opened: MemoryImage[] = [];
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'elf2dmp-losses-'));
});
afterAll(() => {
  for (const image of opened) image.close();
  rmSync(dir, { recursive: true, force: true });
});

async function located(
  options: GuestOptions,
  withoutNotes: boolean,
  change: (guest: Guest) => void = () => undefined,
): Promise<Windows> {
  const file = join(dir, `${opened.length}.elf`);
  const guest = buildGuest(options);
  change(guest);
  writeFileSync(file, writeElf(guest, { withoutNotes }));
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

  it('has one for special registers that would lie in the frame', async () => {
    const windows = await located({}, false);
    const { kdbg } = windows;
    const special = kdbg.fields.OffsetPrcbProcStateSpecialReg!;
    const lossesWith = (frame: number) => {
      const fields = { ...kdbg.fields, OffsetPrcbProcStateContext: frame };
      const { diagnostics, plan } = planConversion({ ...windows, kdbg: { ...kdbg, fields } });
      const set = plan.patches.filter(({ what }) => what.startsWith('special registers'));
      return [diagnostics.filter(({ code }) => code === 'no-special-registers').length, set.length > 0];
    };
    expect([special + 8, special + 0xe0].map(lossesWith)).toEqual([
      [2, false],
      [0, true],
    ]);
  });

  it('shows the frame of the crash by itself only if Windows captured it in KeBugCheckEx', async () => {
    const windows = await located({ crash: CRASH }, false);
    const sourcesOf = (atBugCheck: boolean, choice: 'auto' | 'captured') => {
      const captured = new Map([...windows.crash!.captured].map(([p, frame]) => [p, { ...frame, atBugCheck }]));
      const { shown } = chooseContexts({ ...windows, crash: { ...windows.crash!, captured } }, choice);
      return shown.map(({ source }) => source);
    };
    expect(sourcesOf(true, 'auto')).toEqual(['cpu', 'captured']);
    expect(sourcesOf(false, 'auto')).toEqual(['cpu', 'cpu']);
    expect(sourcesOf(false, 'captured')).toEqual(['cpu', 'captured']);
  });

  it.each([
    ['RIP', 0xf8n, 0x4141414141414141n, /Rip 0x4141414141414141 lies in no module/i],
    ['RSP', 0x98n, 0x1233n, /is not on a kernel stack/],
  ])('says why the captured frame is refused: its %s', async (_, at, value, why) => {
    const change = ({ kernel, truth }: Guest) => kernel.u64(truth.processors[1]!.context + at, value);
    for (const [withoutNotes, shown] of [
      [false, "its CPU's later registers are shown"],
      [true, 'its registers are unknown'],
    ] as const) {
      const { diagnostics } = planConversion(await located({ crash: CRASH }, withoutNotes, change));
      const warnings = diagnostics.filter(
        ({ code, message }) => code === 'captured-frame-doubtful' && message.startsWith('processor 1'),
      );
      expect(warnings).toMatchObject([{ message: expect.stringContaining(shown) }]);
      expect(warnings[0]?.message).toMatch(why);
    }
  });
});
