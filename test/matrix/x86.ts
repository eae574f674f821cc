/** The 32-bit guests of the matrix: guest → QEMU → elf2dmp → the real debugger, and what differs from what went in. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { convert } from '../../src/operations/convert.ts';
import { inspect } from '../../src/operations/inspect.ts';
import { stacks } from '../../src/operations/stacks.ts';
import { verify } from '../../src/operations/verify.ts';
import {
  askDebugger,
  bugCheck,
  complaints,
  dumpDebug,
  type Instruction,
  instruction,
  modules,
  type Question,
  registers,
  stack,
  system,
  text,
  vertarget,
  virtualMemory,
} from '../debugger/debugger.ts';
import { addPageDatabase32 } from '../guest/page-database.ts';
import { buildGuest32, type Guest32, type GuestOptions32, type GuestProcessor32 } from '../guest/x86/guest.ts';
import { dumpWithQemu, type QemuOptions } from '../support/qemu.ts';
import { Checks, type Effort, effortOf } from './checks.ts';

export interface X86Case {
  name: string;
  guest: GuestOptions32;
  /** Default: ELF by qemu-system-x86_64. */
  qemu?: QemuOptions;
  type?: 'bitmap' | 'kernel' | 'active';
  /** The guest has a page frame database. */
  pageDatabase?: true;
  /** Through a full dump: that is converted. */
  through?: true;
  /** Codes of losses and warnings, all of them. */
  codes?: readonly string[];
}

const I386: QemuOptions = { program: 'qemu-system-i386' };
const CRASH = { code: 0xd1, parameters: [0x10, 2, 0, 0x8a460003], processor: 1 } as const;

export const X86_CASES: readonly X86Case[] = [
  {
    name: '32-bit Windows 7 with PAE, 2 processors, one in user mode',
    guest: { processors: 2, user: [1] },
    qemu: I386,
  },
  {
    name: '32-bit Windows 7 without PAE, 3 processors, one in user mode',
    guest: { pae: false, processors: 3, user: [0] },
    qemu: I386,
  },
  {
    name: '32-bit Windows 7, crashed, 4 processors in permuted order',
    guest: { processors: 4, user: [2], order: [2, 0, 3, 1], crash: CRASH },
  },
  {
    name: '32-bit Windows 7 without PAE, crashed, its kernel in a large page, bitmap dump',
    guest: { pae: false, largePages: true, crash: CRASH },
    type: 'bitmap',
  },
  { name: '32-bit XP without PAE', guest: { build: 'xp', pae: false, processors: 1 }, qemu: I386 },
  {
    name: '32-bit XP with PAE, crashed, kernel dump of the full dump',
    guest: { build: 'xp', processors: 2, crash: CRASH },
    type: 'kernel',
    through: true,
  },
  {
    name: '32-bit Server 2003, one processor in user mode',
    guest: { build: 'server2003', processors: 2, user: [0] },
    qemu: I386,
  },
  {
    name: '32-bit Windows 10, 4 processors, two in user mode, one CPU never started, dump of active memory',
    guest: { build: 'win10', processors: 4, user: [0, 3], neverStarted: 1 },
    type: 'active',
    pageDatabase: true,
  },
  {
    name: '32-bit Windows 10, crashed with a status for its code, kdump of QEMU',
    guest: { build: 'win10', crash: { ...CRASH, code: 0xc000021a } },
    qemu: { ...I386, format: 'kdump-zlib' },
  },
  { name: '32-bit, zero-extended pointers in the KDBG', guest: { kdbgPointers: 'zero-extended' } },
  { name: '32-bit, /3GB', guest: { threeGigabytes: true, user: [0] } },
  {
    name: '32-bit with PAE, RAM above 4 GiB, crashed',
    guest: { highMiB: 16, user: [0], crash: CRASH },
    qemu: { arguments: ['-machine', 'max-ram-below-4g=16M'] },
  },
  {
    name: '32-bit, crashed, memory saved by pmemsave',
    guest: { processors: 1, crash: { ...CRASH, processor: 0 } },
    qemu: { raw: 'pmemsave' },
    codes: ['no-cpu-states'],
  },
];

export interface X86Result extends Effort {
  problems: string[];
  /** What was compared. */
  checks: number;
}

/** How the engine calls the dumps: one of active memory it tells by its attributes, in 64-bit dumps alone. */
const TITLES = {
  full: 'Full Dump Analysis',
  bitmap: 'Bitmap Dump Analysis - full address space is available',
  kernel: 'Bitmap Dump Analysis - Kernel address space is available,',
  active: 'Bitmap Dump Analysis - full address space is available',
};

