// A real crash of 19041 with 16 processors (a public minidump) as a guest: converted, it must show what the original does.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { convert } from '../../src/operations/convert.ts';
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
import { writeElf } from '../guest/elf.ts';
import { GPRS } from '../guest/guest.ts';
import { buildRealCrash, type RealCrash } from '../guest/real-crash.ts';
import { realDump } from '../support/real-data.ts';

const triage = realDump('triage_x64.dmp');

it('where a folder has no real dumps, one line says so', () => {
  const warn = vi.spyOn(console, 'warn').mockImplementation(() => undefined);
  expect([realDump('triage_x64.dmp', '/nonexistent'), realDump('other.dmp', '/nonexistent')]).toEqual([
    undefined,
    undefined,
  ]);
  expect(warn.mock.calls.map(([line]) => line)).toEqual([
    'no tests with real dumps: /nonexistent has no triage_x64.dmp (set ELF2DMP_REAL_DUMPS)',
  ]);
  warn.mockRestore();
});

function realCrash(path: string): void {
  let dir: string;
  let crash: RealCrash;
  let report: ConversionReport;
  beforeAll(async () => {
    dir = mkdtempSync(join(tmpdir(), 'elf2dmp-real-'));
    crash = buildRealCrash(path);
    writeFileSync(join(dir, 'vm.elf'), writeElf(crash.guest));
    report = await convert({ input: join(dir, 'vm.elf'), output: join(dir, 'out.dmp') });
  });
  afterAll(() => rmSync(dir, { recursive: true, force: true }));

  it('is converted without loss, its 16 processors matched to their CPUs', () => {
    expect(report.diagnostics).toEqual([]);
    expect(report.windows.build).toBe(19041);
    expect(report.windows.processors.map((p) => p.cpu)).toEqual(crash.guest.truth.processors.map((p) => p.cpu));
    expect(report.windows.bugCheck).toMatchObject({
      code: '0x1000007e',
      processor: crash.crash.processor,
      processorFrom: 'captured-frame',
    });
  });

  if (!debuggerAvailable()) return;

  it('shows in the debugger what the original shows', async () => {
    const processors = crash.guest.truth.processors.map((p) => p.number);
    const questions: Record<string, Question<unknown>> = {
      bugCheck: bugCheck(),
      modules: modules(),
      system: system(),
      ...Object.fromEntries(processors.map((n) => [`registers${n}`, registers(n)])),
    };
    const [original, ours] = (await Promise.all([
      askDebugger(path, questions),
      askDebugger(join(dir, 'out.dmp'), { ...questions, complaints: complaints() }),
      // biome-ignore lint/suspicious/noExplicitAny: as above.
    ])) as any[];
    expect(ours.bugCheck).toEqual(original.bugCheck);
    expect(ours.bugCheck.code).toBe(0x1000007e);
    expect(ours.complaints).toEqual([]);
    expect([ours.system.build, ours.system.processors, ours.system.time, ours.system.uptimeSeconds]).toEqual([
      original.system.build,
      original.system.processors,
      original.system.time,
      original.system.uptimeSeconds,
    ]);
    const names = [
      ...GPRS.filter((name) => name !== 'rflags'),
      'efl',
      'cs',
      'cr0',
      'cr3',
      'cr4',
      'gdtr',
      'gdtl',
      'idtr',
      'idtl',
      'tr',
    ];
    for (const n of processors) {
      const [there, here] = [original[`registers${n}`], ours[`registers${n}`]];
      expect(
        names.map((name) => [name, here[name]]),
        `processor ${n}`,
      ).toEqual(names.map((name) => [name, there[name]]));
      expect(here.rip).toBe(crash.frames[n]!.rip);
    }
    const listed = (list: { base: bigint; size: number; timestamp: number; checksum: number }[]) =>
      list.map((m) => [m.base, m.size, m.timestamp, m.checksum]);
    expect(listed(ours.modules)).toEqual(listed(original.modules));
    expect(ours.modules.length).toBe(151);
  });

  it('shows the captured frames where no CPU state is in the input', async () => {
    writeFileSync(join(dir, 'raw.elf'), writeElf(crash.guest, { withoutNotes: true }));
    const raw = await convert({ input: join(dir, 'raw.elf'), output: join(dir, 'raw.dmp') });
    expect(raw.windows.bugCheck).toMatchObject({ processor: crash.crash.processor });
    expect(new Set(raw.windows.processors.map((p) => p.registers))).toEqual(new Set(['captured']));
  });
}

if (triage) describe('a real crash of 19041 with 16 processors', () => realCrash(triage));
