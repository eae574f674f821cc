// What memory proves to be wrong in a dump's header, field by field, and what it leaves alone.
import { beforeAll, describe, expect, it } from 'vitest';
import type { DumpHeader } from '../../src/formats/dump-header.ts';
import { locateWindows } from '../../src/locate/locator.ts';
import { planConversion } from '../../src/plan/conversion.ts';
import { headerFaults } from '../../src/plan/header-faults.ts';
import { openSource } from '../../src/readers/registry.ts';
import { BufferSource } from '../../src/source/buffer.ts';
import type { Windows } from '../../src/windows/windows.ts';
import { writeElf } from '../guest/elf.ts';
import { buildGuest } from '../guest/guest.ts';

const CRASH = { code: 0xd1, parameters: [1n, 2n, 3n, 4n], processor: 0 } as const;

let windows: Windows;
let sound: DumpHeader;
beforeAll(async () => {
  const guest = buildGuest({ decoys: false, crash: CRASH });
  windows = await locateWindows(openSource(new BufferSource(writeElf(guest))));
  sound = planConversion(windows).header;
});

const faultsOf = (change: Partial<DumpHeader>, more: Partial<Windows> = {}) =>
  headerFaults({ ...windows, ...more }, { ...sound, ...change }).map(({ field, severity }) => `${severity} ${field}`);

describe('the header of a dump', () => {
  it('has no faults as it is written', () => {
    expect(faultsOf({})).toEqual([]);
  });

  it.each<[string, () => Partial<DumpHeader>, string]>([
    ['another build', () => ({ MinorVersion: 7601 }), 'error MinorVersion'],
    ['a root that maps no kernel', () => ({ DirectoryTableBase: 0x5000n }), 'error DirectoryTableBase'],
    ['another list of modules', () => ({ PsLoadedModuleList: sound.PsActiveProcessHead }), 'error PsLoadedModuleList'],
    ['another list of processes', () => ({ PsActiveProcessHead: 1n }), 'error PsActiveProcessHead'],
    ['another KDBG', () => ({ KdDebuggerDataBlock: 0n }), 'error KdDebuggerDataBlock'],
    ['another page frame database', () => ({ PfnDatabase: 1n }), 'warning PfnDatabase'],
    ['too few processors', () => ({ NumberProcessors: 1 }), 'error NumberProcessors'],
    ['too many processors', () => ({ NumberProcessors: 3 }), 'error NumberProcessors'],
    ['another bug check', () => ({ BugCheckCode: 0x7e }), 'error BugCheckCode'],
    ['another parameter', () => ({ BugCheckParameters: [1n, 2n, 3n, 5n] }), 'error BugCheckParameters'],
    ['a time before its memory', () => ({ SystemTime: sound.SystemTime - 600_000_001n }), 'warning SystemTime'],
    ['a time that nobody set', () => ({ SystemTime: 0x4547_4150_4547_4150n }), 'warning SystemTime'],
    ['no time since boot', () => ({ SystemUpTime: 0n }), 'warning SystemUpTime'],
  ])('is at fault with %s', (_, change, fault) => {
    expect(faultsOf(change())).toEqual([fault]);
  });

  it.each<[string, () => Partial<DumpHeader>]>([
    ['a later time than its memory', () => ({ SystemTime: sound.SystemTime + 10n ** 12n })],
    ['a time that is less than a minute before', () => ({ SystemTime: sound.SystemTime - 599_999_999n })],
    ['a bug check as of a system that broke into a debugger', () => ({ BugCheckCode: 0x1000_00d1 })],
    ['flags in the root, as CR3 has them', () => ({ DirectoryTableBase: sound.DirectoryTableBase | 2n })],
  ])('is right with %s', (_, change) => {
    expect(faultsOf(change())).toEqual([]);
  });

  it('may count processors as it does where some are damaged', () => {
    const damagedProcessors = [{ number: 2, address: 0n, reason: 'damaged' }];
    expect(faultsOf({ NumberProcessors: 3 }, { damagedProcessors })).toEqual([]);
  });

  it('may know of a bug check that memory does not have', () => {
    expect(faultsOf({ BugCheckCode: 0x7e }, { crash: undefined })).toEqual([]);
  });

  it('has the root that debuggers walk, where that is another', () => {
    const headerRoot = 0x7000 as Windows['headerRoot'];
    expect(faultsOf({}, { headerRoot })).toEqual(['error DirectoryTableBase']);
    expect(faultsOf({ DirectoryTableBase: 0x7000n }, { headerRoot })).toEqual([]);
  });
});
