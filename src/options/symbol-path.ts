/** How people write where symbols are: the debugger's symbol path. */

/**
 * The local parts of a symbol path in the debugger's syntax: elements with `;` between them, `srv*DIR*URL`,
 * `symsrv*symsrv.dll*DIR*URL`, `cache*DIR`, or a directory or file. Servers are left out.
 */
export function localSymbolPaths(path: string): string[] {
  return path
    .split(';')
    .flatMap((element) => {
      const parts = element.trim().split('*');
      const [kind] = parts;
      if (parts.length === 1) return parts;
      if (/^symsrv$/i.test(kind!)) return parts.slice(2);
      return /^(srv|cache)$/i.test(kind!) ? parts.slice(1) : [];
    })
    .filter((part) => part !== '' && !/^[a-z][a-z0-9+.-]+:\/\//i.test(part));
}
