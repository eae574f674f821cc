// Guests of true size and shape, each generation of Windows: every value against what the guest was built with. The gaps
// that are known are in test/support/known-gaps.ts.
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type ConvertOptions, convert } from '../../src/operations/convert.ts';
import { inspect } from '../../src/operations/inspect.ts';
import { verify } from '../../src/operations/verify.ts';
import type { ConversionReport } from '../../src/report/conversion.ts';
import type { InfoReport } from '../../src/report/input.ts';
import { type ElfOptions, writeElf } from '../guest/elf.ts';
import { GENERATIONS, type GenerationName } from '../guest/generations.ts';
import { GPRS, type GuestCpu } from '../guest/guest.ts';
import { buildTrueGuest, type TrueGuest, type TrueGuestOptions } from '../guest/true-guest.ts';
import { writeWinDump } from '../guest/win-dump.ts';
import { pagesOf } from '../support/dumps.ts';
import { roomyFolder } from '../support/folders.ts';
import { right } from '../support/known-gaps.ts';

let dir: string;
beforeAll(() => {
  // Some hundred files of 32 MiB, one after another.
  dir = roomyFolder('elf2dmp-true-');
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const NAMES = Object.keys(GENERATIONS) as GenerationName[];
const CRASH = { code: 0x7e, parameters: [0xffffffff_c0000005n, 2n, 3n, 4n], processor: 1 } as const;
const hex = (value: bigint | number) => `0x${value.toString(16).padStart(16, '0')}`;
/** What these have is a neighbour's, but for their versions: more is tried on that one. */
const LIKE_OTHERS: readonly GenerationName[] = ['1607', '1903', '1909', '22H2', '11 21H2', '11 25H2', '11 26H1'];
const codes = (report: { diagnostics: readonly { severity: string; code: string }[] }) =>
  report.diagnostics.filter((d) => d.severity !== 'note').map((d) => d.code);

interface Converted {
  report: ConversionReport;
  dump: Buffer;
  pages: Map<number, Buffer>;
}

async function converted(
  guest: TrueGuest,
  options: Partial<ConvertOptions> = {},
  elf: ElfOptions = {},
): Promise<Converted> {
  const [input, output] = [join(dir, 'vm.elf'), join(dir, 'out.dmp')];
  writeFileSync(input, writeElf(guest, elf));
  const report = await convert({ input, output, force: true, ...options });
  const dump = readFileSync(output);
  return { report, dump, pages: pagesOf(dump) };
}

async function infoOf(guest: TrueGuest, elf: ElfOptions = {}): Promise<InfoReport> {
  const input = join(dir, 'vm.elf');
  writeFileSync(input, writeElf(guest, elf));
  return await inspect({ input });
}

/** The dump's bytes at a kernel address. */
function at(guest: TrueGuest, pages: Map<number, Buffer>, virtual: bigint, length: number): Buffer {
  const parts: Buffer[] = [];
  for (let done = 0; done < length; ) {
    const physical = guest.kernel.translate(virtual + BigInt(done))!;
    const count = Math.min(length - done, 0x1000 - (physical % 0x1000));
    const page = pages.get(physical - (physical % 0x1000));
    expect(page, `the page at ${hex(virtual)}`).toBeDefined();
    parts.push(page!.subarray(physical % 0x1000, (physical % 0x1000) + count));
    done += count;
  }
  return Buffer.concat(parts);
}

/** Offsets in CONTEXT of what QEMU's notes have. */
const CONTEXT: Record<(typeof GPRS)[number], number> = {
  rax: 0x78,
  rcx: 0x80,
  rdx: 0x88,
  rbx: 0x90,
  rsp: 0x98,
  rbp: 0xa0,
  rsi: 0xa8,
  rdi: 0xb0,
  r8: 0xb8,
  r9: 0xc0,
  r10: 0xc8,
  r11: 0xd0,
  r12: 0xd8,
  r13: 0xe0,
  r14: 0xe8,
  r15: 0xf0,
  rip: 0xf8,
  rflags: 0x44,
};

function expectCpu(frame: Buffer, cpu: GuestCpu): void {
  const seen = Object.fromEntries(
    GPRS.map((name) => [
      name,
      name === 'rflags' ? BigInt(frame.readUInt32LE(0x44)) : frame.readBigUInt64LE(CONTEXT[name]),
    ]),
  );
  expect(seen).toEqual(cpu.regs);
  expect([frame.readUInt16LE(0x38), frame.readUInt16LE(0x42)]).toEqual([cpu.cs, cpu.ss]);
}

describe.each(NAMES)('Windows %s', (generation) => {
  const g = GENERATIONS[generation];
  const enabled = g.build !== g.baseBuild;
  let guest: TrueGuest;
  let full: Converted;
  let info: InfoReport;
  let seen: NonNullable<InfoReport['windows']>;
  beforeAll(async () => {
    guest = buildTrueGuest({ generation });
    full = await converted(guest);
    info = await inspect({ input: join(dir, 'vm.elf') });
    seen = info.windows!;
  });

  it('is found, with its versions, times, RAM and unloaded drivers', () => {
    const { truth } = guest;
    expect(info.problem).toBeNull();
    expect([seen.build, seen.buildLab, seen.ntVersion]).toEqual([g.build, g.lab, `${g.ntMajor}.${g.ntMinor}`]);
    expect([BigInt(seen.kernel.base), seen.kernel.size, seen.kernel.pdb?.name]).toEqual([
      truth.kernelBase,
      truth.kernelSize,
      'ntkrnlmp.pdb',
    ]);
    expect(seen.kdbg).toEqual({ address: hex(truth.kdbg), size: g.kdbgSize, encoded: g.encoded });
    expect(BigInt(seen.directoryTableBase)).toBe(BigInt(truth.root));
    expect(seen.uptimeSeconds).toBe(Number(truth.upTime / 10_000n) / 1000);
    expect(seen.ram?.map((r) => [Number(r.start), r.size])).toEqual(
      truth.physicalMemory.map((r) => [r.basePage * 4096, r.pageCount * 4096]),
    );
    expect(seen.unloadedModules.map((u) => [u.name, BigInt(u.from), BigInt(u.to)])).toEqual(
      truth.unloaded.map((u) => [u.name, u.from, u.to]),
    );
  });

  right('has nothing to warn of', enabled ? 'enablement-package' : undefined, () => {
    expect(codes(full.report)).toEqual([]);
    expect(full.report.outcome).toBe('good');
  });

  it('shows the registers of every processor', () => {
    expect(full.report.windows.processors.map((p) => p.cpu)).toEqual(guest.truth.processors.map((p) => p.cpu));
    for (const p of guest.truth.processors) {
      const cpu = guest.cpus[p.cpu]!;
      expectCpu(at(guest, full.pages, p.context, 0x4d0), cpu);
      const special = at(guest, full.pages, p.specialRegisters, 0xd8);
      expect([special.readBigUInt64LE(0), special.readBigUInt64LE(0x10), special.readBigUInt64LE(0x58)]).toEqual([
        cpu.cr0,
        cpu.cr3,
        cpu.gdt.base,
      ]);
    }
  });

  it('has the KDBG decoded, and everything else as it was', () => {
    expect(at(guest, full.pages, guest.truth.kdbg, g.kdbgSize).equals(guest.truth.kdbgBlock)).toBe(true);
    const changed = [...guest.pages].filter(([physical, page]) => {
      const there = full.pages.get(physical);
      return !there?.equals(page);
    });
    const expected = new Set(
      guest.truth.processors
        .flatMap((p) => [p.context, p.context + 0x4cfn, p.specialRegisters, p.specialRegisters + 0xefn])
        .concat([guest.truth.kdbg, guest.truth.kdbg + BigInt(g.kdbgSize - 1)])
        .map((virtual) => guest.kernel.translate(virtual)! & ~0xfff),
    );
    expect(changed.map(([physical]) => physical).filter((physical) => !expected.has(physical))).toEqual([]);
  });

  it('has all modules', () => {
    expect(seen.modules.map((m) => [m.name, BigInt(m.base), m.size])).toEqual(
      guest.truth.modules.map((m) => [m.name, m.base, m.size]),
    );
  });

  it('knows the PDB and version of every driver', () => {
    const session = new Set(guest.sessionModules.map((m) => m.base));
    const drivers = guest.truth.modules.filter((m, i) => i > 0 && !session.has(m.base));
    expect(
      seen.modules.filter((m, i) => i > 0 && !session.has(BigInt(m.base))).map((m) => [m.pdb?.name, m.pdb?.guid]),
    ).toEqual(drivers.map((m) => [m.pdb, m.guid]));
    expect(seen.modules[1]?.fileVersion).toBe(`${g.ntMajor}.${g.ntMinor}.${g.baseBuild}.2`);
  });

  right('knows the PDB of what lies in session space', g.session === undefined ? undefined : 'session-space', () => {
    for (const module of guest.sessionModules) {
      const { pdb } = seen.modules.find((m) => BigInt(m.base) === module.base)!;
      expect([pdb?.name, pdb?.guid]).toEqual([module.pdb, module.guid]);
    }
  });

  right('names every process', g.nameBytes === 16 ? 'sixteen-byte-names' : undefined, () => {
    expect(seen.processes.map((p) => [p.pid, p.name])).toEqual(guest.processes.map((p) => [p.pid, p.name]));
  });

  right('knows every process, though some have no page tables any more', 'gone-process', () => {
    expect(seen.processes.map((p) => [p.address, p.parentPid, p.peb])).toEqual(
      guest.processes.map((p) => [hex(p.address), p.parent, p.peb === 0n ? null : hex(p.peb)]),
    );
    const there = guest.processes.filter((p) => !p.gone);
    for (const p of there) {
      expect(Number(seen.processes.find((s) => s.address === hex(p.address))?.directoryTableBase)).toBe(p.root);
    }
  });

  if (LIKE_OTHERS.includes(generation)) return;

  right('makes a kernel dump that has the session, whatever process is gone', 'gone-process', async () => {
    const { report, pages } = await converted(guest, { type: 'kernel' });
    expect(codes(report).filter((code) => code !== 'build-disagrees')).toEqual([]);
    const roots = guest.processes.filter((p) => !p.gone).map((p) => p.root);
    expect(roots.filter((root) => !pages.has(root))).toEqual([]);
  });

  it('knows every process of a guest where all have their page tables', async () => {
    const whole = buildTrueGuest({ generation, gone: [] });
    const { pages } = await converted(whole, { type: 'kernel' });
    const { windows } = await inspect({ input: join(dir, 'vm.elf') });
    expect(windows?.processes.map((p) => [p.address, p.parentPid, Number(p.directoryTableBase)])).toEqual(
      whole.processes.map((p) => [hex(p.address), p.parent, p.root]),
    );
    expect(pages.get(whole.known.transition.physical)).toEqual(whole.fill(whole.known.transition.physical));
    expect(whole.processes.filter((p) => !pages.has(p.root))).toEqual([]);
  });

  describe('as active memory', () => {
    let whole: TrueGuest;
    let active: Converted;
    beforeAll(async () => {
      whole = buildTrueGuest({ generation, gone: [] });
      active = await converted(whole, { type: 'active' });
    });
    const late = g.pfn.stateAt === 0x22;
    right('goes by the page frame database', late ? 'page-location' : undefined, () => {
      expect(active.report.dump.selection?.statesFrom).toBe('page frame database');
    });
    right('keeps what is active or private', late ? 'page-location' : 'private-pages', () => {
      const { known } = whole;
      for (const physical of [known.activeUnmapped, known.modifiedPrivate, known.standbyPrivate]) {
        expect(active.pages.has(physical), hex(physical)).toBe(true);
      }
    });
    it('leaves out what is free, zeroed, or of a file on standby', () => {
      const { known } = whole;
      for (const physical of [known.zeroed, known.free, known.standbyFile, known.largeFree]) {
        expect(active.pages.has(physical), hex(physical)).toBe(false);
      }
    });
    it('leaves out all of a large free page', () => {
      const { known } = whole;
      for (let physical = known.largeFree; physical < known.largeFree + 0x200000; physical += 0x1000) {
        expect(active.pages.has(physical), hex(physical)).toBe(false);
      }
    });
  });

  describe('crashed', () => {
    it('shows the registers that Windows captured', async () => {
      const crashed = buildTrueGuest({ generation, crash: CRASH });
      const { report, dump, pages } = await converted(crashed);
      const { truth } = crashed;
      expect([dump.readUInt32LE(0x38), dump.readBigUInt64LE(0x40)]).toEqual([CRASH.code, CRASH.parameters[0]]);
      expect(report.windows.bugCheck).toMatchObject({ processor: 1, processorFrom: 'captured-frame' });
      const frame = at(crashed, pages, truth.processors[1]!.context, 0x4d0);
      expect([frame.readBigUInt64LE(0xf8), frame.readBigUInt64LE(0x98), frame.readBigUInt64LE(0x78)]).toEqual([
        truth.captured!.rip,
        truth.captured!.rsp,
        truth.captured!.rax,
      ]);
      expectCpu(at(crashed, pages, truth.processors[0]!.context, 0x4d0), crashed.cpus[truth.processors[0]!.cpu]!);
    });
  });

  const inPrcb = g.contextPointer !== undefined && g.processorState === 0x40;
  right('shows all registers where the CPU has no XSAVE', inPrcb ? 'frame-in-prcb' : undefined, async () => {
    const plain = buildTrueGuest({ generation, xsave: false, crash: CRASH });
    const { report, pages } = await converted(plain);
    expect(codes(report).filter((code) => code !== 'build-disagrees')).toEqual([]);
    const [first, crashed] = plain.truth.processors;
    expectCpu(at(plain, pages, first!.context, 0x4d0), plain.cpus[first!.cpu]!);
    expect(at(plain, pages, crashed!.context, 0x4d0).readBigUInt64LE(0xf8)).toBe(plain.truth.captured!.rip);
  });

  if (g.shadowRootAt !== undefined) {
    it('is found behind KVA shadow, all processors in user mode', async () => {
      const shadowed = buildTrueGuest({ generation, kvaShadow: true, user: [0, 1] });
      const { report, pages } = await converted(shadowed);
      expect(codes(report).filter((code) => code !== 'build-disagrees')).toEqual([]);
      for (const p of shadowed.truth.processors) {
        expectCpu(at(shadowed, pages, p.context, 0x4d0), shadowed.cpus[p.cpu]!);
      }
    });
  }

  it('is found without CPU states', async () => {
    const { problem, windows } = await infoOf(guest, { withoutNotes: true });
    expect(problem).toBeNull();
    expect(windows?.modules.length).toBe(guest.truth.modules.length);
  });
});

describe('entries that are swizzled against L1TF', () => {
  for (const swizzleBit of [35, 38, 39, 45] as const) {
    right(
      `with bit ${swizzleBit} lead to their pages`,
      swizzleBit === 45 ? undefined : 'swizzled-entries',
      async () => {
        const guest = buildTrueGuest({ generation: '1809', swizzleBit, gone: [] });
        const { report, pages } = await converted(guest, { type: 'kernel' });
        const { physical } = guest.known.transition;
        expect(pages.get(physical)).toEqual(guest.fill(physical));
        expect(report.dump.selection?.kept.kernelInTransition).toBe(1);
      },
    );
  }
});

describe('raw-pointer entries', () => {
  right('are not taken for transition', 'raw-pointers', async () => {
    const guest = buildTrueGuest({ generation: '11 23H2', gone: [] });
    const { pages } = await converted(guest, { type: 'kernel' });
    expect(pages.has(guest.known.rawPointer!)).toBe(false);
  });
});

describe('large free pages of 22631', () => {
  right('are free, though all entries but the first say Bad', 'page-location', async () => {
    const guest = buildTrueGuest({ generation: '11 23H2', gone: [] });
    const { report } = await converted(guest, { type: 'active' });
    expect(report.dump.selection?.statesFrom).toBe('page frame database');
    const out = report.dump.selection!.leftOut;
    expect((out.free ?? 0) + (out.zeroed ?? 0)).toBeGreaterThan(512);
    expect(report.dump.selection!.kept.bad).toBeUndefined();
  });
});

describe("a kernel whose exports can't be read", () => {
  const guestWith = (exports: TrueGuestOptions['exports']) =>
    buildTrueGuest({ exports, crash: { ...CRASH, captured: true } });
  right('paged out: still tells who crashed', 'exports-paged-out', async () => {
    const { report } = await converted(guestWith('paged out'));
    expect(report.windows.bugCheck).toMatchObject({ processor: 1, processorFrom: 'captured-frame' });
  });
  it('paged out: is found all the same', async () => {
    const { report } = await converted(guestWith('paged out'));
    expect(report.windows.kernel.base).toBe(hex(GENERATIONS['2004'].kernelBase));
  });
  right('with a foreign name in them: is the kernel by its CodeView record', 'foreign-export-name', async () => {
    const { report } = await converted(guestWith('foreign name'));
    expect(report.windows.kernel.base).toBe(hex(GENERATIONS['2004'].kernelBase));
  });
});

describe('a guest that was stopped early in boot', () => {
  right('is converted', 'early-boot', async () => {
    const { report } = await converted(buildTrueGuest({ early: true }));
    expect(report.windows.build).toBe(19041);
  });
});

describe('names of processes', () => {
  right('one that fills its field harms no other', 'full-name', async () => {
    const guest = buildTrueGuest({ fullName: true, gone: [] });
    const { windows } = await infoOf(guest);
    const long = guest.processes.findIndex((p) => p.name.length === 15);
    const names = windows?.processes.map((p) => p.name);
    expect(names?.filter((_, i) => i !== long)).toEqual(
      guest.processes.filter((_, i) => i !== long).map((p) => p.name),
    );
  });
});

describe('a crashed guest without CPU states', () => {
  const guest = () => buildTrueGuest({ crash: CRASH, crashInExplorer: true, gone: [] });
  right("has the crashing process's root in its header", 'crash-root', async () => {
    const crashed = guest();
    const { dump } = await converted(crashed, {}, { withoutNotes: true });
    const explorer = crashed.processes.find((p) => p.name === 'explorer.exe')!;
    expect(Number(dump.readBigUInt64LE(0x10))).toBe(explorer.root);
  });
  right('does not call registers unknown that it shows', 'shown-registers-unknown', async () => {
    const { report } = await converted(guest(), {}, { withoutNotes: true });
    const unknown = report.diagnostics.filter((d) => d.code === 'processor-without-state').map((d) => d.message);
    expect(unknown.some((message) => message.includes('processor 0'))).toBe(true);
    expect(unknown.some((message) => message.includes('processor 1'))).toBe(false);
  });
});

describe('a captured frame', () => {
  right('whose stack lies in the kernel image is shown', 'stack-in-image', async () => {
    const guest = buildTrueGuest({ crash: { ...CRASH, processor: 0 }, stackInImage: true });
    const { report, pages } = await converted(guest);
    expect(report.windows.bugCheck).toMatchObject({ processor: 0 });
    const frame = at(guest, pages, guest.truth.processors[0]!.context, 0x4d0);
    expect(frame.readBigUInt64LE(0xf8)).toBe(guest.truth.captured!.rip);
  });
});

describe('a version text that begins with a date', () => {
  right('gives no false warning', 'dated-lab', async () => {
    const { report } = await converted(buildTrueGuest({ lab: '20240615-0.4.15-x86_64-dev' }));
    expect(codes(report)).toEqual([]);
  });
});

describe('the header, as Windows writes it', () => {
  let of19041: Converted;
  let of22631: Converted;
  let guest: TrueGuest;
  beforeAll(async () => {
    guest = buildTrueGuest({ crash: CRASH });
    of19041 = await converted(guest);
    of22631 = await converted(buildTrueGuest({ generation: '11 23H2', crash: CRASH }));
  });
  const fill = (bytes: Buffer) => bytes.equals(Buffer.alloc(bytes.length, 'PAGE'));
  right('the exception: flags 1, unused words left', 'header-exception', () => {
    const { dump } = of19041;
    expect([dump.readUInt32LE(0xf00), dump.readUInt32LE(0xf04), dump.readBigUInt64LE(0xf10)]).toEqual([
      0x80000003,
      1,
      guest.truth.captured!.rip,
    ]);
    expect([dump.readUInt32LE(0xf18), fill(dump.subarray(0xf1c, 0xf98))]).toEqual([0, true]);
  });
  right('VersionUser and SecondaryDataState are left', 'header-unset-fields', () => {
    const { dump } = of19041;
    expect([fill(dump.subarray(0x60, 0x80)), fill(dump.subarray(0x103c, 0x1040))]).toEqual([true, true]);
  });
  right('BootId is the one of SharedUserData', 'header-boot-id', () => {
    expect([of19041.dump.readUInt32LE(0x1054), of22631.dump.readUInt32LE(0x1054)]).toEqual([13, 13]);
  });
  right('byte 0x104e is 4 on 22631', 'header-104e', () => {
    expect(of22631.dump.readUInt8(0x104e)).toBe(4);
  });
});

describe("verify of Windows' own dumps", () => {
  const dumped = async (generation: GenerationName, change: (dump: Buffer, guest: TrueGuest) => void) => {
    const guest = buildTrueGuest({ generation, kdbg: 'plain', crash: CRASH });
    const dump = writeWinDump(guest);
    change(dump, guest);
    const path = join(dir, 'windows.dmp');
    writeFileSync(path, dump);
    return await verify({ dump: path });
  };
  it('finds one sound', async () => {
    expect((await dumped('2004', () => undefined)).findings).toEqual([]);
  });
  right('accepts a header with the base build, memory with the edition', 'verify-enablement', async () => {
    expect((await dumped('22H2', (dump) => dump.writeUInt32LE(19041, 0xc))).findings).toEqual([]);
  });
  it('accepts the value of MmPfnDatabase', async () => {
    const { findings } = await dumped('2004', (dump, guest) => {
      guest.kernel.read(guest.truth.pfnDatabaseVariable, 8).copy(dump, 0x18);
    });
    expect(findings).toEqual([]);
  });
  right('accepts low bits in the root', 'verify-root-bits', async () => {
    const { findings } = await dumped('2004', (dump, guest) =>
      dump.writeBigUInt64LE(BigInt(guest.truth.root) | 2n, 0x10),
    );
    expect(findings).toEqual([]);
  });
});
