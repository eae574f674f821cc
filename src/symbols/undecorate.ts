/** Names of public symbols as the debugger shows them. */

/**
 * The name without the linker's decoration. C++ names (`?…`) of functions, methods, constructors, destructors and
 * operators are written out, without types; others (templates, conversions, compiler-made ones) stay as they are.
 */
export function undecorated(name: string): string {
  if (name.startsWith('?')) return plainCppName(name) ?? name;
  // As the debugger does, on every machine.
  return name.startsWith('_') ? name.slice(1) : name;
}

const CONSTRUCTOR = '0';
const DESTRUCTOR = '1';
/** By code. */
const OPERATORS: ReadonlyMap<string, string> = new Map(
  (
    '2 new;3 delete;4=;5>>;6<<;7!;8==;9!=;A[];C->;D*;E++;F--;G-;H+;I&;J->*;K/;L%;M<;N<=;O>;P>=;Q,;R();S~;T^;U|;V&&;W||;' +
    'X*=;Y+=;Z-=;_0/=;_1%=;_2>>=;_3<<=;_4&=;_5|=;_6^=;_U new[];_V delete[]'
  )
    .split(';')
    .map((entry) => {
      const code = /^_?./.exec(entry)![0];
      return [code, `operator${entry.slice(code.length)}`];
    }),
);

/** `?name@scope@outer@@…`, or with `?` and a code for a name that is not an identifier. */
function plainCppName(name: string): string | undefined {
  const code = /^\?\?(_?[0-9A-Z])/.exec(name)?.[1];
  const operator = code && OPERATORS.get(code);
  if (code !== undefined && operator === undefined && code !== CONSTRUCTOR && code !== DESTRUCTOR) return undefined;
  const names = qualifiedName(name, code === undefined ? 1 : 2 + code.length);
  if (!names) return undefined;
  const [inner] = names;
  const scopes = names.reverse();
  if (operator !== undefined) return [...scopes, operator].join('::');
  if (inner === undefined) return undefined;
  if (code === CONSTRUCTOR) scopes.push(inner);
  if (code === DESTRUCTOR) scopes.push(`~${inner}`);
  return scopes.join('::');
}

/** Names from the inside out, each ended by `@`; a digit repeats one of the first ten; `@` ends them. */
function qualifiedName(name: string, start: number): string[] | undefined {
  const parts: string[] = [];
  /** What digits repeat. */
  const known: string[] = [];
  let at = start;
  while (name[at] !== '@') {
    const rest = name.slice(at);
    const repeated = /^[0-9]/.test(rest) ? known[Number(rest[0])] : undefined;
    const part = repeated ?? /^(?:\?A0x[0-9a-fA-F]+|[A-Za-z_$][\w$]*)(?=@)/.exec(rest)?.[0];
    if (part === undefined) return undefined;
    at += repeated === undefined ? part.length + 1 : 1;
    const text = part.startsWith('?') ? "`anonymous namespace'" : part;
    parts.push(text);
    if (!known.includes(text)) known.push(text);
  }
  // The rest has to be there: calling convention and types.
  return name.length > at + 1 ? parts : undefined;
}
