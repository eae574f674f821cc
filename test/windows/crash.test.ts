import { describe, expect, it } from 'vitest';
import { Reason } from '../../src/core/reason.ts';
import { dropDoubtfulFrames } from '../../src/windows/context-frames.ts';
import { matchProcessors } from '../../src/windows/cpu-matching.ts';
import { findCrash } from '../../src/windows/crash.ts';
import { Evidence } from '../../src/windows/evidence.ts';
import { readModules } from '../../src/windows/modules.ts';
import { findProcessors } from '../../src/windows/processors.ts';
import type { Guest, GuestOptions } from '../guest/guest.ts';
import { knownGuest } from '../support/known-guest.ts';

const CRASH: GuestOptions = { crash: { code: 0xd1, parameters: [1n, 2n, 3n, 4n], processor: 1 } };

function sceneOf(options: GuestOptions, change?: (guest: Guest) => void) {
  const known = knownGuest(options, change);
  const { space, kernel, kdbg, fields, image, truth } = known;
  const { processors } = findProcessors(space, fields);
  matchProcessors(processors, image.cpus, space, fields);
  const { modules } = readModules(space, truth.psLoadedModuleList);
  return { ...known, scene: { space, kernel, kdbg, modules, processors } };
}

describe('a crash', () => {
  it('has its bug check, and the processor whose frame is in KeBugCheckEx', () => {
    const { scene, truth } = sceneOf(CRASH);
    const crash = findCrash(scene, new Evidence());
    expect(crash?.bugCheck).toMatchObject(truth.bugCheck!);
    expect(scene.processors.map(({ cpu }) => cpu !== undefined)).toEqual([true, true]);
    expect([crash?.processor?.number, crash?.how]).toEqual([truth.captured?.processor, 'captured-frame']);
    const frame = crash?.captured.get(crash.processor!);
    expect([frame?.doubt, frame?.view.instructionPointer, frame?.view.stackPointer]).toEqual([
      undefined,
      truth.captured?.rip,
      truth.captured?.rsp,
    ]);
  });

  it('is none in a guest that did not crash', () => {
    expect(findCrash(sceneOf({}).scene, new Evidence())).toBeUndefined();
  });
});

it.each([
  ['SharedUserData', () => 0xfffff780_00000000n, /SharedUserData is there/],
  ['the KDBG', ({ kdbg }: { kdbg: bigint }) => kdbg & ~0xfn, /the KDBG is there/],
  ['code of the kernel', ({ kernelBase }: { kernelBase: bigint }) => kernelBase + 0x1000n, /ntoskrnl\.exe is there/],
  ['an odd address', ({ kernelBase }: { kernelBase: bigint }) => kernelBase + 0x1001n, /not aligned/],
])('a CONTEXT frame in %s is not believed, and others are', (_, place, doubt) => {
  const { scene, truth } = sceneOf({ processors: 2 });
  const [first, second] = scene.processors;
  Object.assign(first!, { context: place(truth) });
  dropDoubtfulFrames(scene);
  expect((first!.context as Reason).text).toMatch(doubt);
  expect(second!.context).not.toBeInstanceOf(Reason);
});
