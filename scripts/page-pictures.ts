// Takes pictures of the report pages with Debian's Chromium: `npm run pictures` writes those of docs/pictures again;
// `npm run pictures -- DIR` writes all widths, light and dark, whole pages too, to DIR, to be looked at.
import { mkdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { openBrowser } from '../test/support/browser.ts';
import { examplePages } from '../test/support/pages.ts';

const [, , dir] = process.argv;
const DOCS = fileURLToPath(new URL('../docs/pictures/', import.meta.url));
/** What docs show: page, width, height, scheme. */
const SHOWN = [
  ['crash', 1000, 1010, 'light'],
  ['crash', 500, 900, 'dark'],
  ['index', 1000, 800, 'light'],
] as const;

async function main(): Promise<void> {
  const pages = await examplePages();
  const target = dir ?? DOCS;
  mkdirSync(target, { recursive: true });
  const browser = await openBrowser();
  try {
    const wanted = dir === undefined ? SHOWN : all(Object.keys(pages) as (keyof typeof pages)[]);
    for (const [name, width, height, scheme] of wanted) {
      const page = await browser.newPage({ viewport: { width, height }, colorScheme: scheme });
      await page.setContent(pages[name]);
      const file = join(target, `${name}-${width}-${scheme}.png`);
      await page.screenshot({ path: file, fullPage: dir !== undefined });
      console.log(`${file}: ${statSync(file).size} bytes`);
      await page.close();
    }
  } finally {
    await browser.close();
  }
}

const all = <T>(names: readonly T[]) =>
  names.flatMap((name) =>
    [500, 1000, 1600].flatMap((width) =>
      (['light', 'dark'] as const).map((scheme) => [name, width, 800, scheme] as const),
    ),
  );

void main();
