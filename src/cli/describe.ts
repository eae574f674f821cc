/** Describes commands for the help, the manual page, shell completion and docs. */
import type { OptionRow } from '../options/row.ts';
import { rowsOf } from '../options/table.ts';
import {
  type ArgumentDeclaration,
  COMMAND_NAMES,
  COMMANDS,
  type CommandDeclaration,
  type CommandName,
} from './command-table.ts';

/** How a shell completes a value. */
export type Completion =
  | { kind: 'none' }
  | { kind: 'file' }
  | { kind: 'directory' }
  | { kind: 'words'; words: readonly string[] };

/** An option as a command's help shows it. */
export interface OptionHelp {
  /** As they are typed: `-f`, `--force`; `--no-patch` for an option that is on by default. */
  names: readonly string[];
  text: string;
  group: string;
  /** undefined for a flag. */
  value: { metavar: string; optional: boolean; completion: Completion } | undefined;
}

/** A command as its help shows it. */
export interface CommandHelp {
  name: CommandName;
  /** `elf2dmp info FILE [OPTION]...` */
  usage: readonly string[];
  summary: string;
  arguments: readonly ArgumentDeclaration[];
  options: readonly OptionHelp[];
  examples: CommandDeclaration['examples'];
}

const METAVARS: Record<Exclude<OptionRow['kind'], 'flag' | 'choice'>, string> = {
  file: 'FILE',
  directory: 'DIR',
  text: 'TEXT',
  physical: 'ADDRESS',
  virtual: 'ADDRESS',
  ranges: 'LIST',
  count: 'N',
};

/** All commands, the conversion first. */
export const describeCommands = (): CommandHelp[] => COMMAND_NAMES.map(describeCommand);

/** One command. */
export function describeCommand(name: CommandName): CommandHelp {
  const { usage, summary, arguments: positionals, examples } = COMMANDS[name];
  return {
    name,
    usage: usage.map((way) => `elf2dmp ${way}`),
    summary,
    arguments: positionals,
    options: [...rowsOf(name).map(([option, row]) => describeOption(name, option, row)), ...OF_EVERY_COMMAND],
    examples,
  };
}

const OF_EVERY_COMMAND: readonly OptionHelp[] = [
  { names: ['-h', '--help'], text: 'show this help', group: 'Messages', value: undefined },
  {
    names: ['--version'],
    text: "show elf2dmp's version; with --verbose also Node.js, koffi and the host",
    group: 'Messages',
    value: undefined,
  },
];

function describeOption(command: CommandName, name: string, row: OptionRow): OptionHelp {
  const typed = row.kind === 'flag' && row.default ? `--no-${name}` : `--${name}`;
  const text = row.helpFor?.[command] ?? row.help;
  const standard = row.kind === 'choice' && row.default !== undefined ? ` (default: ${row.default})` : '';
  return {
    names: row.alias === undefined ? [typed] : [`-${row.alias}`, typed],
    text: text + standard,
    group: row.group,
    value: describeValue(row),
  };
}

function describeValue(row: OptionRow): OptionHelp['value'] {
  switch (row.kind) {
    case 'flag':
      return undefined;
    case 'choice':
      return {
        metavar: row.choices.join('|'),
        optional: row.bare !== undefined,
        completion: { kind: 'words', words: row.choices },
      };
    case 'file':
    case 'directory':
      return { metavar: METAVARS[row.kind], optional: false, completion: { kind: row.kind } };
    default:
      return {
        metavar: ('metavar' in row ? row.metavar : undefined) ?? METAVARS[row.kind],
        optional: false,
        completion: { kind: 'completes' in row ? (row.completes ?? 'none') : 'none' },
      };
  }
}

/** `--type auto|full`, `--compress[=gzip|zstd]`, `-f, --force` */
export function optionSyntax({ names, value }: OptionHelp): string {
  const all = names.join(', ');
  if (!value) return all;
  return value.optional ? `${all}[=${value.metavar}]` : `${all} ${value.metavar}`;
}
