import { createRequire } from 'node:module';
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openBrowser, openWindow } from '../support/browser.ts';
import { examplePages } from '../support/pages.ts';
import { programsAvailable } from '../support/programs.ts';

const AXE = createRequire(import.meta.url).resolve('axe-core/axe.min.js');
/** A phone, half a screen, a laptop, a big screen. */
const WIDTHS = [360, 500, 1000, 1600];
const NAMES = ['crash', 'live', 'index'] as const;
const SCHEMES = ['light', 'dark'] as const;

/** What the checks in the browser see of it; the project's types have no DOM. */
declare const document: { documentElement: { scrollWidth: number; scrollHeight: number; clientWidth: number } };
declare const axe: { run(): Promise<{ violations: { id: string; help: string; nodes: { html: string }[] }[] }> };

describe.skipIf(!programsAvailable({ chromium: 'chromium' }))('pages in Chromium', () => {
  let browser: Browser;
  let pages: Awaited<ReturnType<typeof examplePages>>;

  beforeAll(async () => {
    [browser, pages] = await Promise.all([openBrowser(), examplePages()]);
  });
  afterAll(() => browser?.close());

  /** Opens a page, and collects what the browser complains of: a blocked style, for one. */
  async function open(
    name: (typeof NAMES)[number],
    { width = 1000, height = 800, scheme = 'light' as (typeof SCHEMES)[number], bypassCSP = false } = {},
  ): Promise<{ page: Page; complaints: string[] }> {
    const context = await openWindow(browser, { viewport: { width, height }, colorScheme: scheme, bypassCSP });
    const page = await context.newPage();
    const complaints: string[] = [];
    page.on('console', (message) => complaints.push(message.text()));
    await page.setContent(pages[name]);
    return { page, complaints };
  }

  const size = (page: Page) =>
    page.evaluate(() => {
      const { scrollWidth, scrollHeight, clientWidth } = document.documentElement;
      return { scrollWidth, scrollHeight, clientWidth };
    });

  it.each(NAMES.flatMap((name) => SCHEMES.map((scheme) => [name, scheme] as const)))(
    'can be used by everybody: %s, %s',
    async (name, scheme) => {
      const { page } = await open(name, { scheme, bypassCSP: true });
      await page.locator('details').evaluateAll((all) => {
        for (const one of all.slice(0, 12)) one.setAttribute('open', '');
      });
      await page.addScriptTag({ path: AXE });
      const { violations } = await page.evaluate(() => axe.run());
      expect(violations.map(({ id, help, nodes }) => `${id}: ${help}: ${nodes[0]?.html}`)).toEqual([]);
      await page.context().close();
    },
  );

  it.each(NAMES)('fits each width, shows its verdict first, and breaks no rule of its own: %s', async (name) => {
    for (const width of WIDTHS) {
      const { page, complaints } = await open(name, { width });
      const { scrollWidth, clientWidth } = await size(page);
      expect(scrollWidth, `${width} px`).toBeLessThanOrEqual(clientWidth);
      expect(complaints).toEqual([]);
      const verdict = await page.locator('h1').boundingBox();
      expect(verdict!.y + verdict!.height).toBeLessThan(300);
      // The style is in force: without it, the list of contents would have bullets.
      expect(await page.locator('nav ul').evaluate((list) => list.checkVisibility())).toBe(true);
      await page.context().close();
    }
  });

  it('shows each color scheme', async () => {
    const grounds = await Promise.all(
      SCHEMES.map(async (scheme) => {
        const { page } = await open('crash', { scheme });
        const shot = await page.screenshot({ clip: { x: 990, y: 790, width: 8, height: 8 } });
        await page.context().close();
        return shot.toString('base64');
      }),
    );
    expect(new Set(grounds).size).toBe(2);
  });

  it('has 64 processors and 250 modules on five screens at most, while nothing is unfolded', async () => {
    expect(pages.crash).toContain('<h2>Processors <span class="count">64</span></h2>');
    expect(pages.crash).toContain('<h2>Modules <span class="count">250</span></h2>');
    const { page } = await open('crash');
    const { scrollHeight } = await size(page);
    expect(scrollHeight).toBeLessThanOrEqual(5 * 800);
    await page.context().close();
  });

  it('shows where a frame is from on a phone, and its addresses below', async () => {
    const { page } = await open('crash', { width: 360 });
    const frame = page.locator('article.crashing ol.frames li').nth(3);
    const [site, addresses] = await Promise.all(
      ['.site', '.addresses'].map(async (part) => (await frame.locator(part).boundingBox())!),
    );
    expect(await frame.locator('.site').innerText()).toContain('demo.sys!DemoDispatch+0x4');
    expect(addresses!.y).toBeGreaterThanOrEqual(site!.y + site!.height - 1);
    expect(addresses!.x + addresses!.width).toBeLessThanOrEqual(360);
    await page.context().close();
  });

  it('has all on paper', async () => {
    const { page } = await open('crash');
    const modules = page.locator('#modules table');
    expect(await modules.isVisible()).toBe(false);
    await page.emulateMedia({ media: 'print' });
    expect(await modules.isVisible()).toBe(true);
    expect(await page.locator('#modules h2').isVisible()).toBe(true);
    expect(await page.locator('nav').isVisible()).toBe(false);
    await page.context().close();
  });

  it('has processors that all do something else on as few', async () => {
    const context = await openWindow(browser, { viewport: { width: 1000, height: 800 } });
    const page = await context.newPage();
    await page.setContent(
      pages.crash.replace(
        /<details class="cpu">.*?<\/details>\s*(?=<p class="note">Names)/s,
        '<details class="cpu"><summary><strong>Processor 0</strong> <code>nt!A</code></summary></details>'.repeat(63),
      ),
    );
    expect((await size(page)).scrollHeight).toBeLessThanOrEqual(5 * 800);
    await context.close();
  });
});
