// A triage dump read back: info, stack and verify of it say what they say of the guest that it was made from.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { convert } from '../../src/operations/convert.ts';
import { openGuest } from '../../src/operations/guest.ts';
import { inspect, inspectAndDescribe } from '../../src/operations/inspect.ts';
import { stacks } from '../../src/operations/stacks.ts';
import { verify } from '../../src/operations/verify.ts';
import { writeElf } from '../guest/elf.ts';
import { buildGuest, type Guest } from '../guest/guest.ts';
import { writeStream } from '../guest/qevm.ts';
import { buildTrueGuest } from '../guest/true-guest.ts';
import { buildGuest32, type Guest32 } from '../guest/x86/guest.ts';

let dir: string;
let input: string;
let dump: string;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'elf2dmp-triage-'));
  [input, dump] = [join(dir, 'vm.elf'), join(dir, 'mini.dmp')];
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const CRASH = { code: 0x7e, parameters: [0xffffffff_c0000005n, 2n, 3n, 4n], processor: 1 } as const;

const CRASH_32 = { code: 0xd1, parameters: [0x10, 2, 0, 0x8a460003], processor: 1 } as const;

async function made(
  guest: Guest | Guest32,
  options: { triageCpus?: 'all'; triageUserStacks?: boolean } = {},
): Promise<void> {
  writeFileSync(input, writeElf(guest));
  await convert({ input, output: dump, type: 'triage', force: true, ...options });
}

const GUESTS: [string, () => Guest | Guest32][] = [
  ['a small one', () => buildGuest({ processors: 3, crash: CRASH })],
  ['one that did not crash', () => buildGuest({ processors: 2, user: [1] })],
  ['Server 2003', () => buildGuest({ build: 'server2003', processors: 2, crash: CRASH })],
  ['5-level page tables', () => buildGuest({ processors: 2, la57: true, crash: CRASH })],
  ['one of true size', () => buildTrueGuest({ processors: 2, crash: CRASH })],
  ['32-bit Windows 10', () => buildGuest32({ build: 'win10', processors: 3, user: [2], crash: CRASH_32 })],
  ['32-bit Windows 7 without PAE, which did not crash', () => buildGuest32({ pae: false, processors: 2, user: [1] })],
  ['32-bit Server 2003', () => buildGuest32({ build: 'server2003', processors: 2, crash: CRASH_32 })],
];

describe.each(GUESTS)('of %s', (_, build) => {
  it('info and stack say the same', async () => {
    await made(build(), { triageCpus: 'all' });
    const [from, seen] = [await inspect({ input }), await inspect({ input: dump })];
    expect(seen.problem).toBeNull();
    const told = ({ windows }: typeof from) => {
      const { kernel, bugCheck, modules, unloadedModules, processors, ...rest } = windows!;
      return {
        kernel: kernel.base,
        build: rest.build,
        lab: rest.buildLab,
        time: rest.systemTime,
        current: rest.currentProcessor,
        who: [rest.culprit, rest.signatures],
        bugCheck: bugCheck && [bugCheck.code, bugCheck.parameters, bugCheck.processor],
        modules: modules.map(({ base, size, path }) => ({ base, size, path })),
        unloaded: unloadedModules.map(({ name, from: start, to }) => ({ name: name.slice(0, 12), start, to })),
        processors: processors.map((p) => [p.number, p.mode, p.instructionPointer, p.stackPointer]),
      };
    };
    expect(told(seen)).toEqual(told(from));
    const frames = async (path: string) => {
      const report = await stacks({ input: path });
      return report.stacks.map(({ processor, frames: list }) => [
        processor,
        list
          .filter((f) => f.certain && f.stackPointer.startsWith('0xffff'))
          .map((f) => [f.instructionPointer, f.stackPointer, f.at]),
      ]);
    };
    expect(await frames(dump)).toEqual(await frames(input));
  });

  it('verify finds it sound, by itself and against its input', async () => {
    for (const options of [{}, { triageCpus: 'all' as const }, { triageUserStacks: true }]) {
      await made(build(), options);
      expect(await verify({ dump })).toMatchObject({
        outcome: 'sound',
        findings: [],
        dump: { type: 'triage', pages: 0 },
      });
      expect(await verify({ dump, against: input })).toMatchObject({ outcome: 'sound', findings: [] });
    }
  });
});

