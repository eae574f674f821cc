/** The text of `--help`. */

import { EXIT_CODE_HELP } from '../core/exit-codes.ts';
import { COMMAND_NAMES, COMMANDS, type CommandName } from './command-table.ts';
import { describeCommand, optionSyntax } from './describe.ts';

/** The second column; longer entries in the first get a line of their own. */
const COLUMN = 26;

/** A command's help, wrapped to the terminal's width. */
export function renderHelp(name: CommandName, columns: number | undefined): string {
  const width = Math.min(Math.max(columns ?? 100, 60), 120);
  const { usage, summary, arguments: positionals, options, examples } = describeCommand(name);
  const section = (title: string, rows: readonly (readonly [string, string])[]) =>
    rows.length === 0 ? [] : [`${title}:\n${rows.map(([head, text]) => entry(head, text, width)).join('\n')}`];
  const commands = name === 'convert' ? COMMAND_NAMES.filter((other) => other !== 'convert') : [];
  const groups = [...new Set(options.map(({ group }) => group))];
  return [
    usage.map((way, i) => `${i === 0 ? 'Usage: ' : '       '}${way}`).join('\n') +
      (commands.length > 0 ? '\n       elf2dmp COMMAND ...' : ''),
    wrap(summary, width).join('\n'),
    ...section(
      'Commands (elf2dmp help COMMAND describes one)',
      commands.map((other) => [other, COMMANDS[other].summary]),
    ),
    ...section(
      'Arguments',
      positionals.map(({ name: head, help }) => [head, help]),
    ),
    ...groups.flatMap((group) =>
      section(
        group,
        options.filter((option) => option.group === group).map((option) => [optionSyntax(option), option.text]),
      ),
    ),
    `Examples:\n${examples.map(([line, meaning]) => `  # ${meaning}\n  ${line}`).join('\n')}`,
    EXIT_CODE_HELP.split('\n')
      .flatMap((line) => hanging(line, width))
      .join('\n'),
  ].join('\n\n');
}

function entry(head: string, text: string, width: number): string {
  const lines = wrap(text, width - COLUMN);
  const first = `  ${head}`;
  const rest = lines.map((line) => `${' '.repeat(COLUMN)}${line}`);
  if (first.length + 2 > COLUMN) return [first, ...rest].join('\n');
  return [`${first.padEnd(COLUMN)}${lines[0] ?? ''}`, ...rest.slice(1)].join('\n');
}

/** A line of the exit codes: what goes on lies under its text. */
function hanging(line: string, width: number): string[] {
  const [head = ''] = /^ *[\d, ]*/.exec(line) ?? [];
  const lines = wrap(line.slice(head.length), width - head.length);
  return lines.map((text, i) => `${i === 0 ? head : ' '.repeat(head.length)}${text}`);
}

function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  for (const word of text.split(' ')) {
    const last = lines.at(-1);
    if (last !== undefined && last.length + 1 + word.length <= width) lines[lines.length - 1] = `${last} ${word}`;
    else lines.push(word);
  }
  return lines;
}
