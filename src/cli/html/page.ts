/** One dump as a self-contained HTML page, for any screen or paper: what happened first, what is seldom wanted folded. */

import { bytes } from '../../core/units.ts';
import type { PageData } from '../../report/page.ts';
import type { CrashReport } from '../../report/windows.ts';
import { VERSION } from '../../version.ts';
import { describeCulprit, describeHost, describeParameter } from '../text/processors.ts';
import { plural, uptime } from '../text/render.ts';
import { activity } from './activity.ts';
import { type Html, html } from './html.ts';
import { memoryMap } from './memory-map.ts';
import { nextSteps } from './next-steps.ts';
import { code, contents, document, list, renderSections, type Section, second, table, values } from './parts.ts';
import { processors } from './processors.ts';

/** Longer lists are folded. */
const FOLDED_FROM = 13;

/** The page's text. */
export function renderPage(data: PageData): string {
  const { input, windows: w } = data;
  const losses = data.diagnostics.filter((d) => d.severity === 'loss').length;
  const name = input.path.split('/').at(-1) ?? input.path;
  const sections = sectionsOf(data);
  const body = html`
<header class="${verdictClass(data, losses)}">
  <p class="file">${name}</p>
  <h1>${verdict(data)}</h1>
  ${w?.culprit && html`<p class="culprit">Likely culprit: <strong>${w.culprit.module}</strong></p>`}
  ${w && html`<p>${w.name ?? 'Windows'}, build ${w.build}, dumped <span class="unbroken">${w.systemTime ? `${second(w.systemTime)} UTC` : 'at an unknown time'}</span>, up ${up(w)}</p>`}
  <p>${completeness(data, losses)}</p>
</header>
${contents(sections)}
<main>
${renderSections(sections)}
</main>
<footer><p>elf2dmp ${VERSION}. Everything here was read from ${input.path}; nothing was looked up elsewhere.</p></footer>`;
  return document(name, body);
}

function sectionsOf(data: PageData): Section[] {
  const { windows: w, conversion, diagnostics, evidence } = data;
  const messages = (severity: string) => diagnostics.filter((d) => d.severity === severity).map((d) => d.message);
  const [losses, warnings] = [messages('loss'), messages('warning')];
  const sections: Section[] = [];
  const add = (id: string, title: string, content: Html, more: Partial<Section> = {}) =>
    sections.push({ id, title, content, ...more });
  const addTable = (id: string, title: string, rows: readonly unknown[], content: Html, folded = false) => {
    if (rows.length > 0) add(id, title, content, { count: rows.length, folded: folded || rows.length >= FOLDED_FROM });
  };
  if (w?.bugCheck) add('bug-check', 'Bug check', bugCheck(w.bugCheck, w));
  if (losses.length > 0) add('missing', 'What is missing', list(losses), { tone: 'bad', count: losses.length });
  if (warnings.length > 0) add('warnings', 'Warnings', list(warnings), { tone: 'lossy', count: warnings.length });
  if (w?.activity) add('activity', 'What the processors do', activity(w.activity));
  const next = nextSteps(data);
  if (next) add('next', 'Next', next);
  if (data.stacks.length > 0) add('processors', 'Processors', processors(data), { count: data.stacks.length });
  add('guest', w ? 'Guest' : 'Input', guest(data));
  if (data.memory) add('memory', 'Physical memory', memoryMap(data.memory, conversion !== undefined));
  if (w) {
    addTable('modules', 'Modules', w.modules, modules(w.modules));
    addTable('unloaded', 'Unloaded modules', w.unloadedModules, unloaded(w.unloadedModules), true);
    addTable('processes', 'Processes', w.processes, processes(w.processes));
  }
  if (conversion) {
    const { repairs, patches } = conversion.dump;
    addTable('repaired', 'Repaired', repairs, repaired(repairs));
    addTable('changed', 'Changed in memory', patches, changed(patches));
  }
  addTable('evidence', 'How it was found', evidence, found(evidence), true);
  return sections;
}

function verdictClass({ windows, problem }: PageData, losses: number): string {
  if (!windows || problem) return 'bad';
  if (windows.bugCheck) return 'crashed';
  return losses > 0 ? 'lossy' : 'good';
}

function verdict({ windows: w, problem }: PageData): string {
  if (!w) return `No Windows: ${problem?.message ?? 'none was found'}`;
  if (!w.bugCheck) return 'The guest was running when it was dumped';
  const { code: number, name, processor } = w.bugCheck;
  const where = processor === null ? '' : ` on processor ${processor}`;
  return `The guest crashed: ${name ? `${name} (${number})` : number}${where}`;
}

