import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { convert } from '../../src/operations/convert.ts';
import { inspect } from '../../src/operations/inspect.ts';
import { verify } from '../../src/operations/verify.ts';
import {
  askDebugger,
  bugCheck,
  debuggerAvailable,
  dumpDebug,
  modules,
  registers,
  text,
  vertarget,
} from '../debugger/debugger.ts';
import { buildGuest, type GuestOptions } from '../guest/guest.ts';
import { dumpWithQemu, qemuAvailable } from '../support/qemu.ts';

let dir: string;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'elf2dmp-info-debugger-'));
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const GUESTS: readonly [name: string, GuestOptions][] = [
  ['running, KVA shadow, one processor in user mode', { processors: 3, user: [1], kernelRootAt: 0x9000, seed: 51 }],
  ['crashed', { crash: { code: 0xd1, parameters: [0x10n, 2n, 0n, 0xfffff804_2c460004n], processor: 1 }, seed: 52 }],
];

describe.skipIf(!debuggerAvailable() || !qemuAvailable())('info and the real debugger', () => {
  it.each(GUESTS)('say the same of a guest that QEMU dumped: %s', async (_, options) => {
    const [input, output] = [join(dir, 'vm.elf'), join(dir, 'vm.dmp')];
    await dumpWithQemu(buildGuest(options), input);
    await convert({ input, output, force: true });
    expect(await verify({ dump: output, against: input })).toMatchObject({ outcome: 'sound', findings: [] });
    const before = (await inspect({ input })).windows!;
    const { windows, input: file } = await inspect({ input: output });
    const after = windows!;
    const seen = await askDebugger(output, {
      target: vertarget(),
      header: dumpDebug(),
      bug: bugCheck(),
      modules: modules(),
      // Only this makes it read the list of unloaded modules.
      reloaded: text('.reload'),
      list: text('lm'),
      ...Object.fromEntries(after.processors.map((p) => [`cpu${p.number}`, registers(p.number)])),
      ...Object.fromEntries(after.modules.map((m) => [`version${m.base}`, text(`lmvm ${debuggerName(m.name)}`)])),
      ...Object.fromEntries(after.modules.map((m) => [`image${m.base}`, text(`!lmi ${debuggerName(m.name)}`)])),
    });
    const answers = seen as Record<string, unknown>;

    for (const info of [before, after]) {
      // vertarget
      expect(seen.target).toMatchObject({
        build: info.build,
        processors: info.processors.length,
        buildLab: info.buildLab,
        kernelBase: BigInt(info.kernel.base),
        product: `Product: WinNt, suite: ${info.suites.join(' ')}`,
      });
      expect(new Date(seen.target.sessionTime!.replace(/ \(.*/, ' UTC')).toISOString()).toBe(info.systemTime);
      const [, days, hours, minutes, rest] = /(\d+) days (\d+):(\d+):([\d.]+)/.exec(seen.target.uptime!)!.map(Number);
      expect(info.uptimeSeconds).toBeCloseTo(((days! * 24 + hours!) * 60 + minutes!) * 60 + rest!, 2);

      // lm, lmvm, !lmi
      const loaded = [...info.modules].sort((a, b) => (a.base < b.base ? -1 : 1));
      expect(seen.modules).toMatchObject(
        loaded.map((m) => ({
          base: BigInt(m.base),
          size: m.size,
          timestamp: Number(m.timeDateStamp),
          checksum: Number(m.checkSum),
        })),
      );
      for (const m of info.modules) {
        const version = answers[`version${m.base}`] as string;
        expect(/File version: +(\S+)/.exec(version)?.[1] ?? null).toBe(m.fileVersion);
        expect(/Product version: +(\S+)/.exec(version)?.[1] ?? null).toBe(m.productVersion);
        const image = /GUID: \{([-0-9A-F]+)\}\s+Age: (\w+), Pdb: (\S+)/.exec(answers[`image${m.base}`] as string)!;
        const key = `${image[1]!.replaceAll('-', '')}${image[2]}`;
        expect(m.pdb?.symbolPath).toBe(`${image[3]}/${key}/${image[3]}`);
      }
      const unloaded = seen.list.slice(seen.list.indexOf('Unloaded modules:'));
      const listed = [...unloaded.matchAll(/^([0-9a-f`]{17}) ([0-9a-f`]{17}) +(\S+)/gm)];
      const wide = (digits: string | undefined) => `0x${digits?.replace('`', '')}`;
      expect(listed.map((each) => [wide(each[1]), wide(each[2]), each[3]])).toEqual(
        info.unloadedModules.map((m) => [m.from, m.to, m.name]),
      );

      // r
      for (const p of info.processors) {
        const r = answers[`cpu${p.number}`] as Record<string, bigint>;
        expect([r['rip'], r['rsp'], r['cr3']! & ~0xfffn]).toEqual(
          [p.instructionPointer, p.stackPointer, p.pageTableRoot].map((value) => BigInt(value!)),
        );
        expect((r['cs']! & 3n) === 3n ? 'user' : 'kernel').toBe(p.mode);
      }
    }
    // .bugcheck
    const { code, parameters } = file.dumpHeader!.bugCheck;
    expect(seen.bug).toEqual({ code: Number(code), parameters: parameters.map((p) => BigInt(p.value)) });
    expect(before.bugCheck?.code ?? '0x161').toBe(code);
    // .dumpdebug
    expect(seen.header.header).toMatchObject({
      DirectoryTableBase: BigInt(before.directoryTableBase),
      KdDebuggerDataBlock: BigInt(before.kdbg.address),
    });
    expect(seen.header.prcbs).toEqual(before.processors.map((p) => BigInt(p.prcb)));
    // A line of PRCBs can look like a run.
    const runs = seen.header.runs.slice(0, file.runs.length);
    expect(runs.map(({ start, length }) => ({ start: `0x${start.toString(16)}`, size: Number(length) }))).toEqual(
      file.runs,
    );
  });
});

/** The debugger's name of a module. */
const debuggerName = (file: string) => (file === 'ntoskrnl.exe' ? 'nt' : file.replace(/\..*/, ''));
