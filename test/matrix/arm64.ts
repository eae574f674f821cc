/** The ARM64 guests of the matrix: guest → QEMU → elf2dmp → the real debugger, and what differs from what went in. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { convert } from '../../src/operations/convert.ts';
import { stacks } from '../../src/operations/stacks.ts';
import { verify } from '../../src/operations/verify.ts';
import {
  askDebugger,
  bugCheck,
  complaints,
  modules,
  type Question,
  registers,
  stack,
  text,
  vertarget,
  virtualMemory,
} from '../debugger/debugger.ts';
import { type Arm64Guest, type Arm64Options, buildArm64Guest } from '../guest/arm64.ts';
import { writeArm64Elf } from '../guest/arm64-elf.ts';
import { addPageDatabaseArm64 } from '../guest/page-database.ts';
import { dumpArm64WithQemu } from '../support/qemu-arm64.ts';
import { Checks, type Effort, effortOf } from './checks.ts';

export interface Arm64Case {
  name: string;
  guest: Arm64Options;
  /** Default: ELF by QEMU. */
  format?: 'kdump-zlib' | 'pmemsave' | 'backend' | 'migrate' | 'without SVE';
  type?: 'bitmap' | 'kernel' | 'active' | 'triage';
  /** The guest has a page frame database. */
  pageDatabase?: true;
  /** Codes of the losses, all of them. */
  losses?: readonly string[];
}

const CRASH = { code: 0xd1, parameters: [0x10n, 2n, 0n, 0xfffff806_86040004n], processor: 1 } as const;

export const ARM64_CASES: readonly Arm64Case[] = [
  {
    name: 'ARM64, 3 processors, one in user mode, one CPU never started',
    guest: { processors: 3, user: [1], neverStarted: 1, seed: 1 },
  },
  {
    name: 'ARM64, crashed, its kernel in a block of 2 MiB',
    guest: { processors: 2, crash: CRASH, kernelPages: '2m', seed: 2 },
  },
  {
    name: 'ARM64, 8 processors, no architecture state, a PRCB without its pointer',
    guest: { processors: 8, archState: false, withoutContext: [3], user: [5], seed: 3 },
  },
  {
    name: 'ARM64, both processors in user mode, no architecture state, dump of active memory',
    guest: { processors: 2, archState: false, user: [0, 1], seed: 4 },
    type: 'active',
    pageDatabase: true,
  },
  {
    name: 'ARM64, kdump of QEMU, bitmap dump',
    guest: { processors: 2, crash: CRASH, seed: 5 },
    format: 'kdump-zlib',
    type: 'bitmap',
  },
  {
    name: 'ARM64, a CPU without SVE, kernel dump',
    guest: { processors: 2, seed: 6 },
    format: 'without SVE',
    type: 'kernel',
  },
  {
    name: 'ARM64, memory saved by pmemsave',
    guest: { processors: 1, crash: { ...CRASH, processor: 0 }, seed: 7 },
    format: 'pmemsave',
  },
  {
    name: 'ARM64, crashed, migration stream',
    guest: { processors: 3, user: [2], crash: CRASH, seed: 9 },
    format: 'migrate',
  },
  { name: 'ARM64, crashed, triage dump', guest: { processors: 2, crash: CRASH, seed: 8 }, type: 'triage' },
];

export interface Arm64Result extends Effort {
  problems: string[];
  /** What was compared. */
  checks: number;
}

const vector = (value: Buffer) => BigInt(`0x${Buffer.from(value).reverse().toString('hex')}`);

/** A processor's registers by the debugger's names, as the guest has them. */
function expected({ cpus, truth: { captured, processors } }: Arm64Guest, number: number): Record<string, bigint> {
  const { x, sp, pc, pstate, v, fpcr, fpsr } = cpus[processors[number]!.cpu]!;
  if (captured?.processor === number) return { pc: captured.pc, sp: captured.sp, x0: captured.x0 };
  return {
    ...Object.fromEntries(x.slice(0, 29).map((value, i) => [`x${i}`, value])),
    ...{ fp: x[29]!, lr: x[30]!, sp, pc, cpsr: pstate, fpcr: BigInt(fpcr), fpsr: BigInt(fpsr) },
    ...Object.fromEntries(v.map((value, i) => [`q${i}`, vector(value)])),
  };
}

async function writeInput({ format }: Arm64Case, guest: Arm64Guest, path: string): Promise<void> {
  if (format === 'without SVE') writeFileSync(path, writeArm64Elf(guest, { withoutSve: true }));
  else if (format === 'pmemsave' || format === 'backend' || format === 'migrate')
    await dumpArm64WithQemu(guest, path, { raw: format });
  else await dumpArm64WithQemu(guest, path, format === undefined ? {} : { format });
}

