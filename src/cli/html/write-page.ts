/** Writes `--report FILE`: its path is checked first, the file is written last. */
import { STANDARD_STREAM } from '../../options/choices.ts';
import type { PageData } from '../../report/page.ts';

/** The page's text. Loaded when it is needed: most runs make none. */
export async function renderReportPage(page: PageData): Promise<string> {
  return (await import('./page.ts')).renderPage(page);
}

/**
 * Throws `Elf2dmpError` where the file can't become the report.
 *
 * @param inputs what is read for the report, which it must not replace
 * @returns writes the page; throws `Elf2dmpError`
 */
export async function pageWriter(
  path: string,
  inputs: readonly string[],
  { force, signal }: { force: boolean; signal: AbortSignal },
): Promise<(page: PageData) => Promise<void>> {
  if (path === STANDARD_STREAM) {
    return async (page) => {
      process.stdout.write(await renderReportPage(page));
    };
  }
  // Loaded only when needed: most runs write no page.
  const { checkOutputs, writeNewFile } = await import('../../files/publish.ts');
  const [target = path] = await checkOutputs([{ what: '--report', path, force }], inputs);
  return async (page) => {
    await writeNewFile(target, Buffer.from(await renderReportPage(page)), { force, signal });
  };
}
