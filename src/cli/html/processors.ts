/** Processors on a page: the one that crashed first, then a line for each, or for several with one stack. */
import { byKey } from '../../core/by-key.ts';
import type { ActivityReport } from '../../report/activity.ts';
import type { FaultStackReport } from '../../report/fault.ts';
import type { PageData, ProcessorDetails } from '../../report/page.ts';
import type { ProcessorReport } from '../../report/processors.ts';
import type { FrameReport } from '../../report/stack-frames.ts';
import type { ProcessorStackReport } from '../../report/stacks.ts';
import { describeFault, inlinedCalls, isNamed, legendOf, siteOfFrame, WHOSE } from '../text/processors.ts';
import { plural } from '../text/render.ts';
import { type Html, html } from './html.ts';
import { code, table } from './parts.ts';

/** A processor with all that is known of it. */
interface Shown {
  stack: ProcessorStackReport;
  report: ProcessorReport | undefined;
  details: ProcessorDetails | undefined;
  /** undefined in a guest that crashed. */
  activity: ActivityReport | undefined;
}

/** Processors that do the same. */
interface Group {
  members: readonly Shown[];
  idle: boolean;
}

/** All processors of a guest. */
export function processors({ stacks, fault, windows, processors: details }: PageData): Html {
  const named = isNamed(fault ? [...stacks, fault] : stacks);
  const reports = byKey(windows?.processors, ({ number }) => number);
  const detailed = byKey(details, ({ number }) => number);
  const activities = byKey(windows?.activity?.processors, ({ processor }) => processor);
  const all = stacks.map(
    (stack): Shown => ({
      stack,
      report: reports.get(stack.processor),
      details: detailed.get(stack.processor),
      activity: activities.get(stack.processor),
    }),
  );
  const crashed = windows?.bugCheck?.processor ?? null;
  const first = all.find(({ stack }) => stack.processor === crashed);
  const opened = windows?.currentProcessor ?? null;
  return html`
${fault && atFault(fault, named)}
${first && crashing(first, named)}
${groupsOf(all.filter((one) => one !== first)).map((group) => line(group, named))}
<p class="note">${legendOf(named)} A call site marked ? is a guess or follows from one. Numbers on the right are the return address and the stack pointer (Child-SP).${opened !== null && ` The debugger opens on processor ${opened}.`}</p>`;
}

function atFault(fault: FaultStackReport, named: boolean): Html {
  return html`
<article class="crashing">
<h3>At the fault</h3>
<p>registers: ${describeFault(fault)}</p>
${frames(fault, named)}
${registers(fault)}
</article>`;
}

function crashing(one: Shown, named: boolean): Html {
  return html`
<article class="crashing">
<h3>Processor ${one.stack.processor} <strong class="badge">crashed here</strong></h3>
<p>${about(one)}</p>
${body(one, named)}
</article>`;
}

/** Busy ones first, then those with most members; those without registers last. */
function groupsOf(all: readonly Shown[]): Group[] {
  const groups = new Map<string, { members: Shown[]; idle: boolean }>();
  for (const one of all) {
    const idle = isIdle(one);
    const key = `${idle} ${one.stack.frames.map(placeKey).join(' ') || one.stack.end}`;
    const group = groups.get(key);
    if (group) group.members.push(one);
    else groups.set(key, { members: [one], idle });
  }
  const rank = ({ members, idle }: Group): number => {
    if (members[0]!.stack.frames.length === 0) return 2;
    return idle ? 1 : 0;
  };
  return [...groups.values()].sort(
    (a, b) =>
      rank(a) - rank(b) ||
      b.members.length - a.members.length ||
      a.members[0]!.stack.processor - b.members[0]!.stack.processor,
  );
}

/** Code that a frame runs, wherever its stack lies. */
const placeKey = ({ at, instructionPointer, how, certain }: FrameReport): string =>
  `${at ? `${at.base}+${at.offset}` : instructionPointer}/${how}/${certain}`;

/** It idles; in a guest that crashed, its thread is the idle thread, and it is not in user mode, where no idle thread is. */
const isIdle = ({ details, report, activity }: Shown): boolean =>
  activity ? activity.state.value === 'idle' : details?.idle === true && report?.mode === 'kernel';

