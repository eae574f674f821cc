/** The text that `elf2dmp info` prints. Everything from a guest goes through `printable`. */

import { byKey } from '../../core/by-key.ts';
import { printable } from '../../core/errors.ts';
import { bytes, hex } from '../../core/units.ts';
import type { CpuReport, InfoReport } from '../../report/input.ts';
import type { InterruptsReport } from '../../report/interrupts.ts';
import type { BugCheckReport, PdbReport, ProcessReport, WindowsInfo } from '../../report/windows.ts';
import {
  describeHost,
  describeParameter,
  describePlace,
  describeProcessor,
  faultRows,
  readingRows,
  verdictRows,
} from './processors.ts';
import { pageTables, plural, UNKNOWN_BUG_CHECK, uptime } from './render.ts';

/** Runs listed one by one. */
const SHOWN_RUNS = 64;

/** The report of `elf2dmp info`, ready to print. */
export function renderInfo({ input, windows, problem }: InfoReport): string {
  const lines = [
    row('File', `${input.path} (${input.format}, ${input.machine})`),
    row(
      'Memory',
      input.blocks
        ? `${bytes(input.memoryBytes)} in ${plural(input.blocks.count, 'data block')}, and no physical memory`
        : `${bytes(input.memoryBytes)} in ${plural(input.runCount, 'run')}`,
    ),
    ...input.runs.slice(0, SHOWN_RUNS).map(({ start, size }) => range(Number(start), size)),
    ...(input.runCount > SHOWN_RUNS ? [`  … ${input.runCount - SHOWN_RUNS} more with --json`] : []),
  ];
  const { host, dumpHeader: header } = input;
  const told = host && describeHost(host);
  if (told) lines.push(row('Hypervisor', told));
  if (header) {
    lines.push(
      row('Dump header', `type ${header.dumpType}, build ${header.build}, ${plural(header.processors, 'processor')}`),
      ...bugCheck('  bug check', header.bugCheck),
      ...(header.comment ? [`  comment: ${printable(header.comment)}`] : []),
    );
  }
  if (windows) lines.push(...renderWindows(windows, input.cpus));
  else {
    lines.push(
      ...input.cpus.map((cpu) =>
        row(
          `CPU ${cpu.index}`,
          cpu.instructionPointer
            ? `${cpu.mode}, at ${cpu.instructionPointer}, page tables ${cpu.pageTableRoot ?? 'unknown'}`
            : 'its state is unknown',
        ),
      ),
      row('Windows', problem ? `not found: ${problem.message}` : 'not found'),
      ...(problem?.hint ? [`  hint: ${printable(problem.hint)}`] : []),
    );
  }
  return lines.map((line) => `${line}\n`).join('');
}

const row = (name: string, value: string): string => `${`${name}:`.padEnd(14)} ${printable(value)}`;
const range = (start: number, size: number): string =>
  `  ${hex(start).padStart(14)} - ${hex(start + size).padStart(14)}  ${bytes(size)}`;