export async function runArm64Case(c: Arm64Case): Promise<Arm64Result> {
  const dir = mkdtempSync(join(tmpdir(), 'elf2dmp-matrix-arm64-'));
  try {
    const guest = buildArm64Guest(c.guest);
    if (c.pageDatabase) addPageDatabaseArm64(guest);
    const [input, output] = [join(dir, 'vm.elf'), join(dir, 'vm.dmp')];
    await writeInput(c, guest, input);
    const report = await convert({
      ...{ input, output, force: true },
      ...(c.type && { type: c.type }),
      ...(c.type === 'triage' && { triageCpus: 'all' as const }),
    });
    const checks = new Checks();
    const losses = report.diagnostics.filter(({ severity }) => severity === 'loss').map(({ code }) => code);
    checks.same('losses', losses, c.losses ?? []);
    const verified = await verify({ dump: output, ...(c.type !== 'triage' && { against: input }) });
    checks.same('verify', verified.outcome, 'sound');
    checkHeader(checks, guest, readFileSync(output));
    await checkDebugger(checks, { c, guest, output });
    return { problems: checks.problems, checks: checks.count, ...effortOf(report) };
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

function checkHeader(checks: Checks, { truth }: Arm64Guest, dump: Buffer): void {
  checks.same('machine', dump.readUInt32LE(0x30), 0xaa64);
  checks.same('processors', dump.readUInt32LE(0x34), truth.processors.length);
  checks.same('root', dump.readBigUInt64LE(0x10), BigInt(truth.root));
  checks.same('KDBG', dump.readBigUInt64LE(0x80), truth.kdbg);
  checks.same('times', [dump.readBigUInt64LE(0xfa8), dump.readBigUInt64LE(0x1030)], [truth.systemTime, truth.upTime]);
}

async function checkDebugger(
  checks: Checks,
  { c, guest, output }: { c: Arm64Case; guest: Arm64Guest; output: string },
): Promise<void> {
  const { truth } = guest;
  // A dump of active memory has no pages on standby that a file has.
  const kept = truth.samples.filter(({ what }) => !(c.pageDatabase && /in transition/.test(what)));
  const samples = c.type === 'triage' ? [] : kept;
  // Raw memory has the captured frame and no other registers.
  const shown = truth.processors.filter(
    ({ number }) => c.format !== 'pmemsave' || number === truth.captured?.processor,
  );
  const questions: Record<string, Question<unknown>> = {
    complaints: complaints(),
    target: vertarget(),
    bug: bugCheck(),
    modules: modules(),
    ...Object.fromEntries(samples.map((s) => [s.what, virtualMemory(s.virtual, s.bytes.length)])),
    ...Object.fromEntries(shown.map((p) => [`cpu${p.number}`, registers(p.number)])),
    ...Object.fromEntries(shown.map((p) => [`k${p.number}`, text('k', p.number)])),
    ...Object.fromEntries(shown.map((p) => [`stack${p.number}`, stack(p.number)])),
  };
  const seen = (await askDebugger(output, questions)) as Record<string, unknown>;
  checks.same('complaints', seen['complaints'], []);
  const target = seen['target'] as { build: number; processors: number; kernelBase: bigint };
  checks.same('build', target.build, 22000);
  checks.same('processors in the debugger', target.processors, truth.processors.length);
  checks.same('kernel', target.kernelBase, truth.kernelBase);
  checks.same('bug check', seen['bug'], truth.bugCheck ?? { code: 0x161, parameters: [0n, 0n, 0n, 0n] });
  const list = seen['modules'] as { base: bigint; size: number }[];
  checks.same(
    'modules',
    list.map(({ base, size }) => [base, size]),
    truth.modules.map(({ base, size }) => [base, size]),
  );
  for (const { what, bytes } of samples) {
    checks.same(what, (seen[what] as Buffer).toString('hex'), bytes.toString('hex'));
  }
  const ours = (await stacks({ input: output })).stacks;
  for (const { number, returns } of shown) {
    const there = seen[`cpu${number}`] as Record<string, bigint>;
    for (const [name, value] of Object.entries(expected(guest, number))) {
      checks.same(`${name} of processor ${number}`, there[name], value);
    }
    if (c.guest.user?.includes(number)) continue;
    const theirs = seen[`stack${number}`] as { stack: bigint; return: bigint }[];
    // A captured frame begins one call higher.
    const calls = [...returns.slice(truth.captured?.processor === number ? 1 : 0), 0n];
    checks.same(
      `calls of processor ${number}`,
      theirs.map((f) => f.return),
      calls,
    );
    const frames = ours.find(({ processor }) => processor === number)?.frames ?? [];
    checks.same(
      `our stack of processor ${number}`,
      frames.map((f) => [f.stackPointer, f.returnAddress]),
      theirs.map((f) => [hex(f.stack), hex(f.return)]),
    );
  }
}

const hex = (value: bigint) => `0x${value.toString(16).padStart(16, '0')}`;
