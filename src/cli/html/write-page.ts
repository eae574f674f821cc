/** `--report FILE`: checked before anything is done, written when it is. */
import type { PageData } from '../../report/page.ts';

export interface PageWriter {
  take(page: PageData): void;
  /** Writes the page that was taken last, if any. Throws `Elf2dmpError`. */
  write(): Promise<void>;
}

/**
 * Throws `Elf2dmpError` where the file can't become the report.
 *
 * @param input what the report is of, which it must not replace
 */
export async function pageWriter(path: string, input: string, force: boolean): Promise<PageWriter> {
  // Loaded when it is needed: most runs make none.
  const { checkOutput, writeNewFile } = await import('../../files/publish.ts');
  const target = await checkOutput(path, input, force);
  let page: PageData | undefined;
  return {
    take: (taken) => {
      page = taken;
    },
    write: async () => {
      if (!page) return;
      const { renderPage } = await import('./page.ts');
      await writeNewFile(target, Buffer.from(renderPage(page)), { force });
    },
  };
}
