/** Text for people. Everything from a guest goes through `printable`. */

import { type Diagnostic, type Elf2dmpError, printable } from '../../core/errors.ts';
import { bytes } from '../../core/units.ts';
import type { PageCounts, PageKind } from '../../plan/select-pages.ts';
import type { Spooling } from '../../readers/input.ts';
import type { ConversionReport, UndoReport } from '../../report/conversion.ts';
import type { WindowsReport } from '../../report/windows.ts';
import { describeParameter, describeProcessor, verdictRows } from './processors.ts';
import { describeVerification } from './render-verify.ts';

/** Attempts shown with an error unless --verbose. */
const SHOWN_ATTEMPTS = 6;

/** The report of a conversion, ready to print. */
export function renderReport(report: ConversionReport, verbose: boolean): string {
  const { windows: w, dump, input } = report;
  const rows: [string, string][] = [
    [
      'Input',
      `${input.path} (${input.format}, ${bytes(input.memoryBytes)} in ${plural(input.runCount, 'run')}, ${plural(input.cpus.length, 'CPU')})`,
    ],
    [
      'Windows',
      [`build ${w.build}`, w.buildLab, w.checked ? 'checked' : undefined, w.productType].filter(Boolean).join(', '),
    ],
    ['Kernel', `${w.kernel.base}, ${bytes(w.kernel.size)}${w.kernel.pdb ? `, ${w.kernel.pdb.symbolPath}` : ''}`],
    ['Page tables', pageTables(w)],
    ['KDBG', kdbg(report)],
    ['Modules', `${w.moduleCount}`],
    ['Time', `${w.systemTime ?? 'unknown'}, up ${w.uptimeSeconds === null ? 'unknown' : uptime(w.uptimeSeconds)}`],
    ['Bug check', bugCheck(w.bugCheck, dump.bugCheckCode)],
    ...(w.bugCheck?.parameters ?? []).flatMap((p, i): [string, string][] => {
      const text = describeParameter(p);
      return text === '' ? [] : [[`  parameter ${i + 1}`, `${p.value}  ${text}`]];
    }),
    ...verdictRows(w),
    ...w.processors.map((p): [string, string] => [`Processor ${p.number}`, describeProcessor(p)]),
    [
      'Dump',
      `${dump.path} (${dump.type}, ${bytes(dump.bytes)}, ${plural(dump.runCount, 'run')}, ${plural(dump.patches.length, 'patch', 'patches')}${dump.sharesInput ? ", shares the input's blocks" : ''}${dump.compression ? `, ${dump.compression.format}: ${bytes(dump.compression.bytes)}` : ''}) in ${report.seconds} s`,
    ],
  ];
  rows.push(
    ...dump.repairs.map((r): [string, string] => ['Repaired', `${r.what}: ${r.before} → ${r.after} (${r.evidence})`]),
  );
  if (dump.undoJournal) {
    rows.push(['Undo', `elf2dmp --undo ${dump.path} (restores the ELF file from ${dump.undoJournal})`]);
  }
  if (dump.selection) {
    const { kept, leftOut, statesFrom, roots, processes } = dump.selection;
    rows.push(
      ['Kept', pageCounts(kept)],
      ['Left out', pageCounts(leftOut)],
      [
        'Sorted by',
        `page tables of ${plural(roots, 'root')} (${plural(processes, 'process', 'processes')})${statesFrom === 'page frame database' ? ' and the page frame database' : ''}`,
      ],
    );
  }
  if (dump.zeroPagesDropped > 0) rows.push(['Dropped', `${plural(dump.zeroPagesDropped, 'page')} of zeros`]);
  let text = rows.map(([name, value]) => `${`${name}:`.padEnd(14)} ${printable(value)}\n`).join('');
  if (report.verification) text += describeVerification(report.verification, false);
  if (report.sha256)
    text += `SHA-256:       input  ${report.sha256.input ?? 'unknown: it can be read only once'}\n               dump   ${report.sha256.dump}\n`;
  if (verbose) {
    text += 'Evidence:\n';
    for (const a of report.evidence)
      text += `  ${a.accepted ? '+' : '-'} ${printable(`${a.step}: ${a.method}: ${a.detail}`)}\n`;
    text += 'Patches:\n';
    for (const p of dump.patches)
      text += `  ${p.virtual} (physical ${p.physical}) ${p.length} bytes: ${printable(p.what)}\n`;
  }
  return text;
}

const PAGE_KINDS: Record<PageKind, string> = {
  kernelPageTables: 'kernel page tables',
  userPageTables: 'user page tables',
  kernel: 'kernel',
  kernelInTransition: 'kernel in transition',
  user: 'user',
  userInTransition: 'user in transition',
  otherInUse: 'other pages in use',
  modified: 'modified',
  standby: 'standby',
  free: 'free',
  zeroed: 'zeroed',
  bad: 'bad',
  unknown: 'not mapped',
  notRam: 'not RAM',
};

