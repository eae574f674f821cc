/** Debian's Chromium, for tests and for the pictures in docs/. */
import { existsSync } from 'node:fs';
import { type Browser, type BrowserContext, type BrowserContextOptions, chromium } from 'playwright-core';

/** Where Debian puts it. */
export const CHROMIUM = '/usr/bin/chromium';

/** Whether there is one here. */
export const hasChromium = (): boolean => existsSync(CHROMIUM);

/** Without the sandbox, which root has none of; the pages are our own. No limits of its own: a test has one. */
export const openBrowser = (): Promise<Browser> =>
  chromium.launch({
    executablePath: CHROMIUM,
    args: ['--no-sandbox', '--disable-gpu', '--font-render-hinting=none'],
    timeout: 0,
  });

/** A window of the browser's, whose pages may take as long as they need. */
export async function openWindow(browser: Browser, options: BrowserContextOptions): Promise<BrowserContext> {
  const context = await browser.newContext(options);
  context.setDefaultTimeout(0);
  return context;
}
