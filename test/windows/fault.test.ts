// Registers at the fault that a crash keeps: which records are believed.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { convert } from '../../src/operations/convert.ts';
import { stacks } from '../../src/operations/stacks.ts';
import { writeArm64Elf } from '../guest/arm64-elf.ts';
import { writeElf } from '../guest/elf.ts';
import {
  faultingArm64Guest,
  faultingGuest,
  faultingGuest32,
  type RECORDS,
  trapRegisters,
  writeContext,
  writeExceptionRecord,
  writeTrapFrame,
} from '../guest/fault-records.ts';
import { buildGuest, FAULT_AT, RVA } from '../guest/guest.ts';

const dir = mkdtempSync(join(tmpdir(), 'elf2dmp-fault-'));
afterAll(() => rmSync(dir, { recursive: true, force: true }));
const input = join(dir, 'vm.elf');

type Name = keyof typeof RECORDS;
type Change = Parameters<typeof faultingGuest>[1];

async function stackOf(name: Name, change?: Change) {
  const { guest, places } = faultingGuest(name, change);
  writeFileSync(input, writeElf(guest));
  return { ...(await stacks({ input })), places };
}

const faultOf = async (name: Name, change?: Change) => (await stackOf(name, change)).fault;

describe('a record of registers', () => {
  it.each<[Name, number | null]>([
    ['trap frame on the stack, 0xD1', null],
    ['trap frame on the stack, 0x1E', null],
    ['trap frame that 0x139 names', 2],
    ['trap frame that 0x8E names', 3],
    ['CONTEXT that 0x3B names', 3],
    ['CONTEXT that 0x7E names', 4],
    ['CONTEXT that 0x27 names', 3],
  ])('leads from the fault on: %s', async (name, parameter) => {
    const { fault, windows, places } = await stackOf(name);
    const isContext = name.startsWith('CONTEXT');
    expect(fault).toMatchObject({
      from: isContext ? 'context' : 'trap-frame',
      address: `0x${(isContext ? places.context : places.trap).toString(16)}`,
      parameter,
      instructionPointer: `0x${places.at.toString(16)}`,
      stackPointer: `0x${places.rsp.toString(16)}`,
    });
    expect(fault!.frames.slice(0, 3).map(({ at, certain }) => [at?.nearestExport?.name, certain])).toEqual([
      ['DemoDispatch', true],
      ['IoCallDriver', true],
      ['KiSystemServiceExit', true],
    ]);
    const registers = Object.fromEntries(
      fault!.registers.map(({ name: register, value }) => [register, BigInt(`0x${value}`)]),
    );
    expect(registers).toMatchObject(trapRegisters({ rip: places.at, rsp: places.rsp }));
    const { registers: _, frames: __, end: ___, doubts: ____, ...described } = fault!;
    expect(windows.fault).toEqual(described);
    expect([windows.culprit?.module, windows.signatures.rva.text]).toEqual([
      'demo.sys',
      expect.stringMatching(/ demo\+0x10000$/),
    ]);
  });

  it('is in the dump too, and in a triage dump', async () => {
    for (const name of ['trap frame that 0x139 names', 'CONTEXT that 0x3B names'] as const) {
      const { guest } = faultingGuest(name);
      writeFileSync(input, writeElf(guest));
      const { fault } = await stacks({ input });
      const [output, triage] = [join(dir, 'vm.dmp'), join(dir, 'mini.dmp')];
      await convert({ input, output, force: true });
      await convert({ input, output: triage, type: 'triage', force: true });
      expect((await stacks({ input: output })).fault).toEqual(fault);
      expect((await stacks({ input: triage })).fault).toEqual(fault);
    }
  });

  it.each<[string, Name, Change]>([
    [
      'another instruction in the exception record',
      'trap frame that 0x139 names',
      ({ kernel }, { exception, at }) =>
        writeExceptionRecord(kernel, exception, { code: 0xc0000409, address: at + 2n }),
    ],
    [
      'an exception record that is not there',
      'trap frame that 0x139 names',
      ({ kernel }, { exception }) => kernel.setEntry(exception & ~0xfffn, 0n),
    ],
    ['user mode interrupted', 'trap frame that 0x139 names', ({ kernel }, { trap }) => kernel.u16(trap + 0x170n, 0x33)],
    ['flags that cannot be', 'trap frame that 0x139 names', ({ kernel }, { trap }) => kernel.u32(trap + 0x178n, 0)],
    [
      'another instruction than the parameter',
      'trap frame that 0x8E names',
      ({ kernel }, { trap, at }) => kernel.u64(trap + 0x168n, at + 2n),
    ],
    [
      'a CONTEXT of another instruction',
      'CONTEXT that 0x7E names',
      ({ kernel }, { trap, context, at, rsp }) => {
        writeContext(kernel, context, { rip: at + 2n, rsp });
        kernel.write(trap, Buffer.alloc(0x190));
      },
    ],
    [
      'a CONTEXT without integer registers',
      'CONTEXT that 0x3B names',
      ({ kernel }, { trap, context }) => {
        kernel.u32(context + 0x30n, 0x100001);
        kernel.write(trap, Buffer.alloc(0x190));
      },
    ],
    [
      'no frame with the instruction',
      'trap frame on the stack, 0xD1',
      ({ kernel }, { trap, at }) => kernel.u64(trap + 0x168n, at + 2n),
    ],
    [
      'a frame of another access',
      'trap frame on the stack, 0xD1',
      ({ kernel }, { trap }) => kernel.u64(trap + 0xd0n, 0x18n),
    ],
    [
      'a copy of a frame elsewhere',
      'trap frame on the stack, 0xD1',
      ({ kernel }, { trap }) => {
        const frame = kernel.read(trap, 0x190);
        kernel.write(trap, Buffer.alloc(0x190));
        kernel.write(trap - 0x200n, frame);
      },
    ],
    [
      'two frames with the instruction',
      'trap frame on the stack, 0xD1',
      ({ kernel }, { trap, at }) =>
        writeTrapFrame(kernel, trap + 0x400n, { rip: at, rsp: trap + 0x590n, faultAddress: 0x10n }),
    ],
  ])('is not believed with %s', async (_, name, change) => {
    expect(await faultOf(name, change)).toBeNull();
  });
});