describe('verify of a triage dump', () => {
  const findings = async (damage: (file: Buffer) => void, against?: string) => {
    await made(buildGuest({ processors: 2, crash: CRASH }));
    const file = readFileSync(dump);
    damage(file);
    writeFileSync(dump, file);
    const report = await verify({ dump, against });
    return { outcome: report.outcome, codes: report.findings.map((f) => f.code) };
  };

  it.each<[string, string, (file: Buffer) => void]>([
    [
      'a stack from elsewhere',
      'triage-stack',
      (file) => void file.writeBigUInt64LE(file.readBigUInt64LE(0x2048) + 8n, 0x2048),
    ],
    [
      'a module of another size',
      'triage-module',
      (file) => void file.writeUInt32LE(0x123000, file.readUInt32LE(0x2030) + 0x48),
    ],
    [
      'a module with another time stamp',
      'triage-module',
      (file) => void file.writeUInt32LE(1, file.readUInt32LE(0x2030) + 0x88),
    ],
    ['another bug check', 'header-field', (file) => void file.writeUInt32LE(0xd1, 0x38)],
    ['another list of modules', 'header-field', (file) => void file.writeBigUInt64LE(1n, 0x20)],
    ['blocks outside', 'dmp-triage', (file) => void file.writeUInt32LE(0xfffffff0, 0x2078)],
    ['processors that are missing', 'no-processors', (file) => void file.writeUInt32LE(5, 0x34)],
  ])('finds %s', async (_, code, damage) => {
    expect(await findings(damage)).toEqual({ outcome: 'unsound', codes: [code] });
  });

  it('finds one byte that the input has otherwise', async () => {
    const flip = (file: Buffer) => void file.writeUInt8(file.readUInt8(file.length - 8) ^ 0xff, file.length - 8);
    expect(await findings(flip)).toEqual({ outcome: 'sound', codes: [] });
    expect(await findings(flip, input)).toEqual({ outcome: 'differs', codes: ['triage-differs'] });
  });

  it('is what convert --verify does', async () => {
    writeFileSync(input, writeElf(buildGuest({ processors: 2, crash: CRASH })));
    const report = await convert({ input, output: dump, type: 'triage', force: true, verify: true });
    expect(report.verification).toMatchObject({ outcome: 'sound', findings: [] });
    expect(report.dump).toMatchObject({ type: 'triage', pages: 0, runs: [], bytes: readFileSync(dump).length });
  });
});

describe('a triage dump', () => {
  it('comes of a migration stream as of an ELF file', async () => {
    const guest = buildGuest({ processors: 2 });
    await made(guest);
    const stream = join(dir, 'vm.save');
    writeFileSync(stream, writeStream(guest, { pages: 'plain' }));
    const output = join(dir, 'stream.dmp');
    expect(await convert({ input: stream, output, type: 'triage' })).toMatchObject({ outcome: 'good' });
    const told = async (path: string) =>
      (await inspect({ input: path })).windows!.processors.map((p) => p.instructionPointer);
    expect(await told(output)).toEqual(await told(dump));
  });

  it('has an HTML report', async () => {
    await made(buildGuest({ processors: 2, crash: CRASH }));
    const { page } = await inspectAndDescribe({ input: dump }, { page: true });
    expect(page!.stacks).toHaveLength(2);
    expect(page!.memory!.ranges).toEqual([]);
  });

  it('is compressed on request', async () => {
    writeFileSync(input, writeElf(buildGuest({ processors: 2, crash: CRASH })));
    const { gunzipSync } = await import('node:zlib');
    await convert({ input, output: dump, type: 'triage', force: true });
    const packed = join(dir, 'mini.dmp.gz');
    await convert({ input, output: packed, type: 'triage', compress: 'gzip' });
    expect(gunzipSync(readFileSync(packed))).toEqual(readFileSync(dump));
  });

  it('is not converted to another type', async () => {
    await made(buildGuest({ processors: 2, crash: CRASH }));
    await using guest = await openGuest(dump, { crashDumps: true });
    await expect(convert({ input: guest, output: join(dir, 'no.dmp'), type: 'full' })).rejects.toMatchObject({
      code: 'triage-input',
    });
  });
});