function renderWindows(w: WindowsInfo, cpus: readonly CpuReport[]): string[] {
  const edition = [
    w.name ?? 'Windows',
    `build ${w.build}`,
    w.buildLab,
    w.checked ? 'checked' : undefined,
    w.productType,
    ...w.suites,
  ];
  const activities = byKey(w.activity?.processors, ({ processor }) => processor);
  const byIndex = byKey(cpus, ({ index }) => index);
  return [
    row('Windows', edition.filter(Boolean).join(', ')),
    row('System root', w.systemRoot),
    row('Time', `${w.systemTime ?? 'unknown'}, up ${w.uptimeSeconds === null ? 'unknown' : uptime(w.uptimeSeconds)}`),
    ...(w.bugCheck
      ? [
          ...bugCheck('Bug check', w.bugCheck),
          `  on ${w.bugCheck.processor === null ? 'an unknown processor' : `processor ${w.bugCheck.processor}`}`,
        ]
      : [row('Bug check', 'none: the guest was running')]),
    ...[...faultRows(w.fault), ...verdictRows(w), ...readingRows(w.activity)].map(([name, value]) => row(name, value)),
    row('Page tables', pageTables(w)),
    row('Kernel', `${w.kernel.base}, ${bytes(w.kernel.size)}${pdb(w.kernel.pdb)}`),
    row('KDBG', `${w.kdbg.address}, ${hex(w.kdbg.size)} bytes, ${w.kdbg.encoded ? 'encoded' : 'not encoded'}`),
    ...(w.ram
      ? [
          row("Windows' RAM", bytes(w.ram.reduce((sum, r) => sum + r.size, 0))),
          ...w.ram.slice(0, SHOWN_RUNS).map(({ start, size }) => range(Number(start), size)),
        ]
      : []),
    ...w.processors.flatMap((p) => {
      const does = activities.get(p.number);
      return [
        row(`Processor ${p.number}`, describeProcessor(p)),
        ...(does && p.instructionPointer !== null ? [`  ${printable(does.reading)}`] : []),
        ...moreRegisters(p.cpu === null ? undefined : byIndex.get(p.cpu)),
      ];
    }),
    ...interrupts(w.interrupts),
    row('Modules', `${w.modules.length}`),
    ...w.modules.map(
      (m) =>
        `  ${m.base} ${bytes(m.size).padStart(9)}  ${printable(m.name)}${m.fileVersion ? ` ${m.fileVersion}` : ''}${m.timeDateStamp ? `, stamp ${m.timeDateStamp}` : ''}${printable(pdb(m.pdb))}`,
    ),
    row('Unloaded', `${w.unloadedModules.length}`),
    ...w.unloadedModules.map((m) => `  ${m.from} - ${m.to}  ${printable(m.name)}${m.time ? `, ${m.time}` : ''}`),
    row('Processes', `${w.processes.length}`),
    ...w.processes.map(
      (p) =>
        `  ${`${p.pid ?? '?'}`.padStart(6)}  ${printable(p.name ?? '(name not determined)').padEnd(15)} ${p.address ?? '(address not determined)'}${root(p)}${p.parentPid === null ? '' : `, parent ${p.parentPid}`}${p.peb ? `, PEB ${p.peb}` : ''}`,
    ),
    ...w.doubts.map((doubt) => row('Not determined', doubt)),
  ];
}

/** In one line where all is usual; else what is not, of each processor. */
function interrupts(tables: readonly InterruptsReport[]): string[] {
  if (tables.length === 0) return [];
  const gates = tables.reduce((sum, table) => sum + table.gates, 0);
  const elsewhere = tables.reduce((sum, table) => sum + table.elsewhere.length, 0);
  const says = elsewhere === 0 ? "all into the kernel's image" : `${elsewhere} not into the kernel's image`;
  return [
    row('Interrupts', `${gates} gates of ${plural(tables.length, 'processor')}, ${says}`),
    ...tables.flatMap(({ processor, elsewhere: others }) =>
      others.map(
        ({ vector, handler, place }) =>
          `  processor ${processor}, vector ${hex(vector)}: ${handler}  ${printable(place ? describePlace(place) : 'in no module')}`,
      ),
    ),
  ];
}

/** Registers that only some inputs have, in two lines; those that are 0 are left out. */
function moreRegisters(cpu: CpuReport | undefined): string[] {
  const { mxcsr, ...all } = cpu?.registers ?? {};
  if (mxcsr === undefined) return [];
  const lineOf = (names: RegExp, more: Record<string, string> = {}) => {
    const shown = Object.entries({ ...more, ...all }).filter(([name, value]) => names.test(name) && value !== '0x0');
    return shown.length > 0 ? [`  ${shown.map(([name, value]) => `${name} ${value}`).join(', ')}`] : [];
  };
  return [...lineOf(/^(dr\d|cr8|xcr0|l?star|cstar|fmask)$/), ...lineOf(/^(mxcsr|fp[cst]w|st\d|xmm\d+)$/, { mxcsr })];
}

function root({ directoryTableBase, pageTables }: ProcessReport): string {
  if (pageTables === 'gone') return ', no page tables (swapped out or exited)';
  if (pageTables === 'missing') return ', page tables not in the input';
  return directoryTableBase ? `, root ${directoryTableBase}` : '';
}

const pdb = (p: PdbReport | null): string => (p ? `, ${p.symbolPath}` : '');

function bugCheck(label: string, check: BugCheckReport): string[] {
  const what = `${check.code} ${check.name ?? UNKNOWN_BUG_CHECK}`;
  return [
    label.startsWith(' ') ? `${label}: ${what}` : row(label, what),
    ...check.parameters.map((p, i) => printable(`  parameter ${i + 1}: ${p.value}  ${describeParameter(p)}`.trimEnd())),
  ];
}