it('corrupt links that the kernel noticed are nobody’s, whose driver ever called it', async () => {
  const { fault, windows } = await stackOf(
    'trap frame that 0x139 names',
    ({ kernel, truth }, { trap, exception, rsp, at }) => {
      const waiting = truth.exports.get('KeWaitForSingleObject')!;
      writeTrapFrame(kernel, trap, { rip: waiting, rsp });
      writeExceptionRecord(kernel, exception, { code: 0xc0000409, address: waiting });
      // At its first instruction: called by DemoDispatch.
      kernel.u64(rsp, at + 2n);
    },
  );
  expect(fault!.frames.slice(0, 2).map(({ at }) => at?.nearestExport?.name)).toEqual([
    'KeWaitForSingleObject',
    'DemoDispatch',
  ]);
  expect([windows.culprit, windows.signatures.rva.text]).toEqual([null, '0x139_3 demo+0x10000']);
});

describe('a call through a bad pointer', () => {
  const NOWHERE = 'trap frame of a call to nowhere';
  const names = ({ frames }: { frames: readonly { at: { nearestExport: { name: string } | null } | null }[] }) =>
    frames.map(({ at }) => at?.nearestExport?.name ?? null);

  it('is its caller’s fault', async () => {
    const { fault, windows } = await stackOf(NOWHERE);
    expect(names(fault!)).toEqual([null, 'DemoDispatch', 'IoCallDriver', 'KiSystemServiceExit']);
    expect(fault!.frames.every(({ certain }) => certain)).toBe(true);
    expect(fault!.frames[0]!.place).toEqual({ in: 'null-page' });
    expect([windows.culprit?.module, windows.culprit?.at?.offset]).toEqual(['demo.sys', '0x10006']);
    expect(windows.signatures.rva.text).toBe('0xd1_8 demo+0x10000');
  });

  it('is not assumed where no call ends, or something is there that may have run', async () => {
    const jumped = await stackOf(NOWHERE, ({ kernel }, { rsp, at }) => kernel.u64(rsp - 8n, at));
    expect([names(jumped.fault!)[1], jumped.windows.culprit]).not.toEqual(['DemoDispatch', expect.anything()]);
    expect(jumped.fault!.frames[1]?.certain ?? false).toBe(false);
    const data = 0xffffa58f_66660000n;
    const { guest } = faultingGuest('trap frame of a call to nowhere', ({ kernel, truth }, { trap, rsp }) => {
      kernel.mapNew(data, 0x1000);
      writeTrapFrame(kernel, trap - 0x10n, { rip: data, rsp: rsp - 8n, faultAddress: data });
      kernel.u64(truth.kernelBase + BigInt(RVA.KiBugCheckData) + 8n, data);
      kernel.u64(truth.kernelBase + BigInt(RVA.KiBugCheckData) + 32n, data);
    });
    writeFileSync(input, writeElf(guest));
    const { fault, windows } = await stacks({ input });
    expect([fault?.instructionPointer, fault?.frames[1]?.certain ?? false]).toEqual([`0x${data.toString(16)}`, false]);
    expect(windows.culprit).toBeNull();
  });
});