function line({ members, idle }: Group, named: boolean): Html {
  const [first] = members as [Shown];
  const numbers = ranges(members.map(({ stack }) => stack.processor));
  const who = members.length === 1 ? `Processor ${numbers}` : plural(members.length, 'processor');
  const [top] = first.stack.frames;
  const site = top ? frameSite(top, named) : html`<span class="faint">no stack: ${first.stack.end}</span>`;
  const mode = idle ? 'idle thread' : (first.report?.mode ?? null);
  return html`
<details class="cpu">
<summary><strong>${who}</strong> ${mode !== null && html`<span class="badge plain">${mode}</span> `}${site}</summary>
${
  members.length === 1
    ? html`<p>${about(first)}</p>${body(first, named)}`
    : html`<p>Processors ${numbers}: the same code on each.</p>${frames(first.stack, named)}
${table(`Processors ${numbers}`, ['Processor', 'CPU', 'Registers', 'Stack pointer', 'Page tables'], members.map(row))}`
}
</details>`;
}

const row = ({ stack, report, details }: Shown) => [
  stack.processor,
  report?.cpu ?? null,
  details && details.registers.length > 0 ? registers(details) : WHOSE[stack.registers],
  code(report?.stackPointer ?? null),
  code(report?.pageTableRoot ?? null),
];

function about({ report, stack, details, activity }: Shown): Html {
  const parts: (string | Html)[] = [];
  if (report?.cpu !== null && report?.cpu !== undefined) parts.push(`CPU ${report.cpu}`);
  parts.push(report?.mode ? `${report.mode} mode` : 'mode unknown');
  if (details?.idle === true && report?.mode === 'kernel') parts.push('on its idle thread');
  if (activity && activity.state.value !== 'idle') parts.push(activity.reading);
  parts.push(`registers: ${WHOSE[stack.registers]}`);
  if (report?.pageTableRoot) parts.push(html`page tables ${code(report.pageTableRoot)}`);
  return html`${parts.map((part, i) => html`${i > 0 && ', '}${part}`)}`;
}

function body({ stack, details }: Shown, named: boolean): Html {
  return html`${frames(stack, named)}
${details && details.registers.length > 0 && registers(details)}`;
}

const registers = ({ registers: all }: Pick<ProcessorDetails, 'registers'>): Html => html`
<details class="registers"><summary>Registers</summary>
<p>${all.map(({ name, value }) => html`<code>${name}=${value}</code> `)}</p>
</details>`;

function frames(stack: Pick<ProcessorStackReport, 'frames' | 'end' | 'doubts'>, named: boolean): Html {
  if (stack.frames.length === 0) return html`<p>No stack: ${stack.end}.</p>`;
  return html`
<ol class="frames">${stack.frames.map(
    (frame) => html`
<li><span class="site">${frame.certain ? '' : '? '}${frameSite(frame, named)}</span>
<span class="addresses"><code>${frame.returnAddress ?? '–'}</code> <code>${frame.stackPointer}</code></span></li>`,
  )}
</ol>
<p class="note">End: ${stack.end}.${stack.doubts.length > 0 && ` Guessed: ${stack.doubts.join('; ')}.`}</p>`;
}

const frameSite = (frame: FrameReport, named: boolean): Html => {
  const { at, how } = frame;
  const inlined = inlinedCalls(at).map((call) => html`${code(call)} inlined in `);
  return html`${inlined}${code(siteOfFrame(frame, named))}${at && how === 'trap' ? ' (interrupted)' : ''}`;
};

/** `0–2, 5` */
function ranges(numbers: readonly number[]): string {
  const sorted = [...numbers].sort((a, b) => a - b);
  const spans: [number, number][] = [];
  for (const n of sorted) {
    const last = spans.at(-1);
    if (last && n === last[1] + 1) last[1] = n;
    else spans.push([n, n]);
  }
  return spans.map(([from, to]) => (from === to ? `${from}` : `${from}–${to}`)).join(', ');
}
