/** One dump as a self-contained HTML page, for any screen or paper. */

import { bytes, hex } from '../../core/units.ts';
import { CELL_KINDS, type CellKind, type MemoryPicture } from '../../report/memory-picture.ts';
import type { PageData } from '../../report/page.ts';
import { PAGE_MARK } from '../../report/page-mark.ts';
import type { ProcessorReport } from '../../report/processors.ts';
import type { FrameReport, ProcessorStackReport } from '../../report/stacks.ts';
import type { CrashReport } from '../../report/windows.ts';
import { VERSION } from '../../version.ts';
import {
  describeCulprit,
  describeParameter,
  inlinedCalls,
  isNamed,
  legendOf,
  siteOf,
  WHOSE,
} from '../text/processors.ts';
import { plural, uptime } from '../text/render.ts';
import { Html, html } from './html.ts';
import { STYLE } from './style.ts';

export function renderPage(data: PageData): string {
  const { input, windows: w, conversion } = data;
  const losses = data.diagnostics.filter((d) => d.severity === 'loss');
  const warnings = data.diagnostics.filter((d) => d.severity === 'warning');
  const name = input.path.split('/').at(-1) ?? input.path;
  const body = html`
<header class="${verdictClass(data, losses.length)}">
  <p class="file">${name}</p>
  <h1>${verdict(data)}</h1>
  <p>${completeness(data, losses.length)}</p>
</header>
<main>
${w?.bugCheck && section('Bug check', bugCheck(w.bugCheck, w))}
${losses.length > 0 && section('What is missing', list(losses.map((d) => d.message)), 'losses')}
${warnings.length > 0 && section('Warnings', list(warnings.map((d) => d.message)), 'warnings')}
${section('Summary', summary(data))}
${data.stacks.length > 0 && section('Processors and their stacks', processors(data))}
${data.memory && section('Physical memory', memory(data.memory, conversion !== undefined))}
${w && section(`Modules (${w.modules.length})`, modules(w.modules))}
${w && w.unloadedModules.length > 0 && section(`Unloaded modules (${w.unloadedModules.length})`, unloaded(w.unloadedModules))}
${w && w.processes.length > 0 && section(`Processes (${w.processes.length})`, processes(w.processes))}
${conversion && conversion.dump.patches.length > 0 && section(`Changed in memory (${conversion.dump.patches.length})`, patches(conversion.dump.patches))}
${data.evidence.length > 0 && section('How it was found', evidence(data.evidence))}
</main>
<footer>elf2dmp ${VERSION}. Everything here was read from ${input.path}; nothing was looked up elsewhere.</footer>`;
  return document(name, body);
}

const MARK = new Html(PAGE_MARK);

