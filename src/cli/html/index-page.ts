/** A batch's dumps on one page, each with a link to its own. */
import { relative } from 'node:path';
import type { CrashGroup } from '../../batch/crashes.ts';
import { crashKind } from '../../batch/report.ts';
import type { JobResult } from '../../batch/run.ts';
import { bytes } from '../../core/units.ts';
import type { CrashReport } from '../../report/windows.ts';
import { plural } from '../text/render.ts';
import { type Html, html } from './html.ts';
import { document, table } from './page.ts';

/** Failures come first. */
const ORDER = ['failed', 'losses', 'not run', 'good'] as const;

/**
 * @param directory that the page lies in
 * @param pages of the dumps that have one, by their output's path
 */
export function renderIndex(
  { results, groups }: { results: readonly JobResult[]; groups: readonly CrashGroup[] },
  directory: string,
  pages: ReadonlyMap<string, string>,
): string {
  const outcomeOf = ({ record }: JobResult) => record?.outcome ?? 'not run';
  const sorted = ORDER.flatMap((outcome) => results.filter((result) => outcomeOf(result) === outcome));
  const count = (outcome: (typeof ORDER)[number]) => results.filter((result) => outcomeOf(result) === outcome).length;
  const failed = count('failed');
  const lossy = count('losses');
  const crashed = results.filter(({ record }) => record?.windows?.bugCheck).length;
  const [tone, verdict] = verdictOf(plural(results.length, 'dump'), failed, lossy);
  const linkTo = ({ job }: JobResult): Html | string => {
    const page = pages.get(job.output);
    return page === undefined ? job.relative : link(relative(directory, page), job.relative);
  };
  return document(
    'Batch',
    html`
<header class="${tone}">
  <h1>${verdict}</h1>
  <p>${plural(crashed, 'guest')} had crashed.</p>
</header>
<main>
${groups.length > 0 && html`<h2>Crashes (${groups.length})</h2>${crashes(groups, linkTo)}<h2>Dumps</h2>`}
${table(
  ['Input', 'Outcome', 'Windows', 'Bug check', 'Dump', 'What is wrong'],
  sorted.map((result) => {
    const { record } = result;
    return [
      linkTo(result),
      outcomeOf(result),
      record?.windows ? (record.windows.name ?? `build ${record.windows.build}`) : null,
      bugCheckOf(record?.windows?.bugCheck),
      record?.bytes ? bytes(record.bytes) : null,
      record?.error?.text ?? record?.losses.join('; ') ?? null,
    ];
  }),
)}
</main>`,
  );
}

/** Links that a crash shows. */
const SHOWN_DUMPS = 50;

const crashes = (groups: readonly CrashGroup[], linkTo: (result: JobResult) => Html | string): Html =>
  table(
    ['Signature', '', 'Dumps', 'First seen', 'Last seen', 'Likely culprit', 'In'],
    groups.map(({ signature, results, firstSeen, lastSeen, known }) => [
      html`<code>${signature.text}</code> <code>${signature.hash}</code>`,
      crashKind(known),
      results.length,
      firstSeen,
      lastSeen,
      results.find(({ record }) => record?.windows?.culprit)?.record?.windows?.culprit?.module ?? null,
      html`${results.slice(0, SHOWN_DUMPS).map((result) => html`${linkTo(result)} `)}${results.length > SHOWN_DUMPS && html`… ${results.length - SHOWN_DUMPS} more`}`,
    ]),
  );

const bugCheckOf = (check: CrashReport | null | undefined): string | null =>
  check ? `${check.code}${check.name ? ` ${check.name}` : ''}` : null;

/** A link below the page's directory; encoded parts cannot become a scheme or another host. */
const link = (path: string, text: string): Html =>
  html`<a href="./${path.split('/').map(encodeURIComponent).join('/')}">${text}</a>`;

/** The class and the text of the page's header. */
function verdictOf(dumps: string, failed: number, lossy: number): [tone: string, verdict: string] {
  if (failed > 0) return ['bad', `${failed} of ${dumps} failed`];
  if (lossy > 0) return ['lossy', `${lossy} of ${dumps} lack something`];
  return ['good', `${dumps}, nothing missing`];
}
