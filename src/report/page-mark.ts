/** What every page of ours has at its front, so that only those are replaced without being told to. */

/** Its `<meta>` element. */
export const PAGE_MARK = '<meta name="generator" content="elf2dmp">';

/** Whether a file with these first bytes is a page of ours. */
export const isOurPage = (head: Buffer): boolean => {
  const text = head.subarray(0, 1024).toString('latin1');
  return text.startsWith('<!doctype html>') && text.includes(PAGE_MARK);
};