/** As the engine takes addresses. */
const wide = (address: number): bigint => BigInt.asUintN(64, BigInt(address | 0));
const hex = (value: bigint) => `0x${value.toString(16).padStart(16, '0')}`;

/** What the debugger shows of a processor, by its names: of one whose registers Windows captured, only those. */
function expected({ cpus, truth: { captured } }: Guest32, p: GuestProcessor32): Record<string, bigint> {
  const cpu = cpus[p.cpu]!;
  const { rax, rbx, rcx, rdx, rsi, rdi, rip, rsp, rbp, rflags } = cpu.regs;
  const general = { eax: rax, ebx: rbx, ecx: rcx, edx: rdx, esi: rsi, edi: rdi, eip: rip, esp: rsp, ebp: rbp };
  const tables = { gdtr: BigInt(p.gdt), gdtl: 0x3ffn, idtr: BigInt(p.idt), idtl: 0x7ffn };
  const own =
    captured?.processor === p.number
      ? { eip: BigInt(captured.eip), esp: BigInt(captured.esp), eax: BigInt(captured.eax), cs: 8n, ss: 0x10n }
      : {
          ...general,
          efl: rflags,
          ...Object.fromEntries((['cs', 'ss', 'ds', 'es', 'fs', 'gs'] as const).map((s) => [s, BigInt(cpu[s])])),
        };
  return { ...own, ...tables, cr0: cpu.cr0, cr3: cpu.cr3, cr4: cpu.cr4, tr: BigInt(cpu.tr) };
}

