/** What the processors of a guest that runs do, on a page: the reading, then what it was read from. */
import type { ActivityReport, HangReport } from '../../report/activity.ts';
import { symbolOf } from '../text/processors.ts';
import { plural } from '../text/render.ts';
import { type Html, html } from './html.ts';
import { table } from './parts.ts';

/** Kinds of facts that the table has, and their headings. */
const FACTS = [
  ['state', 'State'],
  ['process', 'Process'],
  ['threadId', 'Thread'],
  ['irql', 'IRQL'],
  ['interrupts', 'Interrupts'],
  ['dpcWatchdog', 'DPC watchdog'],
  ['driver', 'Driver'],
] as const;

/** The reading, and a row for each processor. */
export function activity({ reading, processors: all, types }: HangReport): Html {
  const idle = all.filter(({ state }) => state.value === 'idle');
  const shown = idle.length < all.length ? all.filter(({ state }) => state.value !== 'idle') : all;
  return html`
${reading.map((line) => html`<p>${line}</p>`)}
<p class="note">A reading, not a verdict. ${types.value ? 'With' : 'Without'} the kernel's types. The title of a value says what shows it, or why it is not known.</p>
${table(
  'What the processors do',
  ['Processor', ...FACTS.map(([, name]) => name)],
  shown.map((p) => [p.processor, ...FACTS.map(([key]) => html`<span title="${p[key].from}">${factOf(p, key)}</span>`)]),
)}
${shown.length < all.length && html`<p class="note">${plural(idle.length, 'processor')} more: idle.</p>`}`;
}

function factOf(p: ActivityReport, key: (typeof FACTS)[number][0]): string {
  const { process, irql, dpcWatchdog, driver } = p;
  switch (key) {
    case 'process':
      if (!process.value) return 'not known';
      return `${process.value.name ?? process.value.address}${process.value.pid === null ? '' : ` (${process.value.pid})`}`;
    case 'irql':
      return irql.value ? `${irql.value.level}${irql.value.exact ? '' : ' or above'}` : 'not known';
    case 'interrupts':
      if (p.interrupts.value === null) return 'not known';
      return p.interrupts.value ? 'on' : 'off';
    case 'dpcWatchdog':
      return dpcWatchdog.value ? `${dpcWatchdog.value.total} of ${dpcWatchdog.value.totalLimit} ticks` : 'not known';
    case 'driver':
      return driver.value ? symbolOf(driver.value) : 'none';
    default:
      return `${p[key].value ?? 'not known'}`;
  }
}