/** The page's frame. Its policy allows no scripts, even if a guest's text broke out of the markup. */
export function document(title: string, body: Html): string {
  return html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
${MARK}
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>${title} – elf2dmp</title>
${STYLE}
</head>
<body>${body}
</body>
</html>
`.markup;
}

function verdictClass({ windows, problem }: PageData, losses: number): string {
  if (!windows || problem) return 'bad';
  if (windows.bugCheck) return 'crashed';
  return losses > 0 ? 'lossy' : 'good';
}

function verdict({ windows: w, problem }: PageData): string {
  if (!w) return `No Windows: ${problem?.message ?? 'none was found'}`;
  if (!w.bugCheck) return 'The guest was running when it was dumped';
  const { code, name, processor } = w.bugCheck;
  const where = processor === null ? '' : ` on processor ${processor}`;
  return `The guest crashed: ${name ? `${name} (${code})` : code}${where}`;
}

function completeness({ windows, conversion }: PageData, losses: number): string {
  const what = conversion ? 'The crash dump' : 'The file';
  if (!windows) return 'Nothing more is known.';
  const lacks =
    losses === 0 ? `${what} is complete: nothing was lost.` : `${what} lacks ${plural(losses, 'thing')}: see below.`;
  const selection = conversion?.dump.selection;
  if (!selection) return lacks;
  const [kept, left] = [selection.kept, selection.leftOut].map((counts) =>
    Object.values(counts).reduce((sum, pages) => sum + pages, 0),
  ) as [number, number];
  const of = conversion.dump.type === 'kernel' ? "the kernel's memory" : 'the memory in use';
  return `${lacks} By its type it holds only ${of}: ${plural(kept, 'page')}, and ${plural(left, 'page')} of the input were left out.`;
}

const section = (title: string, content: Html, kind = ''): Html =>
  html`<section class="${kind}"><h2>${title}</h2>${content}</section>\n`;

const list = (items: readonly string[]): Html => html`<ul>${items.map((item) => html`<li>${item}</li>`)}</ul>`;

export const table = (
  head: readonly string[],
  rows: readonly (readonly (Html | string | number | null)[])[],
): Html => html`
<div class="scroll"><table>
<thead><tr>${head.map((name) => html`<th scope="col">${name}</th>`)}</tr></thead>
<tbody>${rows.map((row) => html`<tr>${row.map((cell) => html`<td>${cell ?? '–'}</td>`)}</tr>\n`)}</tbody>
</table></div>`;

const code = (text: string | null): Html => html`<code>${text ?? '–'}</code>`;

function bugCheck({ code: number, name, parameters, processor }: CrashReport, { culprit, signatures }: Found): Html {
  const { symbols, rva } = signatures;
  return html`
<p><strong>${name ?? 'A bug check that elf2dmp has no name for'}</strong>, ${code(number)}${processor === null ? ', on an unknown processor' : `, on processor ${processor}`}</p>
${table(
  ['Parameter', 'Value', 'Meaning'],
  parameters.map((p, i) => [i + 1, code(p.value), describeParameter(p) || null]),
)}
${culprit && html`<p><strong>Likely culprit: ${culprit.module}</strong> (${describeCulprit(culprit)})</p>`}
<p class="note">Signature${symbols && html` by symbols: ${code(symbols.text)}, ${code(symbols.hash)};`} by RVA: ${code(rva.text)}, ${code(rva.hash)}.</p>`;
}

function summary({ input, windows: w, conversion }: PageData): Html {
  const rows: [string, Html | string][] = [
    ['Input', html`${input.path} (${input.format}, ${bytes(input.memoryBytes)} in ${plural(input.runCount, 'run')})`],
  ];
  if (w) {
    const edition = [
      w.name ?? 'Windows',
      `build ${w.build}`,
      w.buildLab,
      w.checked && 'checked',
      w.productType,
      ...w.suites,
    ];
    rows.push(
      ['Windows', edition.filter(Boolean).join(', ')],
      [
        'Dumped',
        `${w.systemTime ?? 'at an unknown time'}, up ${w.uptimeSeconds === null ? 'for an unknown time' : uptime(w.uptimeSeconds)}`,
      ],
      ['Kernel', html`${code(w.kernel.base)}, ${bytes(w.kernel.size)}`],
      ['Symbols', code(w.kernel.pdb?.symbolPath ?? null)],
      ['Page tables', html`${code(w.directoryTableBase)}, ${w.pagingMode}`],
      ['KDBG', html`${code(w.kdbg.address)}${w.kdbg.encoded ? ', encoded' : ''}`],
      ["Windows' RAM", w.ram ? bytes(w.ram.reduce((sum, r) => sum + r.size, 0)) : 'unknown'],
    );
  }
  if (conversion) {
    const { dump, seconds } = conversion;
    rows.push(['Crash dump', html`${dump.path} (${dump.type}, ${bytes(dump.bytes)}) in ${seconds} s`]);
  }
  return html`<dl>${rows.map(([name, value]) => html`<dt>${name}</dt><dd>${value}</dd>\n`)}</dl>`;
}

function processors({ stacks, windows }: PageData): Html {
  const named = isNamed(stacks);
  return html`
<p class="note">${legendOf(named)} Frames marked ? are guesses or follow from one.</p>
${stacks.map((stack) => {
  const p = windows?.processors.find(({ number }) => number === stack.processor);
  return html`
<article>
<h3>Processor ${stack.processor}</h3>
<p>${about(p, windows?.currentProcessor === stack.processor)}</p>
${frames(stack, named)}
</article>`;
})}`;
}

function about(p: ProcessorReport | undefined, isCurrent: boolean): Html {
  if (!p) return html`registers: unknown`;
  const state =
    p.instructionPointer !== null &&
    html`; at ${code(p.instructionPointer)}, stack ${code(p.stackPointer)}, page tables ${code(p.pageTableRoot)}`;
  return html`${p.cpu === null ? '' : `CPU ${p.cpu}, `}${p.mode ? `${p.mode} mode` : 'mode unknown'}; registers: ${WHOSE[p.registers]}${state}${isCurrent && '; the debugger opens here'}`;
}

function frames(stack: ProcessorStackReport, named: boolean): Html {
  if (stack.frames.length === 0) return html`<p>No stack: ${stack.end}.</p>`;
  return html`
${table(
  ['', 'Child-SP', 'Return address', 'Call site'],
  stack.frames.map((frame, i) => [
    html`${frame.certain ? '' : '? '}${i}`,
    code(frame.stackPointer),
    code(frame.returnAddress),
    place(frame, named),
  ]),
)}
<p class="note">End: ${stack.end}.</p>
${stack.doubts.length > 0 && html`<p class="note">Guessed: ${stack.doubts.join('; ')}.</p>`}`;
}

const place = ({ at, instructionPointer, how }: FrameReport, named: boolean): Html => {
  if (!at) return code(instructionPointer);
  const inlined = inlinedCalls(at).map((call) => html`${code(call)} inlined in `);
  return html`${inlined}${code(siteOf(at, named))}${how === 'trap' ? ' (interrupted)' : ''}`;
};

type Found = NonNullable<PageData['windows']>;

const modules = (all: Found['modules']): Html =>
  table(
    ['Name', 'Base', 'Size', 'Version', 'Symbols'],
    all.map((m) => [m.name, code(m.base), bytes(m.size), m.fileVersion, code(m.pdb?.symbolPath ?? null)]),
  );

const unloaded = (all: Found['unloadedModules']): Html =>
  table(
    ['Name', 'From', 'To', 'Unloaded'],
    all.map((m) => [m.name, code(m.from), code(m.to), m.time]),
  );

const processes = (all: Found['processes']): Html =>
  table(
    ['Process ID', 'Parent', 'Name', 'EPROCESS', 'Page tables'],
    all.map((p) => [p.pid, p.parentPid, p.name, code(p.address), code(p.directoryTableBase)]),
  );

const patches = (all: NonNullable<PageData['conversion']>['dump']['patches']): Html =>
  table(
    ['What', 'Address', 'Physical', 'Bytes', 'SHA-256 of what was there'],
    all.map((p) => [p.what, code(p.virtual), code(p.physical), p.length, code(p.originalSha256)]),
  );

const evidence = (all: PageData['evidence']): Html => html`
<details><summary>${plural(all.length, 'attempt')}</summary>
${table(
  ['', 'Step', 'Tried', 'Found'],
  all.map((a) => [a.accepted ? 'yes' : 'no', a.step, a.method, a.detail]),
)}
</details>`;

const PER_ROW = 64;
const CELL = 10;
const SHOWN_RANGES = 48;
const LEGEND: Record<CellKind, string> = {
  patched: 'changed by the conversion',
  kernel: 'kernel image',
  tables: "the kernel's page tables",
  data: 'other contents',
  zero: 'zeros (by samples)',
  left: 'left out of the dump',
};

function memory({ cellBytes, ranges }: MemoryPicture, converted: boolean): Html {
  const drawn = new Set(ranges.flatMap(({ cells }) => cells));
  const kinds = CELL_KINDS.filter((kind) => (kind === 'left' ? drawn.has(kind) : converted || kind !== 'patched'));
  return html`
<p>Each square is ${bytes(cellBytes)}; holes are not in the input.</p>
<p class="legend">${kinds.map((kind) => html`<span><i class="${kind}"></i> ${LEGEND[kind]}</span>\n`)}</p>
${ranges.slice(0, SHOWN_RANGES).map(({ start, size, cells }, i) => {
  const end = i === 0 ? 0 : ranges[i - 1]!.start + ranges[i - 1]!.size;
  const rows = Math.ceil(cells.length / PER_ROW);
  const width = Math.min(cells.length, PER_ROW) * CELL;
  return html`
${start > end && html`<p class="note">hole: <code>${hex(end)}</code> to <code>${hex(start)}</code>, ${bytes(start - end)}</p>`}
<figure>
<figcaption><code>${hex(start)}</code> to <code>${hex(start + size)}</code>, ${bytes(size)}</figcaption>
<svg viewBox="0 0 ${width} ${rows * CELL}" style="width: ${width / 16}rem" role="img" aria-label="${bytes(size)} from ${hex(start)}">
${cells.map((kind, n) => html`<rect class="${kind}" x="${(n % PER_ROW) * CELL}" y="${Math.floor(n / PER_ROW) * CELL}" width="9" height="9"/>`)}
</svg>
</figure>`;
})}
${ranges.length > SHOWN_RANGES && html`<p>… and ${plural(ranges.length - SHOWN_RANGES, 'range')} more.</p>`}`;
}
