/** The manual page, made from the help. */
import { VERSION } from '../../version.ts';
import type { CommandHelp } from '../help-text.ts';

const bold = (text: string) => `\\fB${roff(text)}\\fR`;

/** Text as it is: no character of it means anything to troff. */
function roff(text: string): string {
  return text
    .replaceAll('\\', '\\e')
    .replaceAll('-', '\\-')
    .replaceAll('`', '\\(ga')
    .replaceAll(/^([.'])/gm, '\\&$1');
}

export function renderManual(commands: readonly CommandHelp[]): string {
  const [standard, ...named] = commands;
  if (!standard) throw new Error('there is no help to make a manual of');
  const usage = (c: CommandHelp) =>
    c.usage
      .split('\n')
      .map((line) => roff(line).replace(/^elf2dmp( [a-z]+)?/, (name) => `\\fB${name}\\fR`))
      .join('\n.br\n');
  const entries = (c: CommandHelp) =>
    [
      ...c.positionals.map((p) => `.TP\n\\fI${roff(p.name)}\\fR\n${roff(p.text)}\n`),
      ...c.options.map((o) => {
        const value = o.choices.length > 0 ? o.choices.join('|') : 'VALUE';
        return `.TP\n${o.names.map(bold).join(', ')}${o.takesValue ? roff(` ${value}`) : ''}\n${roff(o.text)}\n`;
      }),
    ].join('');
  return `.TH ELF2DMP 1 "" "elf2dmp ${VERSION}" "User Commands"
.SH NAME
elf2dmp \\- turn the memory of a Windows virtual machine into a crash dump for WinDbg
.SH SYNOPSIS
${commands.map(usage).join('\n.br\n')}
.SH DESCRIPTION
${roff(standard.summary)}
.SH OPTIONS
${entries(standard)}.SH COMMANDS
${named.map((c) => `.SS ${usage(c)}\n${roff(c.summary)}\n${entries(c)}`).join('')}.SH "EXIT STATUS"
.nf
${roff(standard.epilogue.replace(/^Exit codes:\n/, ''))}
.fi
`;
}
