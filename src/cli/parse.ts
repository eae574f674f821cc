/** Splits a command line with yargs' parser and checks it against the table of options. */
import { Parser } from 'yargs/helpers';
import { STANDARD_STREAM } from '../options/choices.ts';
import type { OptionRow } from '../options/row.ts';
import { closest } from '../options/similar.ts';
import { OPTIONS, ROWS, rowsOf } from '../options/table.ts';
import { expectation, parseText, wrongValue } from '../options/values.ts';
import { type CommandName, isCommandWord } from './command-table.ts';
import { refuseMistyped } from './mistyped.ts';
import { seeHelp, wrongOption } from './usage.ts';

/** A parsed command line. */
export interface Given {
  command: CommandName;
  /** Its arguments, in order. */
  names: readonly string[];
  /** Options as they were written, by their names in the table. */
  raw: Readonly<Record<string, string | boolean>>;
  /** The same options as values. */
  values: Readonly<Record<string, unknown>>;
  help: boolean;
  version: boolean;
}

/** Words stay as written; of a repeated option the last counts. */
const CONFIGURATION = {
  'parse-numbers': false,
  'parse-positional-numbers': false,
  'dot-notation': false,
  'duplicate-arguments-array': false,
  'camel-case-expansion': false,
  'strip-aliased': true,
} as const;

/** Throws `Elf2dmpError` (kind `usage`). */
export function parseWords(argv: readonly string[]): Given {
  const { command, words } = commandOf(argv);
  const { parsed, error } = tokens(words, rowsOf(command), command);
  const { _: names, help, version, ...options } = parsed;
  const common = { command, names: names.map(String), help: help === true, version: version === true };
  if (common.help || common.version) {
    return { ...common, raw: {}, values: { verbose: options['verbose'] === true } };
  }
  if (error !== undefined) throw wrongOption('option-value', error, command);
  const raw: Record<string, string | boolean> = {};
  const values: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(options)) {
    if (value === undefined) continue;
    const [known, row] = rowsOf(command).find(([now, { former }]) => now === name || former === name) ?? [name];
    if (!row) throw unknownOption(command, { name, value, words });
    const written = writtenValue(command, name, row, value);
    raw[known] = written;
    values[known] = typeof written === 'boolean' ? written : parseText(row, written);
    if (values[known] === undefined) {
      throw wrongValue(`--${name}`, expectation(row), JSON.stringify(written), seeHelp(command));
    }
  }
  checkNeeds(command, values);
  checkStreams({ ...common, values });
  return { ...common, raw, values };
}

/** The command's word comes first, but for options. */
function commandOf(argv: readonly string[]): { command: CommandName; words: readonly string[] } {
  const [first, ...rest] = argv;
  if (isCommandWord(first)) return { command: first, words: rest };
  const word = String(tokens(argv, ROWS, 'convert').parsed._[0] ?? '');
  if (!isCommandWord(word)) {
    refuseMistyped(word);
    return { command: 'convert', words: argv };
  }
  const at = argv.indexOf(word);
  return { command: word, words: [...argv.slice(0, at), ...argv.slice(at + 1)] };
}

function tokens(words: readonly string[], rows: readonly (readonly [string, OptionRow])[], command: CommandName) {
  const flags = rows.filter(([, row]) => row.kind === 'flag').map(([name]) => name);
  const valued = rows
    .filter(([, row]) => row.kind !== 'flag')
    .flatMap(([name, { former }]) => (former === undefined ? [name] : [name, former]));
  const end = words.indexOf('--');
  const [before, after] = end < 0 ? [words, []] : [words.slice(0, end), words.slice(end)];
  const { argv, error: problem } = Parser.detailed(
    [...before.map((word) => spelledOut(word, rows, command)), ...after],
    {
      boolean: [...flags, 'help', 'version'],
      string: valued,
      narg: Object.fromEntries(valued.map((name) => [name, 1])),
      alias: {
        help: ['h'],
        ...Object.fromEntries(rows.flatMap(([name, { alias }]) => (alias ? [[name, [alias]]] : []))),
      },
      configuration: CONFIGURATION,
    },
  );
  // "Not enough arguments following: type"
  const error = problem?.message.replace(/^.*: (\S+)$/, '--$1 needs a value');
  return { parsed: argv as { _: (string | number)[] } & Record<string, unknown>, error };
}

/**
 * Adds the value to a flag, and to an option that may do without one, so that the parser does not take the next word.
 * Throws `Elf2dmpError` (kind `usage`) if a flag's value is neither true nor false.
 */