function pageCounts(counts: PageCounts): string {
  const parts = Object.entries(PAGE_KINDS).flatMap(([kind, name]) => {
    const count = counts[kind as PageKind];
    return count ? [`${name} ${count}`] : [];
  });
  return parts.length > 0 ? `${parts.join(', ')} (pages)` : 'nothing';
}

/** What a dump of a running system says by itself; a crash dump that is converted may say something else. */
const LIVE = '0x161';

/** In place of a name: nothing at all would look like a fault of the dump. */
export const UNKNOWN_BUG_CHECK = "(not in elf2dmp's list)";

function kdbg({ windows, dump }: ConversionReport): string {
  const { address, encoded } = windows.kdbg;
  if (!encoded) return address;
  const isDecoded = dump.patches.some(({ what }) => what === 'KDBG');
  return `${address}, encoded${isDecoded ? '; decoded in the dump' : ''}`;
}

function bugCheck(check: ConversionReport['windows']['bugCheck'], inDump: string): string {
  if (!check)
    return `none: the guest was running (the dump says ${inDump}${inDump === LIVE ? ', LIVE_SYSTEM_DUMP' : ''})`;
  const where = check.processor === null ? 'on an unknown processor' : `on processor ${check.processor}`;
  return `${check.code} ${check.name ?? UNKNOWN_BUG_CHECK} (${check.parameters.map(({ value }) => value).join(', ')}) ${where}`;
}

/** The root, and the one for debuggers where that is another. */
export const pageTables = (w: WindowsReport): string =>
  `${w.directoryTableBase}, ${w.pagingMode}${w.headerDirectoryTableBase ? `; the dump's header names ${w.headerDirectoryTableBase}` : ''}`;

/** `1 page`, `2 pages`. */
export const plural = (count: number, one: string, many = `${one}s`): string => `${count} ${count === 1 ? one : many}`;

/** `3 days 04:05:06` */
export function uptime(seconds: number): string {
  const s = Math.floor(seconds);
  const two = (n: number) => String(n).padStart(2, '0');
  const days = Math.floor(s / 86_400);
  return `${days > 0 ? `${plural(days, 'day')} ` : ''}${two(Math.floor(s / 3600) % 24)}:${two(Math.floor(s / 60) % 60)}:${two(s % 60)}`;
}

/** What `--undo` did, ready to print. */
export const renderUndo = ({ path, bytes: size, patchesUndone }: UndoReport): string =>
  printable(
    `${path} is the ELF file again (${bytes(size)}, ${plural(patchesUndone, 'patch', 'patches')} undone)`,
  ).concat('\n');

const renderDiagnostic = (d: Diagnostic): string => `${d.severity}: ${printable(d.message)}\n`;

/** The disk space that a stream or a compressed input will take; with `for: 'conversion'` also its dump's. */
export function renderSpooling(
  { name, container, directory, free, estimate }: Spooling,
  { for: purpose = 'reading' }: { for?: 'reading' | 'conversion' } = {},
): string {
  const file = estimate?.file === undefined ? 'its size is unknown until its end' : bytes(estimate.file);
  const dump =
    purpose === 'conversion' &&
    estimate &&
    `; the dump then takes ${estimate.file === undefined ? 'at most ' : ''}${bytes(estimate.memory)}`;
  const how = container === undefined ? 'written' : `decompressed (${container})`;
  return `${printable(`${name}: ${how} to a temporary file in ${directory} first: ${file}${dump || ''}; ${bytes(free)} are free there`)}\n`;
}

/** Prints diagnostics on stderr: `quiet` only losses, `verbose` also notes. */
export function writeDiagnostics(
  diagnostics: readonly Diagnostic[],
  { quiet, verbose }: { quiet: boolean; verbose: boolean },
): void {
  for (const d of diagnostics) {
    if (d.severity === 'loss' || (d.severity === 'warning' && !quiet) || verbose)
      process.stderr.write(renderDiagnostic(d));
  }
}

/** An error with its hint and the attempts that failed, ready to print. */
export function renderError(error: Elf2dmpError, verbose: boolean): string {
  const { hint, attempts = [] } = error.details;
  let text = `elf2dmp: ${printable(error.message)}\n`;
  const shown = verbose ? attempts : attempts.slice(0, SHOWN_ATTEMPTS);
  for (const attempt of shown) text += `  - ${printable(attempt)}\n`;
  if (attempts.length > shown.length) text += `  - … ${attempts.length - shown.length} more with --verbose\n`;
  if (hint) text += `  hint: ${printable(hint)}\n`;
  return text;
}
