/** A batch's dumps on one page: crashes first, then the same dumps by time and by guest. */
import { relative } from 'node:path';
import type { CrashGroup } from '../../batch/crashes.ts';
import { signatureOf } from '../../batch/crashes.ts';
import { crashKind } from '../../batch/report.ts';
import type { JobResult } from '../../batch/run.ts';
import { bytes } from '../../core/units.ts';
import type { CrashReport } from '../../report/windows.ts';
import { VERSION } from '../../version.ts';
import { plural } from '../text/render.ts';
import { type Html, html } from './html.ts';
import { type Cell, code, contents, document, renderSections, type Section, second, table } from './parts.ts';

/** Longer lists of dumps are folded. */
const FOLDED_FROM = 13;

/** A dump by its name, as a link where it has a page. */
type LinkTo = (result: JobResult) => Html | string;

/**
 * @param directory that the page lies in
 * @param pages of the dumps that have one, by their output's path
 */
export function renderIndex(
  { results, groups }: { results: readonly JobResult[]; groups: readonly CrashGroup[] },
  directory: string,
  pages: ReadonlyMap<string, string>,
): string {
  const linkTo: LinkTo = ({ job }) => {
    const page = pages.get(job.output);
    return page === undefined ? job.relative : link(relative(directory, page), job.relative);
  };
  const failed = results.filter(({ record }) => record?.outcome === 'failed');
  const lossy = results.filter(({ record }) => record?.outcome === 'losses').length;
  const crashed = results.filter(({ record }) => record?.windows?.bugCheck).length;
  const [tone, verdict] = verdictOf(plural(results.length, 'dump'), failed.length, lossy);
  const sections = sectionsOf({ results, groups, failed }, linkTo);
  return document(
    'Batch',
    html`
<header class="${crashed > 0 ? 'crashed' : tone}">
  <h1>${crashed > 0 ? `${plural(crashed, 'guest')} crashed, in ${plural(groups.length, 'way')}` : 'No guest had crashed'}</h1>
  <p>${verdict}.</p>
</header>
${contents(sections)}
<main>
${renderSections(sections)}
</main>
<footer><p>elf2dmp ${VERSION}</p></footer>`,
  );
}

interface Listed {
  results: readonly JobResult[];
  groups: readonly CrashGroup[];
  failed: readonly JobResult[];
}

function sectionsOf({ results, groups, failed }: Listed, linkTo: LinkTo): Section[] {
  const sections: Section[] = [];
  if (groups.length > 0) {
    const content = html`${groups.map((group) => crash(group, linkTo))}`;
    sections.push({ id: 'signatures', title: 'Crashes by signature', content, count: groups.length });
  }
  if (failed.length > 0) {
    const rows = failed.map((result): Cell[] => [
      linkTo(result),
      result.record?.error?.text ?? null,
      result.record?.error?.code ?? null,
    ]);
    const content = table('Dumps that failed', ['Guest', 'What is wrong', 'Error'], rows);
    sections.push({ id: 'failed', title: 'Not converted', content, count: failed.length, tone: 'bad' });
  }
  const view = (id: string, title: string, sorted: readonly JobResult[]) =>
    sections.push({ id, title, content: dumps(title, sorted, linkTo), count: sorted.length });
  view('time', 'By time', sortedBy(results, (result) => timeOf(result) ?? '').reverse());
  view(
    'guests',
    'By guest',
    sortedBy(results, ({ job }) => job.relative),
  );
  return sections;
}

/** One crash: its name, culprit and times, then each dump that shows it. */
function crash({ signature, results, firstSeen, lastSeen, known }: CrashGroup, linkTo: LinkTo): Html {
  const { bugCheck = null, culprit = null } = results[0]?.record?.windows ?? {};
  const suspect = culprit ?? results.find(({ record }) => record?.windows?.culprit)?.record?.windows?.culprit;
  const when = firstSeen === lastSeen ? whenOf(firstSeen) : `${whenOf(firstSeen)} to ${whenOf(lastSeen)}`;
  const all = table(
    `Dumps of ${signature.hash}`,
    ['Guest', 'Time (UTC)', 'Windows', 'Processor'],
    sortedBy(results, (result) => timeOf(result) ?? '')
      .reverse()
      .map((result) => [
        linkTo(result),
        whenOf(timeOf(result)),
        windowsOf(result),
        result.record?.windows?.bugCheck?.processor ?? null,
      ]),
  );
  return html`
<article class="crash" id="${anchorOf(signature.hash)}">
<h3>${bugCheckOf(bugCheck)}${suspect && html` in ${suspect.module}`} <span class="count">${plural(results.length, 'dump')}</span>${known !== null && html` <span class="badge ${known ? 'plain' : ''}">${crashKind(known)}</span>`}</h3>
<p class="note">${when ?? 'at unknown times'} \u00b7 ${code(signature.hash)} ${code(signature.text)}</p>
${results.length < FOLDED_FROM ? all : html`<details><summary>Show ${results.length} dumps</summary>${all}</details>`}
</article>`;
}

const dumps = (title: string, sorted: readonly JobResult[], linkTo: LinkTo): Html =>
  table(
    title,
    ['Guest', 'Bug check', 'Likely culprit', 'Time (UTC)', 'Windows', 'Dump', 'Losses'],
    sorted.map((result) => {
      const { record } = result;
      const check = record?.windows?.bugCheck;
      return [
        linkTo(result),
        check ? html`<a href="#${anchorOf(signatureOf(record)?.hash)}">${bugCheckOf(check)}</a>` : outcomeOf(result),
        record?.windows?.culprit?.module ?? null,
        whenOf(timeOf(result)),
        windowsOf(result),
        record?.bytes ? bytes(record.bytes) : null,
        record?.lossCount || null,
      ];
    }),
  );

/** A signature's hash is hex digits; anything else is no anchor. */
const anchorOf = (hash: string | undefined): string =>
  /^[0-9a-f]+$/.test(hash ?? '') ? `crash-${hash}` : 'signatures';

/** When, as `second` has it. */
const whenOf = (time: string | null): string | null => time && second(time);

const timeOf = ({ record }: JobResult): string | null => record?.windows?.systemTime ?? null;

const windowsOf = ({ record }: JobResult): string | null =>
  record?.windows ? (record.windows.name ?? `build ${record.windows.build}`) : null;

/** In place of a bug check. */
function outcomeOf({ record }: JobResult): string {
  if (!record) return 'not run';
  return record.outcome === 'failed' ? 'failed' : 'was running';
}

function sortedBy(results: readonly JobResult[], key: (result: JobResult) => string): JobResult[] {
  const keyed = results.map((result) => [key(result), result] as const);
  return keyed.sort(([a], [b]) => compare(a, b)).map(([, result]) => result);
}

const compare = (a: string, b: string): number => (a < b ? -1 : Number(a > b));

/** The name alone, where there is one. */
const bugCheckOf = (check: CrashReport | null): string => check?.name ?? `bug check ${check?.code ?? 'unknown'}`;

/** A link below the page's directory; encoded parts cannot become a scheme or another host. */
const link = (path: string, text: string): Html =>
  html`<a href="./${path.split('/').map(encodeURIComponent).join('/')}">${text}</a>`;

/** The class and the text of the page's header. */
function verdictOf(dumps: string, failed: number, lossy: number): [tone: string, verdict: string] {
  if (failed > 0) return ['bad', `${failed} of ${dumps} failed`];
  if (lossy > 0) return ['lossy', `${lossy} of ${dumps} lack something`];
  return ['good', `${dumps}, nothing missing`];
}
