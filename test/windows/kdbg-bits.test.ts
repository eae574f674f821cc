// Every field of the KDBG that the product knows, one bit off: what is shown then is what was shown before, or something
// is said.
import { describe, expect, it } from 'vitest';
import { Elf2dmpError } from '../../src/core/errors.ts';
import { DebuggerData } from '../../src/formats/win-kernel.ts';
import { locateWindows } from '../../src/locate/locator.ts';
import { planConversion } from '../../src/plan/conversion.ts';
import { openSource } from '../../src/readers/registry.ts';
import type { HangReport } from '../../src/report/activity.ts';
import { describeWindows } from '../../src/report/windows.ts';
import { BufferSource } from '../../src/source/buffer.ts';
import { walkStack } from '../../src/windows/stacks.ts';
import { writeElf } from '../guest/elf.ts';
import { buildGuest, type GuestOptions } from '../guest/guest.ts';

const CRASH = { code: 0xd1, parameters: [0x10n, 2n, 0n, 0xfffff8042c460004n], processor: 0 } as const;
const GUESTS: Record<string, GuestOptions> = {
  crashed: { seed: 3, build: 'win11', crash: CRASH },
  'with one processor': { seed: 3, processors: 1, build: 'win10', crash: CRASH },
  running: { seed: 1, processors: 2, user: [1] },
  'of Server 2003': { seed: 4, build: 'server2003' },
};

/** Only each so many bits, another one in each field: all take a minute. */
const STEP = 5;

interface Shown {
  /** All that is shown, but for the block's own size. */
  text: string;
  said: number;
  /** What each processor does: every fact says itself what it is from, or why it is not known. */
  activity: HangReport | null;
}

async function show(file: Buffer): Promise<Shown | undefined> {
  const windows = await locateWindows(openSource(new BufferSource(file)));
  const planned = planConversion(windows);
  const { shown } = planned.contexts;
  const stacks = shown
    .filter(({ source }) => source !== 'unknown')
    .map(({ processor, frame }) => walkStack(windows, processor, frame).frames.map((f) => f.instructionPointer));
  const { doubts, kdbg, activity, ...info } = describeWindows(windows, planned.contexts);
  const { plan } = planned;
  const patches = plan.patches
    .filter(({ what }) => what !== 'KDBG')
    .map(({ virtual, bytes }) => [virtual, bytes.toString('hex')]);
  const header = plan.prefix.toString('hex');
  return {
    text: JSON.stringify([info, kdbg?.address, stacks, patches, header], (_, value: unknown) =>
      typeof value === 'bigint' ? `${value}` : value,
    ),
    said: doubts.length + windows.image.diagnostics.list.length + planned.diagnostics.length,
    activity,
  };
}

/** Facts that are neither what they were, nor unknown, nor said to be from where the KDBG points. */
function differingFacts(clean: Shown | undefined, damaged: Shown): string[] {
  return (damaged.activity?.processors ?? []).flatMap((processor, i) => {
    const before = clean?.activity?.processors[i] as unknown as Record<string, unknown> | undefined;
    return Object.entries(processor).flatMap(([name, fact]) => {
      if (typeof fact !== 'object' || fact.value === null || fact.from.includes('by the KDBG')) return [];
      const same = JSON.stringify((before?.[name] as typeof fact | undefined)?.value) === JSON.stringify(fact.value);
      return same ? [] : [`${name} of processor ${i}`];
    });
  });
}

describe.each(Object.entries(GUESTS))('a guest that is %s', (_, options) => {
  it('shows nothing else when a bit of its KDBG is wrong, and is silent', async () => {
    const guest = buildGuest({ kdbg: 'plain', decoys: false, ...options });
    const { kdbgBlock } = guest.truth;
    const file = writeElf(guest);
    const block = file.indexOf(kdbgBlock.subarray(0, 0x60));
    const clean = await show(file);
    expect(clean?.said).toBe(0);
    const wrong: string[] = [];
    for (const [i, name] of Object.keys(DebuggerData.fields).entries()) {
      const { offset, size } = DebuggerData.fields[name as keyof typeof DebuggerData.fields];
      if (offset + size > kdbgBlock.length) continue;
      for (let bit = i % STEP; bit < 8 * size; bit += STEP) {
        const at = block + offset + (bit >> 3);
        file[at]! ^= 1 << (bit & 7);
        try {
          const damaged = await show(file);
          if (damaged?.said !== 0) continue;
          if (damaged.text !== clean?.text) wrong.push(`bit ${bit} of ${name}`);
          wrong.push(...differingFacts(clean, damaged).map((fact) => `bit ${bit} of ${name}: ${fact}`));
        } catch (error) {
          expect(error).toBeInstanceOf(Elf2dmpError);
        } finally {
          file[at]! ^= 1 << (bit & 7);
        }
      }
    }
    expect(wrong).toEqual([]);
  });
});
