/** What pages are made of: the document around them, sections with anchors, tables, lists of values. */
import { createHash } from 'node:crypto';
import { PAGE_MARK } from '../../report/page-mark.ts';
import { Html, html } from './html.ts';
import { STYLE } from './style.ts';

const MARK = new Html(PAGE_MARK);

/** The only style that a page allows. */
const STYLE_HASH = createHash('sha256').update(STYLE).digest('base64');

/** The page's frame. Its policy allows no scripts, even if a guest's text broke out of the markup. */
export function document(title: string, body: Html): string {
  return html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
${MARK}
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'sha256-${STYLE_HASH}'; base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>${title} \u2013 elf2dmp</title>
<style>${new Html(STYLE)}</style>
</head>
<body>${body}
</body>
</html>
`.markup;
}

/** A part of a page that the contents lead to. */
export interface Section {
  /** Its anchor. */
  id: string;
  title: string;
  content: Html;
  /** How many things it is about. */
  count?: number | undefined;
  /** Closed until it is opened, because it is long and seldom wanted. */
  folded?: boolean | undefined;
  tone?: 'bad' | 'lossy' | undefined;
}

/** The links to the sections. */
export const contents = (sections: readonly Section[]): Html => html`
<nav aria-label="Contents"><ul>${sections.map(
  ({ id, title, count }) =>
    html`<li><a href="#${id}">${title}${count !== undefined && html` <span class="count">${count}</span>`}</a></li>`,
)}</ul></nav>`;

/** The sections, in their order. */
export const renderSections = (sections: readonly Section[]): Html =>
  html`${sections.map(
    ({ id, title, content, count, folded, tone = '' }) => html`
<section id="${id}" class="${tone}">
${folded ? html`<details><summary>${heading(title, count)}</summary>${content}</details>` : html`${heading(title, count)}${content}`}
</section>
`,
  )}`;

const heading = (title: string, count: number | undefined): Html =>
  html`<h2>${title}${count !== undefined && html` <span class="count">${count}</span>`}</h2>`;

/** Text that may take several lines. */
const WRAPS = new Html(' class="text"');
const isLong = (cell: Cell): boolean => typeof cell === 'string' && cell.length > LONG;
const LONG = 32;

/** A cell of a table. */
export type Cell = Html | string | number | null;

/**
 * A table that scrolls by itself where the screen is narrower.
 *
 * @param name for those who can't see it
 */
export const table = (name: string, head: readonly string[], rows: readonly (readonly Cell[])[]): Html => html`
<div class="scroll" role="region" aria-label="${name}" tabindex="0"><table>
<thead><tr>${head.map((title) => html`<th scope="col">${title}</th>`)}</tr></thead>
<tbody>${rows.map((row) => html`<tr>${row.map((cell) => html`<td${isLong(cell) && WRAPS}>${cell ?? '–'}</td>`)}</tr>\n`)}</tbody>
</table></div>`;

export const list = (items: readonly (Html | string)[]): Html =>
  html`<ul>${items.map((item) => html`<li>${item}</li>`)}</ul>`;

/** Names and their values. */
export const values = (rows: readonly (readonly [string, Cell])[]): Html =>
  html`<dl>${rows.map(([name, value]) => html`<div><dt>${name}</dt><dd>${value ?? '–'}</dd></div>\n`)}</dl>`;

export const code = (text: string | null): Html => html`<code>${text ?? '–'}</code>`;

/** `2026-11-26 08:15:02`, of an ISO 8601 time. */
export const second = (time: string): string => time.slice(0, 19).replace('T', ' ');
