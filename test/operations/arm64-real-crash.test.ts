// A real crash of ARM64 22000 with 8 processors (a public minidump): what it holds, and as a guest that is converted.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ARM64 } from '../../src/machines/arm64/index.ts';
import { convert } from '../../src/operations/convert.ts';
import { inspect } from '../../src/operations/inspect.ts';
import type { ConversionReport } from '../../src/report/conversion.ts';
import {
  askDebugger,
  bugCheck,
  complaints,
  debuggerAvailable,
  modules,
  type Question,
  registers,
  system,
} from '../debugger/debugger.ts';
import { writeArm64Elf } from '../guest/arm64-elf.ts';
import { type Arm64RealCrash, buildArm64RealCrash } from '../guest/arm64-real-crash.ts';
import { realDump } from '../support/real-data.ts';

const triage = realDump('triage_arm64.dmp');

function realCrash(path: string): void {
  let dir: string;
  let crash: Arm64RealCrash;
  let report: ConversionReport;
  beforeAll(async () => {
    dir = mkdtempSync(join(tmpdir(), 'elf2dmp-arm64-real-'));
    crash = buildArm64RealCrash(path);
    writeFileSync(join(dir, 'vm.elf'), writeArm64Elf(crash, { pages: [crash.root] }));
    report = await convert({ input: join(dir, 'vm.elf'), output: join(dir, 'out.dmp') });
  });
  afterAll(() => rmSync(dir, { recursive: true, force: true }));

  it('has its structures where they are taken to be', () => {
    const file = readFileSync(path);
    const blocks = Array.from({ length: file.readUInt32LE(0x207c) }, (_, i) => {
      const at = file.readUInt32LE(0x2078) + 16 * i;
      return { from: file.readBigUInt64LE(at), at: file.readUInt32LE(at + 8), size: file.readUInt32LE(at + 12) };
    });
    const read = (address: bigint, length: number) => {
      const block = blocks.find((b) => address >= b.from && address + BigInt(length) <= b.from + BigInt(b.size));
      return (
        block &&
        file.subarray(block.at + Number(address - block.from), block.at + Number(address - block.from) + length)
      );
    };
    const u64 = (address: bigint) => read(address, 8)!.readBigUInt64LE();
    const root = file.readBigUInt64LE(0x10);
    crash.prcbs.forEach((prcb, number) => {
      const frame = read(prcb + 0x360n, 0x390)!;
      expect(ARM64.viewContext(frame)).toMatchObject({ complete: true });
      expect(ARM64.looksLikeContext(frame)).toBe(true);
      // The pointer, the flags of new frames, and the architecture state.
      expect([u64(prcb + 0x8a0n), Number(u64(prcb + 0x8a8n))]).toEqual([prcb + 0x360n, 0x400007]);
      expect(read(prcb + 0x24n, 1)![0]).toBe(number);
      expect([u64(prcb + 0x108n) & 0xffff_ffff_ffffn, u64(prcb + 0x110n) - u64(prcb + 0x108n)]).toEqual([root, 0x800n]);
      expect(u64(prcb + 0x60n) & ~0xfffn).toBe(prcb - 0x980n);
      const registersOf = ARM64.decodeContext(frame, Buffer.alloc(0xa0), () => undefined)!;
      expect(ARM64.kpcrCandidates(registersOf, () => undefined)).toEqual([prcb - 0x980n]);
    });
    const kpcr = crash.prcbs[0]! - 0x980n;
    expect(ARM64.kpcrDoubt(read, kpcr as never)).toBeUndefined();
    const kdbg = file.subarray(file.readUInt32LE(0x2070));
    expect(ARM64.isProcessorState(kdbg.readUInt16LE(0x2f2), kdbg.readUInt16LE(0x2bc))).toBe(true);
  });

  it('is read as it is', async () => {
    const { windows } = await inspect({ input: path });
    expect(windows).toMatchObject({ build: 22000, kernel: { base: '0xfffff803f2e00000' } });
    expect(windows?.modules.length).toBe(245);
    expect(windows?.processors.map((p) => [p.mode, p.instructionPointer])).toEqual(
      crash.frames.map(({ pc }) => ['kernel', `0x${pc.toString(16)}`]),
    );
  });

  it('is converted without loss, its processors matched to their CPUs', () => {
    expect(report.diagnostics).toEqual([]);
    expect(report.windows.processors.map((p) => p.cpu)).toEqual(crash.prcbs.map((_, n) => crash.order.indexOf(n)));
    expect(report.windows.bugCheck).toMatchObject({ code: '0x1c8', processor: 0, processorFrom: 'captured-frame' });
  });

  if (!debuggerAvailable()) return;

  it('shows in the debugger what the original shows', async () => {
    const processors = crash.prcbs.map((_, n) => n);
    const questions: Record<string, Question<unknown>> = {
      bugCheck: bugCheck(),
      modules: modules(),
      system: system(),
      ...Object.fromEntries(processors.map((n) => [`registers${n}`, registers(n)])),
    };
    const [original, ours] = (await Promise.all([
      askDebugger(path, questions),
      askDebugger(join(dir, 'out.dmp'), { ...questions, complaints: complaints() }),
      // biome-ignore lint/suspicious/noExplicitAny: answers by name.
    ])) as any[];
    expect(ours.complaints).toEqual([]);
    expect(ours.bugCheck).toEqual(original.bugCheck);
    expect([ours.system.build, ours.system.processors, ours.system.time, ours.system.uptimeSeconds]).toEqual([
      original.system.build,
      original.system.processors,
      original.system.time,
      original.system.uptimeSeconds,
    ]);
    for (const n of processors) {
      const [there, here] = [original[`registers${n}`], ours[`registers${n}`]];
      expect(here.pc).toBe(crash.frames[n]!.pc);
      // What breakpoint registers are, the debugger takes from elsewhere.
      const names = Object.keys(there).filter((name) => /^(x\d|fp|lr|sp|pc|cpsr|q\d|fp[cs]r)/.test(name));
      expect(names.length).toBeGreaterThan(66);
      expect(
        names.map((name) => [name, here[name]]),
        `processor ${n}`,
      ).toEqual(names.map((name) => [name, there[name]]));
    }
    const listed = (list: { base: bigint; size: number; timestamp: number; checksum: number }[]) =>
      list.map((m) => [m.base, m.size, m.timestamp, m.checksum]);
    expect(listed(ours.modules)).toEqual(listed(original.modules));
  });
}

if (triage) describe('a real crash of ARM64 22000 with 8 processors', () => realCrash(triage));
else it('has no real dump of ARM64 to be held against', () => undefined);
