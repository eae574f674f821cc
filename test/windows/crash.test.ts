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

  it('has the processor whose frame begins a function of the kernel, where the exports are paged out', () => {
    const { scene, truth } = sceneOf(CRASH, ({ kernel, truth }) => {
      // The other one was stopped, within a function.
      const frames = truth.processors.map(({ context }) => context);
      kernel.write(frames[0]!, kernel.read(frames[1]!, 0x4d0));
      kernel.u64(frames[0]! + 0xf8n, truth.exports.get('PoIdle')! + 5n);
    });
    const directories = scene.kernel.directories.map((d, i) => (i === 0 ? { rva: 0, size: 0 } : d));
    const crash = findCrash({ ...scene, kernel: { ...scene.kernel, directories } }, new Evidence());
    expect([crash?.processor?.number, crash?.how]).toEqual([truth.captured?.processor, 'captured-frame']);
  });

  it('has a frame whose stack is data of the kernel image, and none whose stack is its code', () => {
    const doubtOf = (stack: (guest: Guest) => bigint) => {
      const { scene } = sceneOf(CRASH, (guest) =>
        guest.kernel.u64(guest.truth.processors[1]!.context + 0x98n, stack(guest)),
      );
      return findCrash(scene, new Evidence())?.captured.get(scene.processors[1]!)?.doubt;
    };
    expect(doubtOf(({ truth }) => truth.kdbg & ~0xfn)).toBeUndefined();
    expect(doubtOf(({ truth }) => truth.exports.get('KeBugCheckEx')!)).toMatch(/lies in a module's code/);
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
