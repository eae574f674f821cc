/** A symbol or export, and how far behind it an address lies. */
interface Near {
  name: string;
  offset: string;
}

/** Code as debuggers print it, without its line: `nt!KeBugCheckEx+0x5`, or by its module. @param at as reports have it */
export function codeName(at: {
  module: string | null;
  base: string;
  offset: string;
  nearestExport: Near | null;
  symbol: Near | null;
}): string {
  const name = at.module ?? `image at ${at.base}`;
  const near = at.symbol ?? at.nearestExport;
  return near ? `${name}!${near.name}+${near.offset}` : `${name}+${at.offset}`;
}
