/** Runs one case of the matrix: guest → ELF → elf2dmp → the real debugger, and says what differs from what went in. */
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import {
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text as readAll } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { inspect } from '../../src/operations/inspect.ts';
import {
  askDebugger,
  attempt,
  bugCheck,
  complaints,
  dumpDebug,
  instruction,
  modules,
  type Question,
  registers,
  stack,
  system,
  text,
  virtualMemory,
} from '../debugger/debugger.ts';
import { writeElf } from '../guest/elf.ts';
import { GPRS, type Guest, type GuestCpu } from '../guest/guest.ts';
import { flatten, kdumpOf } from '../guest/kdump.ts';
import { loadCompressors } from '../support/compressors.ts';
import { dumpWithQemu } from '../support/qemu.ts';
import { guestOf, type MatrixCase } from './cases.ts';
import { Checks, type Effort, effortOf } from './checks.ts';

export interface CaseResult extends Effort {
  case: MatrixCase;
  /** Every difference between what went in and what came out. */
  problems: string[];
  /** What was compared. */
  checks: number;
}

const BIN = fileURLToPath(new URL('../../bin/elf2dmp.js', import.meta.url));

/** Writes the guest's ELF file, by a real QEMU unless the case is one that QEMU can't make. */
export async function writeInput(c: MatrixCase, guest: Guest, path: string): Promise<void> {
  if (c.elf) {
    writeFileSync(path, writeElf(guest, c.elf));
    return;
  }
  if (c.format === 'kdump-raw-zlib' || c.format === 'kdump-lzo' || c.format === 'kdump-snappy') {
    const compressors = loadCompressors();
    const [flags, compress] = {
      'kdump-raw-zlib': [1, undefined] as const,
      'kdump-lzo': [2, compressors?.lzo] as const,
      'kdump-snappy': [4, compressors?.snappy] as const,
    }[c.format];
    if (flags !== 1 && !compress) throw new Error(`${c.format} needs liblzo2 and libsnappy`);
    const made = kdumpOf(guest, { flags, ...(compress ? { compress } : {}) });
    writeFileSync(path, c.format === 'kdump-raw-zlib' ? made.file : flatten(made));
    return;
  }
  await dumpWithQemu(guest, path, {
    ...(c.format === 'pmemsave' || c.format === 'backend' || c.format === 'migrate'
      ? { raw: c.format }
      : c.format && { format: c.format }),
    ...(c.paging ? { paging: true } : {}),
    ...(c.machineType ? { machineType: c.machineType } : {}),
  });
}

/** Writes the input and gives it to elf2dmp in the case's way. */
async function convertIt(
  c: MatrixCase,
  guest: Guest,
  input: string,
  output: string,
): Promise<{ status: number | null; stdout: string; stderr: string }> {
  const args = [BIN, '--json', ...(c.args ?? [])];
  if (c.via === 'fifo') {
    execFileSync('mkfifo', [input]);
    const child = spawn(process.execPath, [...args, input, output], { stdio: ['ignore', 'pipe', 'pipe'] });
    const texts = Promise.all([readAll(child.stdout), readAll(child.stderr)]);
    const status = new Promise<number | null>((resolve) => child.on('close', resolve));
    try {
      await writeInput(c, guest, input);
    } catch (error) {
      child.kill();
      throw error;
    }
    const [stdout, stderr] = await texts;
    return { status: await status, stdout, stderr };
  }
  await writeInput(c, guest, input);
  if (c.through) {
    const dump = `${input}.dmp`;
    const first = spawnSync(process.execPath, [BIN, '-q', '--type', c.through, input, dump], { encoding: 'utf8' });
    if (first.status !== 0) return first;
    return spawnSync(process.execPath, [...args, dump, output], { encoding: 'utf8' });
  }
  if (c.via === 'stdin') {
    const piped = spawnSync('zstd', ['-qc', input], { maxBuffer: 2 ** 30 }).stdout;
    return spawnSync(process.execPath, [...args, '-', output], { encoding: 'utf8', input: piped });
  }
  const packed = c.via ? `${input}.packed` : input;
  if (c.via) writeFileSync(packed, execFileSync(c.via, ['-c', input], { maxBuffer: 2 ** 30 }));
  return spawnSync(process.execPath, [...args, packed, output], { encoding: 'utf8' });
}