it('unwinding that leads to the fault needs no record', async () => {
  const crash = {
    code: 0xd1,
    parameters: [0x10n, 2n, 0n, FAULT_AT.DemoRead] as const,
    processor: 1,
    fault: 'DemoRead' as const,
  };
  writeFileSync(input, writeElf(buildGuest({ crash })));
  const { fault, windows } = await stacks({ input });
  expect([fault, windows.culprit?.module]).toEqual([null, 'demo.sys']);
});

it("is a part of its own processor's stack alone", async () => {
  writeFileSync(input, writeElf(faultingGuest('CONTEXT that 0x3B names').guest));
  const faults = await Promise.all([0, 1].map(async (processor) => (await stacks({ input, processor })).fault?.from));
  expect(faults).toEqual([undefined, 'context']);
});

it('a guest that runs has none', async () => {
  writeFileSync(input, writeElf(buildGuest()));
  expect((await stacks({ input })).fault).toBeNull();
});

describe('a trap frame of a 32-bit guest', () => {
  it.each([0x8e, 0xd1] as const)('has its stack behind it: %i', async (code) => {
    const { guest, frame, eip } = faultingGuest32(code);
    writeFileSync(input, writeElf(guest));
    const { fault } = await stacks({ input });
    expect(fault).toMatchObject({
      from: 'trap-frame',
      parameter: code === 0x8e ? 3 : null,
      address: `0xffffffff${frame.toString(16)}`,
      instructionPointer: `0xffffffff${eip.toString(16)}`,
      stackPointer: `0xffffffff${(frame + 0x74).toString(16)}`,
    });
    expect(fault!.registers).toContainEqual({ name: 'ebx', value: '0000000b' });
    expect(fault!.registers).toContainEqual({ name: 'esp', value: (frame + 0x74).toString(16) });
  });

  it('is searched for by its mark', async () => {
    writeFileSync(input, writeElf(faultingGuest32(0xd1, 0).guest));
    expect((await stacks({ input })).fault).toBeNull();
  });
});

it('a trap frame of ARM64 is believed by the exception record', async () => {
  const { guest, frame, pc, sp } = faultingArm64Guest();
  writeFileSync(input, writeArm64Elf(guest));
  const hex = (value: bigint) => `0x${value.toString(16)}`;
  const { fault } = await stacks({ input });
  expect(fault).toMatchObject({
    from: 'trap-frame',
    parameter: 2,
    address: hex(frame),
    instructionPointer: hex(pc),
    stackPointer: hex(sp),
  });
  expect(fault!.registers).toHaveLength(24);
  guest.kernel.u32(frame + 0x90n, 0x80000140);
  writeFileSync(input, writeArm64Elf(guest));
  expect((await stacks({ input })).fault).toBeNull();
});
