/** The text of `--help` as data: what shell completions and the manual page are made from. */

export interface OptionHelp {
  /** As they are typed: `-f`, `--force`; `--no-patch` of an option that is on by default. */
  names: readonly string[];
  text: string;
  takesValue: boolean;
  /** Empty where any value goes. */
  choices: readonly string[];
}

export interface PositionalHelp {
  name: string;
  text: string;
  choices: readonly string[];
}

export interface CommandHelp {
  /** Empty for the one that needs no word of its own. */
  name: string;
  /** `elf2dmp stack <file>` */
  usage: string;
  summary: string;
  positionals: readonly PositionalHelp[];
  options: readonly OptionHelp[];
  /** Behind the options. */
  epilogue: string;
}

/** Reads the help of one command, with every entry on one line. */
export function parseHelp(name: string, help: string): CommandHelp {
  const [usage = '', summary = '', ...rest] = help.split('\n\n');
  const sections = new Map<string, string[]>();
  const other: string[] = [];
  for (const block of rest) {
    const [title, ...lines] = block.split('\n');
    if (SECTIONS.includes(title!)) sections.set(title!, lines);
    else other.push(block);
  }
  const entries = (title: string) => (sections.get(title) ?? []).flatMap((line) => parseEntry(line) ?? []);
  return {
    name,
    usage,
    summary: summary.replaceAll('\n', ' '),
    positionals: entries('Positionals:').map(({ head, text, notes }) => ({
      name: head,
      text,
      choices: choices(notes),
    })),
    options: entries('Options:').map(({ head, text, notes }) => {
      const on = notes.includes('[default: true]');
      const names = head.split(', ').map((option) => (on ? option.replace(/^--/, '--no-') : option));
      return {
        names,
        // `--no-patch leaves …` is told of --patch.
        text: on && text.startsWith(`${names.at(-1)} `) ? text.slice(names.at(-1)!.length + 1) : text,
        takesValue: notes.some((note) => note === '[string]' || note.startsWith('[choices:')),
        choices: choices(notes),
      };
    }),
    epilogue: other.join('\n\n'),
  };
}

/** Names of the commands that the help lists, but for the default one. */
export function commandNames(help: string): string[] {
  const [, list = ''] = /^Commands:\n((?: .*\n)+)/m.exec(help) ?? [];
  return [...list.matchAll(/^ +\S+ ([a-z][a-z-]*)\b/gm)].map((match) => match[1]!);
}

const SECTIONS = ['Commands:', 'Positionals:', 'Options:'];

/** `  -f, --force    what it does  [boolean] [default: false]` */
function parseEntry(line: string): { head: string; text: string; notes: string[] } | undefined {
  const [, head, body] = /^ +(\S+(?:, \S+)*) {2,}(.*)$/.exec(line) ?? [];
  if (head === undefined || body === undefined) return undefined;
  const [, text = '', noted = ''] = /^(.*?)((?: +\[[^[\]]*\])*)$/.exec(body) ?? [];
  return { head, text: text.trim(), notes: noted.match(/\[[^[\]]*\]/g) ?? [] };
}

const choices = (notes: readonly string[]): string[] =>
  [...(notes.find((note) => note.startsWith('[choices:')) ?? '').matchAll(/"([^"]*)"/g)].map((match) => match[1]!);
