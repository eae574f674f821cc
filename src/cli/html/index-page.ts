/** A batch's dumps on one page, each with a link to its own. */
import { relative } from 'node:path';
import type { JobResult } from '../../batch/run.ts';
import { bytes } from '../../core/units.ts';
import { plural } from '../text/render.ts';
import { type Html, html } from './html.ts';
import { document, table } from './page.ts';

/** What to look at comes first. */
const ORDER = ['failed', 'losses', 'not run', 'good'] as const;

/**
 * @param directory that the page lies in
 * @param pages of the dumps that have one, by their output's path
 */
export function renderIndex(
  results: readonly JobResult[],
  directory: string,
  pages: ReadonlyMap<string, string>,
): string {
  const outcomeOf = ({ record }: JobResult) => record?.outcome ?? 'not run';
  const sorted = ORDER.flatMap((outcome) => results.filter((result) => outcomeOf(result) === outcome));
  const count = (outcome: (typeof ORDER)[number]) => results.filter((result) => outcomeOf(result) === outcome).length;
  const failed = count('failed');
  const lossy = count('losses');
  const crashed = results.filter(({ record }) => record?.bugCheck).length;
  const verdict =
    failed > 0
      ? `${failed} of ${plural(results.length, 'dump')} failed`
      : lossy > 0
        ? `${lossy} of ${plural(results.length, 'dump')} lack something`
        : `${plural(results.length, 'dump')}, nothing lacks`;
  return document(
    'Batch',
    html`
<header class="${failed > 0 ? 'bad' : lossy > 0 ? 'lossy' : 'good'}">
  <h1>${verdict}</h1>
  <p>${plural(crashed, 'guest')} had crashed.</p>
</header>
<main>
${table(
  ['Input', 'Outcome', 'Windows', 'Bug check', 'Dump', 'What is wrong'],
  sorted.map((result) => {
    const { record, job } = result;
    const page = pages.get(job.output);
    return [
      page === undefined ? job.relative : link(relative(directory, page), job.relative),
      outcomeOf(result),
      record?.build ? `build ${record.build}` : null,
      record?.bugCheck ?? null,
      record?.bytes ? bytes(record.bytes) : null,
      record?.error?.text ?? record?.losses.join('; ') ?? null,
    ];
  }),
)}
</main>`,
  );
}

/** Below the page's own directory: every part is spelled so that it can't be a scheme or another host. */
const link = (path: string, text: string): Html =>
  html`<a href="./${path.split('/').map(encodeURIComponent).join('/')}">${text}</a>`;
