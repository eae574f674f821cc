/** The manual pages, one for each command, made from the tables of commands and options. */

import { EXIT_CODE_HELP } from '../../core/exit-codes.ts';
import { VERSION } from '../../version.ts';
import type { CommandName } from '../command-table.ts';
import { type CommandHelp, optionSyntax } from '../describe.ts';

/** A page: `elf2dmp-info.1`. */
export interface ManualPage {
  file: string;
  /** In troff's man macros. */
  text: string;
}

/** A name, and what it is. */
type Entry = readonly [name: string, meaning: string];

const READERS = ['convert', 'batch', 'info', 'verify', 'stack'] as const;
const SYMBOLS: Entry = [
  'ELF2DMP_SYMBOL_PATH, _NT_SYMBOL_PATH',
  'where PDBs are, without --symbols; the first one counts, and servers in it are left out: nothing is fetched',
];
const TEMPORARY: Entry = ['TMPDIR', 'directory for the temporary file of compressed or piped input, without --spool'];

const FILES: Partial<Record<CommandName, readonly Entry[]>> = {
  convert: [
    [
      'OUTPUT',
      'appears when it is complete and on disk; until then it has no name or, where the file system cannot do without, one that ends in .part',
    ],
    ['FILE.elf2dmp-undo', 'with --in-place: the journal that --undo needs to restore FILE'],
  ],
  batch: [
    ['OUTPUT.json', 'beside each dump: how it was made, so that a rerun knows what is left'],
    ['OUTPUT.html, elf2dmp-index.html', 'with --html: a page for each dump, and an index of them'],
    ['.elf2dmp-batch*.lock', 'below --out while the batch runs: two batches do not write to one directory'],
  ],
};

const ENVIRONMENT: Partial<Record<CommandName, readonly Entry[]>> = {
  convert: [SYMBOLS],
  batch: [
    SYMBOLS,
    [
      'JOB_COMPLETION_INDEX, ELF2DMP_SHARDS, SLURM_ARRAY_TASK_ID, SLURM_ARRAY_TASK_COUNT, SLURM_ARRAY_TASK_MIN, SLURM_ARRAY_TASK_MAX',
      'the part of the inputs that this process converts, without --shard, in an Indexed Job of Kubernetes (with the number of parts in ELF2DMP_SHARDS) or a job array of Slurm',
    ],
  ],
  info: [SYMBOLS, TEMPORARY],
  verify: [TEMPORARY],
  stack: [SYMBOLS, TEMPORARY],
};

/** What the commands that take long do at signals. */
const SIGNALS: readonly Entry[] = [
  ['SIGUSR1, SIGUSR2', 'print to standard error how far the command is; it goes on'],
  ['SIGHUP, SIGINT, SIGQUIT, SIGTERM', 'stop the command, which leaves nothing behind; a second one ends it at once'],
];

/** Escapes everything that troff would interpret. */
function roff(text: string): string {
  return text
    .replaceAll('\\', '\\e')
    .replaceAll('-', '\\-')
    .replaceAll('`', '\\(ga')
    .replaceAll("'", '\\(aq')
    .replaceAll('~', '\\(ti')
    .replaceAll('^', '\\(ha')
    .replaceAll(/^\./gm, '\\&.');
}

const bold = (text: string) => `\\fB${roff(text)}\\fR`;

/** `elf2dmp-info` */
const pageName = (name: CommandName): string => (name === 'convert' ? 'elf2dmp' : `elf2dmp-${name}`);

/** All pages; `commands` begin with the conversion. */
export const renderManuals = (commands: readonly CommandHelp[]): ManualPage[] =>
  commands.map((command) => ({ file: `${pageName(command.name)}.1`, text: page(command, commands) }));

function page(command: CommandHelp, all: readonly CommandHelp[]): string {
  const { name, summary, arguments: positionals, options, examples } = command;
  const groups = [...new Set(options.map(({ group }) => group))];
  const others = all.filter((other) => other.name !== name);
  const named = others.filter((other) => other.name !== 'convert');
  return [
    `.TH ${pageName(name).toUpperCase()} 1 "" "elf2dmp ${VERSION}" "User Commands"`,
    `.SH NAME\n${roff(pageName(name))} \\- ${roff(headline(summary))}`,
    `.SH SYNOPSIS\n${synopsis(command)}`,
    `.SH DESCRIPTION\n${roff(summary)}`,
    ...(name === 'convert'
      ? ['.PP\nOther commands:', ...entries(named.map((c) => [`elf2dmp ${c.name}`, c.summary]))]
      : []),
    ...(positionals.length > 0 ? ['.SH ARGUMENTS', ...positionals.map(argument)] : []),
    '.SH OPTIONS',
    ...groups.flatMap((group) => [
      `.SS "${group}"`,
      ...options.filter((option) => option.group === group).map(optionEntry),
    ]),
    `.SH EXAMPLES`,
    ...examples.map(([line, meaning]) => `.TP\n${bold(line)}\n${roff(meaning)}`),
    ...section('FILES', FILES[name]),
    ...section('ENVIRONMENT', ENVIRONMENT[name]),
    ...section('SIGNALS', READERS.some((reader) => reader === name) ? SIGNALS : []),
    '.SH "EXIT STATUS"',
    ...exitCodes(),
    `.SH "SEE ALSO"\n${others.map((other) => `.BR ${roff(pageName(other.name))} (1)`).join(',\n')}`,
    ...(READERS.some((reader) => reader === name) ? ['.PP\nThe documents of the package, docs/tour.md first.'] : []),
    '',
  ].join('\n');
}

/** As a phrase: without a capital and a full stop. */
const headline = (summary: string): string => summary.charAt(0).toLowerCase() + summary.slice(1).replace(/\.$/, '');

const synopsis = ({ usage }: CommandHelp): string =>
  usage.map((line) => roff(line).replace(/^elf2dmp( [a-z]+)?/, (name) => `\\fB${name}\\fR`)).join('\n.br\n');

const argument = ({ name, help }: CommandHelp['arguments'][number]): string =>
  `.TP\n\\fI${roff(name)}\\fR\n${roff(help)}`;

function optionEntry(option: CommandHelp['options'][number]): string {
  const value = optionSyntax(option).slice(option.names.join(', ').length);
  return `.TP\n${option.names.map(bold).join(', ')}${roff(value)}\n${roff(option.text)}`;
}

const entries = (rows: readonly Entry[]): string[] => rows.map(([name, text]) => `.TP\n${bold(name)}\n${roff(text)}`);

const section = (title: string, rows: readonly Entry[] = []): string[] =>
  rows.length > 0 ? [`.SH ${title}`, ...entries(rows)] : [];

/** The lines of the help, each with its code. */
const exitCodes = (): string[] =>
  entries(
    EXIT_CODE_HELP.split('\n')
      .slice(1)
      .map((line): Entry => {
        const [, codes = '', meaning = ''] = /^\s*([\d, ]+?)\s{2,}(.*)$/.exec(line) ?? [];
        return [codes, meaning];
      }),
  );
