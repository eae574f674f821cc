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
    expect(doubtOf(() => 0x7ff6_00001000n)).toMatch(/is not on a kernel stack$/);
    expect(doubtOf(({ truth }) => (truth.kdbg & ~0xfn) + 4n)).toMatch(/is not on a kernel stack$/);
    expect(doubtOf(() => 0xffffa000_12345000n)).toMatch(/is not present$/);
  });

  it.each([
    ['flags without integer registers', 0x30n, 0x10_0001n, 'its flags claim no control and integer registers'],
    ['flags of another machine', 0x30n, 0x1_0007n, 'its flags claim no control and integer registers'],
    ['flags with bits that no part has', 0x30n, 0x10_020fn, 'its flags claim no control and integer registers'],
  ])('has no frame with %s', (_, at, flags, doubt) => {
    const { scene } = sceneOf(CRASH, ({ kernel, truth }) => {
      const place = truth.processors[1]!.context + at;
      kernel.u64(place, (kernel.read(place, 8).readBigUInt64LE() & ~0xffff_ffffn) | flags);
    });
    expect(findCrash(scene, new Evidence())?.captured.get(scene.processors[1]!)?.doubt).toBe(doubt);
  });

  it("has KeBugCheckEx end at the next export where nothing lists the machine's functions", () => {
    const inBugCheck = (at: bigint) => {
      const { scene, image } = sceneOf(CRASH, ({ kernel, truth }) =>
        kernel.u64(truth.processors[1]!.context + 0xf8n, truth.exports.get('KeBugCheckEx')! + at),
      );
      Object.assign(image, { machine: { ...image.machine, functionTable: undefined } });
      return findCrash(scene, new Evidence())?.captured.get(scene.processors[1]!)?.atBugCheck;
    };
    expect([0n, 0x3fn, 0x40n].map(inBugCheck)).toEqual([true, true, false]);
  });

  it('is on an unknown processor where several frames are in KeBugCheckEx, or begin a function', () => {
    const both = ({ kernel, truth }: Guest) => {
      const frames = truth.processors.map(({ context }) => context);
      kernel.write(frames[0]!, kernel.read(frames[1]!, 0x4d0));
    };
    const unknown = { how: 'unknown', processor: undefined };
    // No stack is in it either.
    const inUser: GuestOptions = { ...CRASH, user: [0, 1] };
    expect(findCrash(sceneOf(inUser, both).scene, new Evidence())).toMatchObject(unknown);
    const { scene } = sceneOf(inUser, (guest) => {
      both(guest);
      guest.kernel.u64(guest.truth.processors[0]!.context + 0xf8n, guest.truth.exports.get('PoIdle')!);
    });
    const directories = scene.kernel.directories.map((d, i) => (i === 0 ? { rva: 0, size: 0 } : d));
    const crash = findCrash({ ...scene, kernel: { ...scene.kernel, directories } }, new Evidence());
    expect(crash).toMatchObject(unknown);
  });

  it.each([
    [0xd1n, 0xd1],
    [0xffffffff_c000021an, 0xc000021a],
    [0xffffffff_000000d1n, undefined],
    [0x00000001_000000d1n, undefined],
    [0xffffffff_ffffffffn, 0xffffffff],
  ])('has a code where the word is one: %s', (word, code) => {
    const { scene, image } = sceneOf(CRASH, ({ kernel, truth }) =>
      kernel.u64(truth.kdbgBlock.readBigUInt64LE(0x88), word),
    );
    expect(findCrash(scene, new Evidence())?.bugCheck.code).toBe(code);
    const codes = image.diagnostics.list.map((d) => d.code);
    expect(codes.includes('bug-check-implausible')).toBe(code === undefined);
  });

  it('has no frame that is on the stack of another processor, as where two frame pointers were exchanged', () => {
    const { scene } = sceneOf(CRASH, ({ kernel, truth, build }) => {
      const pointers = truth.processors.map(({ prcb }) => prcb + BigInt(build.prcbContext!));
      kernel.u64(pointers[0]!, truth.processors[1]!.context);
      kernel.u64(pointers[1]!, truth.processors[0]!.context);
    });
    const crash = findCrash(scene, new Evidence());
    expect([crash?.processor?.number, crash?.how]).toEqual([1, 'stack']);
    expect(crash?.captured.get(scene.processors[0]!)?.doubt).toMatch(/^rsp 0x\w+ is on the stack of processor 1$/);
  });

  it('is none in a guest that did not crash', () => {
    const { scene, image } = sceneOf({});
    expect(findCrash(scene, new Evidence())).toBeUndefined();
    expect(image.diagnostics.list).toEqual([]);
  });

  describe('whose bug check data is empty', () => {
    const noData = ({ kernel, truth }: Guest) => kernel.write(truth.kdbgBlock.readBigUInt64LE(0x88), Buffer.alloc(40));
    const saidOf = (options: GuestOptions, change: (guest: Guest) => void = () => {}) => {
      const { scene, image } = sceneOf(options, (guest) => {
        noData(guest);
        change(guest);
      });
      expect(findCrash(scene, new Evidence())).toBeUndefined();
      return image.diagnostics.list.map(({ code, message }) => `${code}: ${message.split('but ')[1]}`);
    };
    const LOST = 'whether the guest crashed is unknown';

    it('is shown by a captured frame', () => {
      expect(saidOf(CRASH)).toEqual([
        `bug-check-missing: the frame that Windows captured on processor 1 is in KeBugCheckEx: ${LOST}`,
      ]);
    });

    it('is shown by a stack', () => {
      expect(saidOf({ crash: { ...CRASH.crash!, captured: false } })).toEqual([
        `bug-check-missing: the stack of processor 1 holds a return address in KeBugCheckEx: ${LOST}`,
      ]);
    });

    it('is shown by the input', () => {
      const { scene, image } = sceneOf({}, noData);
      scene.processors[0]!.cpu!.crashed = true;
      findCrash(scene, new Evidence());
      expect(image.diagnostics.list.map(({ message }) => message)).toEqual([
        expect.stringContaining(`the input says that it crashed on CPU ${scene.processors[0]!.cpu!.index}`),
      ]);
    });

    it('is not shown by a frame that cannot be believed', () => {
      const elsewhere = ({ kernel, truth }: Guest) => kernel.u64(truth.processors[1]!.context + 0x98n, 0x1000n);
      expect(saidOf({ ...CRASH, user: [0, 1] }, elsewhere)).toEqual([]);
    });
  });

  it('is doubtful where KeBugCheckEx was called with something else, or nothing is in it', () => {
    const saidOf = (options: GuestOptions, change: (guest: Guest) => void) => {
      const { scene, image } = sceneOf(options, change);
      expect(findCrash(scene, new Evidence())).toBeDefined();
      return image.diagnostics.list.map(({ code, message }) => `${code}: ${message.split('but ')[1]}`);
    };
    const called = (code: bigint, first: bigint) => (guest: Guest) => {
      const frame = guest.truth.processors[1]!.context;
      [code, first, 0n, 0n].forEach((value, i) => {
        guest.kernel.u64(frame + [0x80n, 0x88n, 0xb8n, 0xc0n][i]!, value);
      });
    };
    expect(saidOf(CRASH, called(0xd1n, 0x55n))).toEqual([]);
    // Windows stores 0xd1 for an 0xa in a driver.
    expect(saidOf(CRASH, called(0xan, 1n))).toEqual([]);
    expect(saidOf(CRASH, called(0n, 0n))).toEqual([]);
    expect(saidOf(CRASH, called(0x50n, 0x55n))).toEqual([
      'bug-check-unconfirmed: the frame of processor 1 shows that KeBugCheckEx was called with 0x0000000000000050 and other parameters',
    ]);
    const alone: GuestOptions = { processors: 1 };
    const withCode = ({ kernel, truth }: Guest) => {
      kernel.u64(truth.kdbgBlock.readBigUInt64LE(0x88), 0xd1n);
      const frame = Buffer.alloc(0x4d0);
      frame.writeUInt32LE(0x10000f, 0x30);
      frame.writeBigUInt64LE(truth.exports.get('PoIdle')!, 0xf8);
      frame.writeBigUInt64LE(truth.kdbg & ~0xfn, 0x98);
      kernel.write(truth.processors[0]!.context, frame);
    };
    expect(saidOf(alone, withCode)).toEqual([
      "bug-check-unconfirmed: neither the processor's frame nor its stack is in KeBugCheckEx",
    ]);
  });
});