export async function runX86Case(c: X86Case): Promise<X86Result> {
  const dir = mkdtempSync(join(tmpdir(), 'elf2dmp-matrix-x86-'));
  try {
    const guest = buildGuest32(c.guest);
    if (c.pageDatabase) addPageDatabase32(guest);
    const input = await dumpWithQemu(guest, join(dir, 'vm.elf'), c.qemu);
    const checks = new Checks();
    const output = join(dir, 'vm.dmp');
    const full = join(dir, 'full.dmp');
    if (c.through) await convert({ input, output: full });
    const from = c.through ? full : input;
    const report = await convert({ input: from, output, ...(c.type && { type: c.type }) });
    const said = report.diagnostics.filter(({ severity }) => severity !== 'note').map(({ code }) => code);
    checks.same('codes', [...new Set(said)].sort(), [...(c.codes ?? [])].sort());
    checks.same('verify', (await verify({ dump: output, against: from })).findings, []);
    await checkDebugger(checks, { c, guest, output });
    return { problems: checks.problems, checks: checks.count, ...effortOf(report) };
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

interface Dumped {
  c: X86Case;
  guest: Guest32;
  output: string;
}

async function checkDebugger(checks: Checks, { c, guest, output }: Dumped): Promise<void> {
  const { truth, build } = guest;
  const isRaw = c.qemu?.raw !== undefined;
  const shown = truth.processors.filter((p) => !isRaw || p.number === truth.captured?.processor);
  const user = truth.processors.find(({ cpu }) => (guest.cpus[cpu]!.cs & 3) === 3);
  // A dump of active memory has no pages on standby that a file has.
  const samples = truth.samples.filter(({ what }) => !(c.pageDatabase && /in transition/.test(what)));
  const questions: Record<string, Question<unknown>> = {
    complaints: complaints(),
    system: system(),
    target: vertarget(),
    dump: dumpDebug(),
    bug: bugCheck(),
    lm: text('lm'),
    modules: modules(),
    ...Object.fromEntries(samples.map((s) => [s.what, virtualMemory(wide(s.virtual), s.bytes.length)])),
    ...Object.fromEntries(shown.map((p) => [`r${p.number}`, registers(p.number)])),
    ...Object.fromEntries(shown.map((p) => [`u${p.number}`, instruction(p.number, 'eip')])),
    ...Object.fromEntries(shown.map((p) => [`k${p.number}`, stack(p.number)])),
  };
  if (user) {
    const { virtual, bytes } = truth.userSample;
    questions['user'] = virtualMemory(BigInt(virtual), bytes.length, user.number);
  }
  // biome-ignore lint/suspicious/noExplicitAny: answers by names made above.
  const seen = (await askDebugger(output, questions)) as any;
  checks.same('complaints', seen.complaints, []);
  checks.same(
    'build, processors, machine',
    [seen.system.build, seen.system.processors, seen.system.processorType, seen.system.effectiveProcessorType],
    [build.build, truth.processors.length, 0x14c, 0x14c],
  );
  checks.same(
    'time, uptime',
    [seen.system.time, seen.system.uptimeSeconds],
    [Number((truth.systemTime - 116_444_736_000_000_000n) / 10_000_000n), Number(truth.upTime / 10_000_000n)],
  );
  checks.same(
    'vertarget',
    [seen.target.build, seen.target.kernelBase, seen.target.loadedModuleList, seen.target.buildLab],
    [build.build, BigInt(truth.kernelBase), BigInt(truth.psLoadedModuleList), build.lab],
  );
  checks.same('product', seen.target.product, 'Product: WinNt, suite: TerminalServer SingleUserTS');
  checks.same('dump kind', seen.dump.title, `32 bit Kernel ${TITLES[c.type ?? 'full']}`);
  const { header } = seen.dump;
  if (c.type === 'active') checks.same('attributes', header.Attributes, 0x40n);
  checks.same(
    'PAE, KDBG, module list, process list',
    [header.PaeEnabled, header.KdDebuggerDataBlock, header.PsLoadedModuleList, header.PsActiveProcessHead],
    [guest.pae ? 1n : 0n, ...[truth.kdbg, truth.psLoadedModuleList, truth.psActiveProcessHead].map(BigInt)],
  );
  checks.same('bug check', seen.bug.code, truth.bugCheck?.code ?? 0x161);
  checks.same(
    'parameters',
    seen.bug.parameters.map((p: bigint) => BigInt.asUintN(32, p)),
    (truth.bugCheck?.parameters ?? [0, 0, 0, 0]).map(BigInt),
  );
  // The engine lists the program of the processor that it opens on as well.
  const { userModule: app } = truth;
  const opensOn = truth.captured?.processor ?? 0;
  checks.same(
    'modules',
    seen.modules.map((m: { base: bigint; size: number }) => [m.base, m.size]),
    [
      ...(user?.number === opensOn ? [[BigInt(app.base), app.size]] : []),
      ...truth.modules.map(({ base, size }) => [wide(base), size]),
    ],
  );
  checks.same('the last unloaded driver in lm', seen.lm.includes(truth.unloaded[0]!.name), true);
  for (const { what, bytes } of samples) checks.same(what, seen[what], bytes);
  if (user) checks.same("a program's memory", seen.user, truth.userSample.bytes);
  const ours = (await stacks({ input: output })).stacks;
  for (const p of shown) {
    const there = seen[`r${p.number}`] as Record<string, bigint>;
    for (const [name, value] of Object.entries(expected(guest, p))) {
      checks.same(`${name} of processor ${p.number}`, there[name], value);
    }
    const { address, bytes } = seen[`u${p.number}`] as Instruction;
    checks.same(`instruction of processor ${p.number} at`, address, there['eip']);
    checks.same(`instruction of processor ${p.number} is known`, bytes.includes('?'), false);
    const { captured } = truth;
    const frames = (captured?.processor === p.number ? [captured.eip, ...p.frames.slice(2)] : p.frames).map(wide);
    const theirs = (seen[`k${p.number}`] as { instruction: bigint }[]).map(({ instruction }) => instruction);
    checks.same(`stack of processor ${p.number}`, theirs, frames);
    checks.same(
      `our stack of processor ${p.number}`,
      ours.find(({ processor }) => processor === p.number)?.frames.map((f) => f.instructionPointer),
      frames.map(hex),
    );
  }
  await checkInfo(checks, { guest, output }, seen);
}

/** What `info` says of the dump is what the debugger shows of it. */
// biome-ignore lint/suspicious/noExplicitAny: answers by the names of their questions.
async function checkInfo(checks: Checks, { guest, output }: Omit<Dumped, 'c'>, seen: any): Promise<void> {
  const { windows, problem } = await inspect({ input: output });
  if (!windows) {
    checks.problems.push(`info of the dump: ${problem?.message}`);
    return;
  }
  checks.same('info: build', windows.build, seen.system.build);
  checks.same('info: root', BigInt(windows.directoryTableBase), seen.dump.header.DirectoryTableBase);
  checks.same(
    'info: modules',
    windows.modules.map((m) => [BigInt(m.base), m.size]),
    guest.truth.modules.map(({ base, size }) => [wide(base), size]),
  );
  for (const p of windows.processors) {
    const registers = seen[`r${p.number}`] as Record<string, bigint> | undefined;
    checks.same(
      `info: registers of processor ${p.number}`,
      [p.instructionPointer, p.stackPointer].map((value) => value && BigInt.asUintN(32, BigInt(value))),
      registers ? [registers['eip'], registers['esp']] : [null, null],
    );
  }
}