function completeness({ windows, conversion }: PageData, losses: number): Html {
  if (!windows) return html`Nothing more is known.`;
  const what = conversion ? 'The crash dump' : 'The file';
  const lacks =
    losses === 0
      ? html`Complete: nothing was lost.`
      : html`${what} lacks <a href="#missing">${plural(losses, 'thing')}</a>.`;
  const selection = conversion?.dump.selection;
  if (!selection) return lacks;
  const [kept, left] = [selection.kept, selection.leftOut].map((counts) =>
    Object.values(counts).reduce((sum, pages) => sum + pages, 0),
  ) as [number, number];
  const of = conversion.dump.type === 'kernel' ? "the kernel's memory" : 'the memory in use';
  return html`${lacks} By its type it holds only ${of}: ${plural(kept, 'page')}, and ${plural(left, 'page')} of the input were left out.`;
}

function bugCheck({ code: number, name, parameters, processor }: CrashReport, { culprit, signatures }: Found): Html {
  const { symbols, rva } = signatures;
  return html`
${name === null && html`<p>elf2dmp has no name for ${code(number)}.</p>`}${processor === null && html`<p>Which processor crashed is not known.</p>`}
${table(
  'Parameters of the bug check',
  ['#', 'Meaning', 'Value'],
  parameters.map((p, i) => [i + 1, describeParameter(p) || null, code(p.value)]),
)}
${culprit && html`<p>Likely culprit: ${describeCulprit(culprit)}.</p>`}
<p class="note">Signature${symbols && html` by symbols: ${code(symbols.text)}, ${code(symbols.hash)};`} by RVA: ${code(rva.text)}, ${code(rva.hash)}.</p>`;
}

function guest({ input, windows: w, conversion }: PageData): Html {
  const rows: [string, Html | string][] = [
    ['Input', html`${input.path} (${input.format}, ${bytes(input.memoryBytes)} in ${plural(input.runCount, 'run')})`],
  ];
  const host = input.host && describeHost(input.host);
  if (host) rows.push(['Hypervisor', host]);
  if (conversion) {
    const { dump, seconds } = conversion;
    rows.push(['Crash dump', html`${dump.path} (${dump.type}, ${bytes(dump.bytes)}) in ${seconds} s`]);
  }
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
      ['Dumped', dumped(w)],
      ["Windows' RAM", w.ram ? bytes(w.ram.reduce((sum, r) => sum + r.size, 0)) : 'unknown'],
      ['Kernel', html`${bytes(w.kernel.size)} at ${code(w.kernel.base)}`],
      ["Kernel's PDB", code(w.kernel.pdb?.symbolPath ?? null)],
      ['Page tables', html`${w.pagingMode}, ${code(w.directoryTableBase)}`],
      ['KDBG', html`${w.kdbg.encoded ? 'encoded, ' : ''}${code(w.kdbg.address)}`],
    );
  }
  return values(rows);
}

type Found = NonNullable<PageData['windows']>;

const dumped = (w: Found): string => `${w.systemTime ?? 'at an unknown time'}, up ${up(w)}`;

const up = ({ uptimeSeconds }: Found): string =>
  uptimeSeconds === null ? 'for an unknown time' : uptime(uptimeSeconds);

const modules = (all: Found['modules']): Html =>
  table(
    'Modules',
    ['Name', 'Version', 'Size', 'PDB', 'Base'],
    all.map((m) => [m.name, m.fileVersion, bytes(m.size), code(m.pdb?.symbolPath ?? null), code(m.base)]),
  );

const unloaded = (all: Found['unloadedModules']): Html =>
  table(
    'Unloaded modules',
    ['Name', 'Unloaded', 'From', 'To'],
    all.map((m) => [m.name, m.time, code(m.from), code(m.to)]),
  );

const processes = (all: Found['processes']): Html =>
  table(
    'Processes',
    ['Name', 'ID', 'Parent', 'EPROCESS', 'Page tables'],
    all.map((p) => [p.name, p.pid, p.parentPid, code(p.address), code(p.directoryTableBase)]),
  );

const repaired = (all: NonNullable<PageData['conversion']>['dump']['repairs']): Html => html`
<p class="note">What was wrong in the crash dump that was converted, as its own memory and its size show.</p>
${table(
  'Repaired',
  ['What', 'Before', 'After', 'What shows it'],
  all.map((r) => [r.what, code(r.before), code(r.after), r.evidence]),
)}`;

const changed = (all: NonNullable<PageData['conversion']>['dump']['patches']): Html =>
  table(
    'Changed in memory',
    ['What', 'Bytes', 'Address', 'Physical', 'SHA-256 of what was there'],
    all.map((p) => [p.what, p.length, code(p.virtual), code(p.physical), code(p.originalSha256)]),
  );

const found = (all: PageData['evidence']): Html =>
  table(
    'Attempts',
    ['Accepted', 'Step', 'Tried', 'Found'],
    all.map((a) => [a.accepted ? 'yes' : 'no', a.step, a.method, a.detail]),
  );
