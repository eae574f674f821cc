/** Names of public symbols as the debugger shows them. */

/**
 * The name without the linker's decoration. C++ names (`?…`) of plain functions, methods, constructors and destructors
 * are written out, without types; others (templates, operators, compiler-made ones) stay as they are.
 */
export function undecorated(name: string): string {
  if (name.startsWith('?')) return plainCppName(name) ?? name;
  // As the debugger does, on every machine.
  return name.startsWith('_') ? name.slice(1) : name;
}

const SPECIAL: ReadonlyMap<string, 'constructor' | 'destructor'> = new Map([
  ['??0', 'constructor'],
  ['??1', 'destructor'],
]);

/** `?name@scope@outer@@…`: names from the inside out, each ended by `@`; a digit repeats one of the first ten. */
function plainCppName(name: string): string | undefined {
  const special = SPECIAL.get(name.slice(0, 3));
  let at = special ? 3 : 1;
  const parts: string[] = [];
  /** What digits repeat. */
  const known: string[] = [];
  while (name[at] !== '@') {
    const digit = /[0-9]/.test(name[at] ?? '') ? Number(name[at]) : undefined;
    if (digit !== undefined) {
      const repeated = known[digit];
      if (repeated === undefined) return undefined;
      parts.push(repeated);
      at++;
      continue;
    }
    const anonymous = /^\?A0x[0-9a-f]+@/.exec(name.slice(at));
    const plain = /^[A-Za-z_$][\w$]*@/.exec(name.slice(at));
    const part = anonymous ?? plain;
    if (!part) return undefined;
    const text = anonymous ? "`anonymous namespace'" : part[0].slice(0, -1);
    parts.push(text);
    if (!known.includes(text)) known.push(text);
    at += part[0].length;
  }
  const [inner] = parts;
  // The rest has to be there: calling convention and types.
  if (inner === undefined || name.length <= at + 1) return undefined;
  const scopes = parts.reverse();
  if (special) scopes.push(special === 'constructor' ? inner : `~${inner}`);
  return scopes.join('::');
}