export async function runCase(c: MatrixCase): Promise<CaseResult> {
  const dir = mkdtempSync(join(tmpdir(), 'elf2dmp-matrix-'));
  try {
    const guest = guestOf(c);
    c.change?.(guest);
    const [input, output] = [join(dir, 'vm.elf'), join(dir, 'out.dmp')];
    const checks = new Checks();
    const run = await convertIt(c, guest, input, output);
    checks.same('exit code', run.status, c.exitCode ?? 0);
    if (c.guest.firstIn32Bit) checks.same('e_machine', readFileSync(input).readUInt16LE(0x12), 3);
    const result = (extra: Partial<CaseResult>): CaseResult => ({
      case: c,
      problems: checks.problems,
      checks: checks.count,
      locateMilliseconds: 0,
      bytesRead: 0,
      inputBytes: 0,
      ...extra,
    });
    if (run.status !== 0 && run.status !== 3) {
      if (run.status !== c.exitCode) checks.problems.push(run.stderr);
      checks.same('output', existsSync(output), false);
      return result({});
    }
    const report = JSON.parse(run.stdout);
    checkReport(checks, c, guest, report);
    await checkInDebugger(checks, c, guest, output);
    checkHeaderBytes(checks, output);
    return result(effortOf(report));
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

// biome-ignore lint/suspicious/noExplicitAny: the report is read as a stranger would, from its JSON.
function checkReport(checks: Checks, c: MatrixCase, guest: Guest, report: any): void {
  const { truth } = guest;
  const losses = report.diagnostics.filter((d: { severity: string }) => d.severity === 'loss');
  checks.same('losses', [...new Set(losses.map((d: { code: string }) => d.code))].sort(), [...(c.losses ?? [])].sort());
  checks.same('dump type', report.dump.type, c.dumpType ?? 'full');
  checks.same('kernel base', report.windows.kernel.base, `0x${truth.kernelBase.toString(16)}`);
  checks.same('KDBG', report.windows.kdbg, {
    address: `0x${truth.kdbg.toString(16)}`,
    size: truth.kdbgBlock.length,
    encoded: truth.kdbgEncoded && !c.through,
  });
  checks.same(
    'CPUs of processors',
    report.windows.processors.map((p: { cpu: number | null }) => p.cpu),
    // A crash dump has registers of processors, not of CPUs.
    truth.processors.map((p) => (c.through || c.unknown?.includes(p.number) ? null : p.cpu)),
  );
  if (guest.options.crash) {
    checks.same('crashing processor', report.windows.bugCheck.processor, guest.options.crash.processor);
    checks.same('told by', report.windows.bugCheck.processorFrom, c.crashFrom);
  } else {
    checks.same('bug check', report.windows.bugCheck, null);
  }
}

async function checkInDebugger(checks: Checks, c: MatrixCase, guest: Guest, dump: string): Promise<void> {
  const { truth } = guest;
  const known = truth.processors.filter((p) => !c.unknown?.includes(p.number) && !c.unshown?.includes(p.number));
  const questions: Record<string, Question<unknown>> = {
    complaints: complaints(),
    opensOn: text('r rip'),
    system: system(),
    header: dumpDebug(),
    bugCheck: bugCheck(),
    modules: modules(),
    exports: text('x nt!PoIdle'),
  };
  for (const p of known) {
    questions[`registers${p.number}`] = registers(p.number);
    questions[`instruction${p.number}`] = instruction(p.number);
    questions[`stack${p.number}`] = stack(p.number);
  }
  for (const number of c.unknown ?? []) questions[`unknown${number}`] = attempt('r rip', number);
  truth.samples.forEach((s, i) => {
    questions[`sample${i}`] = virtualMemory(s.virtual, s.bytes.length);
  });
  questions['kdbg'] = virtualMemory(truth.kdbg, truth.kdbgBlock.length);
  // biome-ignore lint/suspicious/noExplicitAny: answers by names made above.
  const seen = (await askDebugger(dump, questions)) as any;

  const complained = seen.complaints.filter((line: string) => !c.complaints?.some((known) => known.test(line)));
  checks.same("the debugger's complaints", complained, []);
  checks.same('build', seen.system.build, guest.build.build);
  checks.same('processors', seen.system.processors, truth.processors.length);
  checks.same('machine', seen.system.effectiveProcessorType, 0x8664);
  checks.same(
    'dump kind',
    /Kernel (\w+) Dump/.exec(seen.header.title)?.[1],
    c.dumpType === 'bitmap' ? 'Bitmap' : 'Full',
  );
  checks.same(
    'time',
    seen.system.time,
    Math.floor(Number((truth.systemTime - 116_444_736_000_000_000n) / 10_000_000n)),
  );
  checks.same('uptime', seen.system.uptimeSeconds, Math.floor(Number(truth.upTime / 10_000_000n)));
  const { header } = seen.header;
  if (!c.fiveLevel && guest.options.kernelRootAt === undefined && !guest.options.user) {
    checks.same('DTB', header.DirectoryTableBase, BigInt(truth.root));
  }
  checks.same('PfnDataBase', header.PfnDataBase, truth.pfnDatabaseVariable);
  checks.same('PsLoadedModuleList', header.PsLoadedModuleList, truth.psLoadedModuleList);
  checks.same('PsActiveProcessHead', header.PsActiveProcessHead, truth.psActiveProcessHead);
  checks.same('KdDebuggerDataBlock', header.KdDebuggerDataBlock, truth.kdbg);
  checks.same('ProductType', header.ProductType, BigInt(truth.productType));
  checks.same('SuiteMask', header.SuiteMask, BigInt(truth.suiteMask));
  checks.same(
    'PRCBs',
    seen.header.prcbs,
    truth.processors.map((p) => p.prcb),
  );
  checks.same('bug check', seen.bugCheck, truth.bugCheck ?? { code: 0x161, parameters: [0n, 0n, 0n, 0n] });
  // In the order of their addresses, as the debugger lists them. Behind a broken list it shows what it stumbles over.
  const expected = truth.modules.filter((m) => !c.modules || c.modules.includes(m.name));
  const listed = (seen.modules as { base: bigint; size: number }[]).filter(
    (m) => !c.modules || expected.some((e) => e.base === m.base),
  );
  // Sizes come from the images' headers, which are not in the address space that the debugger opens in.
  const hidden = new Set(truth.modules.filter((m) => c.headless || m.session).map((m) => m.base));
  const sized = (m: { base: bigint; size: number }) => [m.base, hidden.has(m.base) || c.headless ? 0 : m.size];
  checks.same('modules', listed.map(sized), [...expected].sort((x, y) => Number(x.base - y.base)).map(sized));
  const kernel = seen.modules.find((m: { base: bigint }) => m.base === truth.kernelBase);
  if (!c.headless) checks.same('kernel name', [kernel?.name, kernel?.image], ['nt', 'ntkrnlmp.exe']);
  const opensOn = c.opensOn ?? known[0]?.number;
  for (const p of known) {
    const cpu = guest.cpus[p.cpu]!;
    const captured = c.captured?.includes(p.number) ? truth.captured : undefined;
    checkRegisters(checks, c, `processor ${p.number}`, seen[`registers${p.number}`], cpu, captured);
    const rip = captured?.rip ?? cpu.regs.rip;
    checks.same(`instruction of processor ${p.number} at`, seen[`instruction${p.number}`].address, rip);
    checks.same(
      `instruction of processor ${p.number} is known`,
      seen[`instruction${p.number}`].bytes.includes('?'),
      false,
    );
    const frames = seen[`stack${p.number}`] as { instruction: bigint }[];
    const expected = captured ? [captured.rip, ...p.returns.slice(1)] : [cpu.regs.rip, ...p.returns];
    // Without the kernel's header there is no unwind data.
    const comparable = c.headless ? 1 : expected.length;
    checks.same(
      `stack of processor ${p.number}`,
      frames.slice(0, comparable).map((f) => f.instruction),
      expected.slice(0, comparable),
    );
    if (p.number === opensOn) {
      checks.same('the debugger opens on', BigInt(`0x${/rip=([0-9a-f]+)/.exec(seen.opensOn)?.[1] ?? '0'}`), rip);
    }
  }
  truth.samples.forEach((s, i) => {
    checks.same(`memory at 0x${s.virtual.toString(16)}`, seen[`sample${i}`], s.bytes);
  });
  checks.same('KDBG in memory', seen.kdbg, truth.kdbgBlock);
  await checkInfo(checks, c, dump, seen);
}

/** What `info` says of the dump is what the debugger shows of it. */
// biome-ignore lint/suspicious/noExplicitAny: answers by the names of their questions.
async function checkInfo(checks: Checks, c: MatrixCase, dump: string, seen: any): Promise<void> {
  const { windows, input, problem } = await inspect({ input: dump });
  if (!windows) {
    checks.problems.push(`info of the dump: ${problem?.message}`);
    return;
  }
  const header = input.dumpHeader!;
  checks.same(
    'info: bug check',
    [Number(header.bugCheck.code), ...header.bugCheck.parameters.map((p) => BigInt(p.value))],
    [seen.bugCheck.code, ...seen.bugCheck.parameters],
  );
  checks.same(
    'info: build, processors',
    [windows.build, header.processors],
    [seen.system.build, seen.system.processors],
  );
  checks.same(
    'info: time, uptime',
    [Math.floor(Date.parse(windows.systemTime ?? '') / 1000), Math.floor(windows.uptimeSeconds ?? 0)],
    [seen.system.time, seen.system.uptimeSeconds],
  );
  // Debuggers walk four levels of page tables, and CPUs perhaps five.
  const root = windows.headerDirectoryTableBase ?? windows.directoryTableBase;
  checks.same('info: DTB, KDBG', [root, windows.kdbg.address].map(BigInt), [
    seen.header.header.DirectoryTableBase,
    seen.header.header.KdDebuggerDataBlock,
  ]);
  const listed = seen.modules as { base: bigint; size: number; timestamp: number }[];
  for (const m of c.headless ? [] : windows.modules.filter((m) => m.timeDateStamp !== null)) {
    const module = listed.find((other) => other.base === BigInt(m.base));
    // The engine opens in an address space that does not map session space: it has no headers of what lies there.
    if (SESSION_DRIVER.test(m.name)) continue;
    checks.same(`info: ${m.name}`, [m.size, Number(m.timeDateStamp)], [module?.size, module?.timestamp]);
  }
  for (const p of windows.processors) {
    const registers = seen[`registers${p.number}`] as Record<string, bigint> | undefined;
    if (!registers) {
      checks.same(`info: registers of processor ${p.number}`, p.registers, 'unknown');
      continue;
    }
    checks.same(
      `info: registers of processor ${p.number}`,
      // Control registers that nobody knows are zeros in a dump.
      [p.instructionPointer, p.stackPointer, p.pageTableRoot ?? '0'].map((value) => value && BigInt(value)),
      [registers['rip'], registers['rsp'], registers['cr3']! & ~0xfffn],
    );
  }
}

const SESSION_DRIVER = /^(win32k.*|cdd)\.(sys|dll)$/;

function checkRegisters(
  checks: Checks,
  c: MatrixCase,
  who: string,
  seen: Record<string, bigint>,
  cpu: GuestCpu,
  captured: Guest['truth']['captured'],
): void {
  if (captured) {
    checks.same(
      `${who}: captured registers`,
      [seen['rip'], seen['rsp'], seen['rax']],
      [captured.rip, captured.rsp, captured.rax],
    );
  } else {
    for (const name of GPRS) if (name !== 'rflags') checks.same(`${who}: ${name}`, seen[name], cpu.regs[name]);
    checks.same(`${who}: rflags`, seen['efl'], cpu.regs.rflags & 0xffffffffn);
    checks.same(`${who}: cs, ss`, [seen['cs'], seen['ss']], [BigInt(cpu.cs), BigInt(cpu.ss)]);
  }
  const control = c.elf?.prstatusOnly === null ? [0n, 0n, 0n] : [cpu.cr0, cpu.cr3, cpu.cr4];
  checks.same(`${who}: cr0, cr3, cr4`, [seen['cr0'], seen['cr3'], seen['cr4']], control);
  checks.same(
    `${who}: gdtr, idtr, tr`,
    [seen['gdtr'], seen['gdtl'], seen['idtr'], seen['idtl'], seen['tr']],
    [
      cpu.gdt.base,
      BigInt(cpu.gdt.limit),
      cpu.idt.base,
      BigInt(cpu.idt.limit),
      c.elf?.prstatusOnly === null ? 0n : BigInt(cpu.tr),
    ],
  );
}

/** What no debugger prints. */
function checkHeaderBytes(checks: Checks, path: string): void {
  const header = Buffer.alloc(0x2000);
  const fd = openSync(path, 'r');
  readSync(fd, header, 0, header.length, 0);
  closeSync(fd);
  checks.same('RequiredDumpSpace', header.readBigUInt64LE(0xfa0), BigInt(statSync(path).size));
  checks.same('header context: MxCsr twice', header.readUInt32LE(0x348 + 0x34), header.readUInt32LE(0x348 + 0x118));
}
