// What a header says of a guest, from what was found of it.
import { beforeAll, describe, expect, it } from 'vitest';
import { locateWindows } from '../../src/locate/locator.ts';
import { headerValues } from '../../src/plan/header-values.ts';
import { openSource } from '../../src/readers/registry.ts';
import { BufferSource } from '../../src/source/buffer.ts';
import type { Windows } from '../../src/windows/windows.ts';
import { writeElf } from '../guest/elf.ts';
import { buildGuest, type Guest } from '../guest/guest.ts';

const located = (change: (guest: Guest) => void = () => undefined): Promise<Windows> => {
  const guest = buildGuest({ decoys: false });
  change(guest);
  return locateWindows(openSource(new BufferSource(writeElf(guest))));
};

describe('the values of a header', () => {
  let windows: Windows;
  beforeAll(async () => {
    windows = await located();
  });
  const ofBuild = (build: number) =>
    headerValues(
      { ...windows, version: { ...windows.version, build }, shared: { ...windows.shared, bootId: 7 } },
      undefined,
    );

  it("are the guest's", () => {
    const { kdbg, shared } = windows;
    expect(headerValues(windows, undefined)).toMatchObject({
      build: 19041,
      machine: 0x8664,
      directoryTableBase: windows.headerRoot,
      kdDebuggerDataBlock: kdbg.address,
      psLoadedModuleList: kdbg.fields.PsLoadedModuleList,
      psActiveProcessHead: kdbg.fields.PsActiveProcessHead,
      pfnDatabase: kdbg.fields.MmPfnDatabase,
      systemTime: shared.systemTime,
      systemUpTime: shared.interruptTime,
      productType: shared.productType,
      suiteMask: shared.suiteMask,
    });
    expect([shared.productType, shared.suiteMask]).not.toContain(0);
  });

  it('name the root that debuggers walk, not the one that was found', () => {
    const other = { ...windows, headerRoot: 0x7000 } as Windows;
    expect(headerValues(other, undefined).directoryTableBase).toBe(0x7000);
  });

  it('have the code of a live dump while the guest runs, and else its bug check', () => {
    const bugCheck = { code: 0xd1, parameters: [1n, 2n, 3n, 4n] } as const;
    const crash = { bugCheck } as unknown as Windows['crash'];
    expect(headerValues(windows, undefined).bugCheck).toEqual({ code: 0x161, parameters: [0n, 0n, 0n, 0n] });
    expect(headerValues({ ...windows, crash }, undefined).bugCheck).toEqual(bugCheck);
  });

  it('count processors up to the last one, though others are damaged', () => {
    const processors = windows.processors.slice(1);
    expect([windows.processors.length, processors.length]).toEqual([2, 1]);
    expect(headerValues({ ...windows, processors }, undefined).processors).toBe(2);
  });

  it('have levels of page tables and a boot ID where the builds have them', () => {
    const builds = [9600, 10240, 22000, 22621];
    expect(builds.map((build) => [ofBuild(build).pagingLevels, ofBuild(build).bootId])).toEqual([
      [undefined, undefined],
      [undefined, 7],
      [undefined, 7],
      [4, 7],
    ]);
  });

  it('tell a checked kernel from a free one', () => {
    const version = { ...windows.version, majorVersion: 0xc, kdSecondaryVersion: 2 };
    expect(headerValues({ ...windows, version }, undefined)).toMatchObject({
      majorVersion: 0xc,
      kdSecondaryVersion: 2,
    });
  });

  it('have the instruction pointer of the context as the place of the exception', () => {
    const context = windows.image.machine.encodeUnknownContext();
    context.writeBigUInt64LE(0xfffff804_00001234n, 0xf8);
    expect(headerValues(windows, context).exceptionAddress).toBe(0xfffff804_00001234n);
    expect(headerValues(windows, undefined).exceptionAddress).toBe(0n);
  });

  it('say whether a secure kernel runs, which its process shows', async () => {
    expect(headerValues(windows, undefined).secureKernel).toBe(false);
    const secure = await located(({ kernel, build, truth }) =>
      kernel.write(truth.processes.at(-1)!.address + BigInt(build.eprocess.name), Buffer.from('Secure System\0')),
    );
    expect(headerValues(secure, undefined).secureKernel).toBe(true);
  });
});
