// Dumps whose header or processors contradict their memory, as other writers or damage leave them.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { convert } from '../../src/operations/convert.ts';
import { verify } from '../../src/operations/verify.ts';
import { writeElf } from '../guest/elf.ts';
import { buildGuest, type Guest } from '../guest/guest.ts';
import { buildTrueGuest } from '../guest/true-guest.ts';
import { writeWinDump } from '../guest/win-dump.ts';

let dir: string;
let path: string;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'elf2dmp-contradictions-'));
  path = join(dir, 'out.dmp');
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const CRASH = { code: 0xd1, parameters: [1n, 2n, 3n, 4n], processor: 0 } as const;

async function verified(dump: Buffer) {
  writeFileSync(path, dump);
  const { outcome, findings } = await verify({ dump: path });
  return {
    outcome,
    found: findings.map(({ code, where, expected, found, message }) => ({ code, where, expected, found, message })),
  };
}

describe('a bug check that memory contradicts', () => {
  it('is a finding: the code of a running system, and another parameter', async () => {
    const dump = writeWinDump(buildTrueGuest({ kdbg: 'plain', crash: CRASH }));
    expect(await verified(dump)).toEqual({ outcome: 'sound', found: [] });
    dump.writeUInt32LE(0x161, 0x38);
    dump.writeBigUInt64LE(7n, 0x48);
    const { outcome, found } = await verified(dump);
    expect(outcome).toBe('unsound');
    expect(found).toMatchObject([
      { code: 'header-field', where: { field: 'BugCheckCode' }, expected: '0xd1', found: '0x161' },
      { code: 'header-field', where: { field: 'BugCheckParameters' } },
    ]);
  });

  it('is none where memory has no bug check: dumps of running systems have codes of their own', async () => {
    const dump = writeWinDump(buildTrueGuest({ kdbg: 'plain' }));
    dump.writeUInt32LE(0x1a8, 0x38);
    dump.writeBigUInt64LE(7n, 0x40);
    expect(await verified(dump)).toEqual({ outcome: 'sound', found: [] });
  });
});

/** Each processor has the next one's CPU. */
const exchanged = <G extends Guest>(guest: G): G => {
  const { processors } = guest.truth;
  const next = processors.map((p, i) => ({ ...p, cpu: processors[(i + 1) % processors.length]!.cpu }));
  return { ...guest, truth: { ...guest.truth, processors: next } };
};

describe("processors that show others' registers", () => {
  it.each([
    ['all', (guest: Guest) => guest, /the KPCR of processor 1,/],
    // A writer that saves no GS bases, as Windows itself.
    [
      'those without GS bases',
      (guest: Guest) => ({ ...guest, cpus: guest.cpus.map((cpu) => ({ ...cpu, gsBase: 0n, kernelGsBase: 0n })) }),
      /descriptor tables are those of processor 1$/,
    ],
  ])('are a finding each: %s', async (_, change, message) => {
    const guest = change(buildTrueGuest({ kdbg: 'plain', processors: 3 }));
    expect(await verified(writeWinDump(guest))).toEqual({ outcome: 'sound', found: [] });
    const { outcome, found } = await verified(writeWinDump(exchanged(guest)));
    expect(outcome).toBe('unsound');
    expect(found.map((f) => f.code)).toEqual(Array(3).fill('processor-exchanged'));
    expect(found[0]?.message).toMatch(message);
  });

  it('are a finding where only the frames are exchanged: the stacks show it', async () => {
    const guest = buildTrueGuest({ kdbg: 'plain' });
    const dump = writeWinDump(guest);
    const [a, b] = guest.truth.processors.map((p) => {
      const physical = guest.kernel.translate(p.context)!;
      // Two runs, from 0x1000 and from 0x100000 on.
      const at = 0x2000 + physical - (physical < 0xa0000 ? 0x1000 : 0x61000);
      return dump.subarray(at, at + 0x4d0);
    });
    const copy = Buffer.from(a!);
    b!.copy(a!);
    copy.copy(b!);
    const { found } = await verified(dump);
    expect(found.map((f) => f.message)).toEqual([
      "processor 0 shows another one's registers: they lead to the stack of processor 1",
      "processor 1 shows another one's registers: they lead to the stack of processor 0",
    ]);
  });

  it('are none of a conversion, whatever the order of the CPUs and in user mode', async () => {
    const input = join(dir, 'vm.elf');
    for (const guest of [
      buildTrueGuest({ user: [0] }),
      buildTrueGuest({ crash: CRASH }),
      buildGuest({ processors: 4 }),
    ]) {
      writeFileSync(input, writeElf(guest));
      const { verification } = await convert({ input, output: path, force: true, verify: true });
      expect(verification?.findings).toEqual([]);
    }
  });
});
