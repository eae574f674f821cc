/** Writes `--report FILE`: its path is checked first, the file is written last. */
import type { PageData } from '../../report/page.ts';

/**
 * Throws `Elf2dmpError` where the file can't become the report.
 *
 * @param input what the report is of, which it must not replace
 * @returns writes the page; throws `Elf2dmpError`
 */
export async function pageWriter(
  path: string,
  input: string,
  force: boolean,
): Promise<(page: PageData) => Promise<void>> {
  // Loaded only when needed: most runs write no page.
  const { checkOutput, writeNewFile } = await import('../../files/publish.ts');
  const target = await checkOutput(path, input, force);
  return async (page) => {
    const { renderPage } = await import('./page.ts');
    await writeNewFile(target, Buffer.from(renderPage(page)), { force });
  };
}
