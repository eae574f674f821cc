/** Debian's Chromium, for tests and for the pictures in docs/. */
import { existsSync } from 'node:fs';
import { type Browser, chromium } from 'playwright-core';

/** Where Debian puts it. */
export const CHROMIUM = '/usr/bin/chromium';

/** Whether there is one here. */
export const hasChromium = (): boolean => existsSync(CHROMIUM);

/** Without the sandbox, which root has none of; the pages are our own. */
export const openBrowser = (): Promise<Browser> =>
  chromium.launch({ executablePath: CHROMIUM, args: ['--no-sandbox', '--disable-gpu', '--font-render-hinting=none'] });
