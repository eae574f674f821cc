/** The manual page, made from the tables of commands and options. */
import { VERSION } from '../../version.ts';
import { type CommandHelp, optionSyntax } from '../describe.ts';
import { EXIT_CODE_HELP } from '../exit-codes.ts';

const bold = (text: string) => `\\fB${roff(text)}\\fR`;

/** Escapes everything that troff would interpret. */
function roff(text: string): string {
  return text
    .replaceAll('\\', '\\e')
    .replaceAll('-', '\\-')
    .replaceAll('`', '\\(ga')
    .replaceAll(/^([.'])/gm, '\\&$1');
}

/** The page in troff's man macros; `commands` begin with the conversion. */
export function renderManual(commands: readonly CommandHelp[]): string {
  const [standard, ...named] = commands;
  if (!standard) throw new Error('there is no command to make a manual for');
  return `.TH ELF2DMP 1 "" "elf2dmp ${VERSION}" "User Commands"
.SH NAME
elf2dmp \\- turn the memory of a Windows virtual machine into a crash dump for WinDbg
.SH SYNOPSIS
${commands.map(synopsis).join('\n.br\n')}
.SH DESCRIPTION
${roff(standard.summary)}
.SH OPTIONS
${entries(standard)}.SH COMMANDS
${named.map((c) => `.SS ${synopsis(c)}\n${roff(c.summary)}\n${entries(c)}`).join('')}.SH EXAMPLES
${commands.flatMap((c) => c.examples.map(([line, meaning]) => `.TP\n${bold(line)}\n${roff(meaning)}\n`)).join('')}.SH "EXIT STATUS"
.nf
${roff(EXIT_CODE_HELP.replace(/^Exit codes:\n/, ''))}
.fi
`;
}

const synopsis = ({ usage }: CommandHelp): string =>
  usage.map((line) => roff(line).replace(/^elf2dmp( [a-z]+)?/, (name) => `\\fB${name}\\fR`)).join('\n.br\n');

const entries = ({ arguments: positionals, options }: CommandHelp): string =>
  [
    ...positionals.map(({ name, help }) => `.TP\n\\fI${roff(name)}\\fR\n${roff(help)}\n`),
    ...options.map((option) => {
      const names = option.names.join(', ');
      const value = optionSyntax(option).slice(names.length);
      return `.TP\n${option.names.map(bold).join(', ')}${roff(value)}\n${roff(option.text)}\n`;
    }),
  ].join('');