function spelledOut(word: string, rows: readonly (readonly [string, OptionRow])[], command: CommandName): string {
  const [, name = '', value] = /^--?([^=]+)(?:=(.*))?$/s.exec(word) ?? [];
  const row = rows.find(([known, { alias }]) => known === name || (alias !== undefined && alias === name))?.[1];
  if (row?.kind === 'flag') {
    if (value !== undefined && parseText(row, value) === undefined) {
      throw wrongOption(
        'option-value',
        `${word.slice(0, word.indexOf('='))} takes no value but true or false`,
        command,
      );
    }
    return value === undefined ? `${word}=true` : word;
  }
  return row?.kind === 'choice' && row.bare !== undefined && value === undefined ? `${word}=${row.bare}` : word;
}

function writtenValue(command: CommandName, name: string, row: OptionRow, value: unknown): string | boolean {
  if (typeof value === 'boolean' && row.kind === 'flag') return value;
  if (value === false) throw wrongOption('option-value', `--no-${name}: there is only --${name}`, command);
  if (typeof value !== 'string' || value === '') throw wrongOption('option-value', `--${name} needs a value`, command);
  return value;
}

interface Unknown {
  name: string;
  value: unknown;
  /** All words of the command line. */
  words: readonly string[];
}

function unknownOption(command: CommandName, { name, value, words }: Unknown) {
  const known = [...rowsOf(command).map(([option]) => option), 'help', 'version'];
  // With one hyphen the parser takes a word for several letters, or for a long option if it has a dot.
  const [written = '', single = ''] =
    words.map((word) => /^-([^-][^=]+)/.exec(word) ?? []).find(([, word]) => word?.includes(name)) ?? [];
  const meant = closest(single || name, known);
  if (meant !== undefined && (name.length > 1 || single !== ''))
    return wrongOption(
      'option-unknown',
      `${written || longName(name, value)} is not an option`,
      command,
      `did you mean ${longName(meant, value)}?`,
    );
  const elsewhere = name in OPTIONS ? ` of ${command === 'convert' ? 'a conversion' : command}` : '';
  const word = name.length === 1 && value !== false ? `-${name}` : written || longName(name, value);
  const message = `${word} is not an option${elsewhere}`;
  return wrongOption('option-unknown', message, command, hintOf(command, name, single));
}

const longName = (name: string, value: unknown): string => (value === false ? `--no-${name}` : `--${name}`);

function hintOf(command: CommandName, name: string, single: string): string | undefined {
  if (command === 'convert' && name === 'o') return 'OUTPUT is the second name: elf2dmp INPUT OUTPUT';
  return single.includes('.') ? `./-${single} is a file of that name` : undefined;
}

function checkNeeds(command: CommandName, values: Readonly<Record<string, unknown>>): void {
  const rows = rowsOf(command);
  for (const [name, { needs }] of rows) {
    const applies = needs !== undefined && rows.some(([other]) => other === needs);
    if (applies && values[name] !== undefined && values[needs] === undefined) {
      throw wrongOption('option-missing', `--${name} needs --${needs}`, command);
    }
  }
}

/** Refuses `-` where it means nothing, and two things for one stream. Throws `Elf2dmpError` (kind `usage`). */
function checkStreams({ command, names, values }: Pick<Given, 'command' | 'names' | 'values'>): void {
  const users = { input: argumentsOn('input', command, names), output: argumentsOn('output', command, names) };
  if (command === 'batch' && names.includes(STANDARD_STREAM)) {
    throw wrongOption('option-value', 'a batch reads files', command, 'convert standard input by `elf2dmp - OUTPUT`');
  }
  for (const [name, row] of rowsOf(command)) {
    if (values[name] !== STANDARD_STREAM || (row.kind !== 'file' && row.kind !== 'directory')) continue;
    const stream = row.streamFor?.[command] ?? row.stream;
    if (stream === undefined) {
      throw wrongOption('option-value', `--${name} needs a ${row.kind}, not -`, command, './- is one of that name');
    }
    users[stream].push(`--${name}`);
  }
  if (values['json'] === true) users.output.push('--json');
  for (const [stream, [first, second]] of Object.entries(users)) {
    if (second !== undefined) {
      throw wrongOption('option-value', `${first} and ${second} both use standard ${stream}`, command);
    }
  }
}

/** Arguments that are `-`. */
function argumentsOn(stream: 'input' | 'output', command: CommandName, names: readonly string[]): string[] {
  const at = stream === 'input' ? 0 : 1;
  if (command === 'batch' || names[at] !== STANDARD_STREAM) return [];
  return [stream === 'input' ? 'INPUT' : 'OUTPUT'];
}