it.each([
  ['SharedUserData', () => 0xfffff780_00000000n, /SharedUserData is there/],
  ['the KDBG', ({ kdbg }) => kdbg & ~0xfn, /the KDBG is there/],
  ['the bug check', ({ kdbgBlock }) => (kdbgBlock.readBigUInt64LE(0x88) & ~0xfn) - 0x4c0n, /KiBugCheckData is there/],
  ['the table of PRCBs', ({ kdbgBlock }) => kdbgBlock.readBigUInt64LE(0x218) & ~0xfn, /KiProcessorBlock is there/],
  ['an interrupt table', ({ processors }) => processors[1]!.idt + 0x100n, /the IDT of processor 1 is there/],
  ['another KPCR', ({ processors }) => processors[1]!.kpcr + 0x100n, /the KPCR of processor 1 is there/],
  ['code of the kernel', ({ kernelBase }) => kernelBase + 0x1000n, /ntoskrnl\.exe is there/],
  ['an odd address', ({ kernelBase }) => kernelBase + 0x1001n, /not aligned/],
] as readonly [string, (truth: Guest['truth']) => bigint, RegExp][])(
  'a CONTEXT frame in %s is not believed, and others are',
  (_, place, doubt) => {
    const { scene, truth } = sceneOf({ processors: 2 });
    const [first, second] = scene.processors;
    Object.assign(first!, { context: place(truth) });
    dropDoubtfulFrames(scene);
    expect((first!.context as Reason).text).toMatch(doubt);
    expect(second!.context).not.toBeInstanceOf(Reason);
  },
);
