/** Shell completion scripts, made from the tables of commands and options. They complete without running elf2dmp. */
import { COMMAND_WORDS, type CommandName, type SHELLS } from '../command-table.ts';
import type { CommandHelp, Completion, OptionHelp } from '../describe.ts';

type Shell = (typeof SHELLS)[number];

/** The script for a shell; `commands` begin with the conversion. */
export const renderCompletion = (shell: Shell, commands: readonly CommandHelp[]): string => RENDER[shell](commands);

const RENDER: Record<Shell, (commands: readonly CommandHelp[]) => string> = { bash, zsh, fish };

/** First words: the commands, and `help`. */
const WORDS = [...COMMAND_WORDS];
const wordOf = (name: CommandName) => (name === 'convert' ? '' : name);
const argumentWords = (command: CommandHelp) => command.arguments.flatMap(({ choices = [] }) => choices);
const takesDirectory = (command: CommandHelp) => command.arguments.some(({ kind }) => kind === 'directory');
const wordsAfterHelp = WORDS.filter((word) => word !== 'help').join(' ');

/** In single quotes, for any of the shells. */
const quote = (text: string) => `'${text.replaceAll("'", "'\\''")}'`;

function bash(commands: readonly CommandHelp[]): string {
  const how = (completion: Completion): string => {
    if (completion.kind === 'words') return `compgen -W ${quote(completion.words.join(' '))}`;
    if (completion.kind === 'none') return ':';
    return `compgen ${completion.kind === 'directory' ? '-d' : '-f'}`;
  };
  const valued = commands.flatMap((command) =>
    command.options.flatMap(({ names, value }) => {
      // An optional value is never the next word.
      if (!value || value.optional) return [];
      const patterns = names.map((name) => `"${wordOf(command.name)} ${name}"`).join(' | ');
      const files = value.completion.kind === 'file' || value.completion.kind === 'directory';
      const option = files ? 'compopt -o filenames; ' : 'compopt +o default; ';
      return [`    ${patterns}) ${option}mapfile -t COMPREPLY < <(${how(value.completion)} -- "$cur"); return ;;\n`];
    }),
  );
  const optional = commands.flatMap((command) =>
    command.options.flatMap(({ names, value }) =>
      value?.optional
        ? names.map(
            (name) =>
              `    "${wordOf(command.name)} ${name}") [ "$equals" ] && mapfile -t COMPREPLY < <(${how(value.completion)} -- "$cur") && return ;;\n`,
          )
        : [],
    ),
  );
  const perCommand = commands.map((command) => {
    const options = command.options.flatMap((o) => o.names).join(' ');
    return `    ${wordOf(command.name) || "''"}) options=${quote(options)} values=${quote(argumentWords(command).join(' '))}${takesDirectory(command) ? ' directory=1' : ''} ;;\n`;
  });
  return `# elf2dmp's completion for bash: source <(elf2dmp completion bash)
_elf2dmp() {
  local cur=\${COMP_WORDS[COMP_CWORD]} prev=\${COMP_WORDS[COMP_CWORD - 1]} command= options= values= directory= equals=
  # bash makes a word of the = in --type=full
  if [ "$cur" = = ]; then cur= equals=1
  elif [ "$prev" = = ]; then prev=\${COMP_WORDS[COMP_CWORD - 2]} equals=1; fi
  if [ "$COMP_CWORD" -gt 1 ]; then
    case \${COMP_WORDS[1]} in ${WORDS.join(' | ')}) command=\${COMP_WORDS[1]} ;; esac
  fi
  case "$command $prev" in
${valued.join('')}${optional.join('')}  esac
  case $command in
${perCommand.join('')}    help) options= values=${quote(wordsAfterHelp)} ;;
  esac
  if [[ $cur == -* ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$options" -- "$cur")
  elif [ -n "$values" ]; then
    mapfile -t COMPREPLY < <(compgen -W "$values" -- "$cur")
  elif [ -n "$directory" ]; then
    compopt -o filenames
    mapfile -t COMPREPLY < <(compgen -d -- "$cur")
  elif [ "$COMP_CWORD" = 1 ]; then
    compopt -o filenames
    mapfile -t COMPREPLY < <(compgen -W ${quote(WORDS.join(' '))} -- "$cur"; compgen -f -- "$cur")
  fi
}
complete -o default -F _elf2dmp elf2dmp
`;
}

function zsh(commands: readonly CommandHelp[]): string {
  const describe = (text: string) => text.replaceAll(/[[\]\\]/g, '').replaceAll(':', ';');
  const action = (completion: Completion): string => {
    if (completion.kind === 'words') return `(${completion.words.join(' ')})`;
    if (completion.kind === 'none') return ' ';
    return completion.kind === 'directory' ? '_files -/' : '_files';
  };
  const assignment = ({ optional }: { optional: boolean }) => (optional ? '=-' : '=');
  const option = ({ names, value, text }: OptionHelp) => {
    const rest = value
      ? `:${value.metavar.split('|').length > 1 ? 'value' : value.metavar}:${action(value.completion)}`
      : '';
    const exclusive = names.length > 1 ? `(${names.join(' ')})` : '';
    return names.map((name) => {
      // =-: only behind the equals sign.
      const equals = value && name.startsWith('--') ? assignment(value) : '';
      return quote(`${exclusive}${name}${equals}[${describe(text)}]${value?.optional ? `:${rest}` : rest}`);
    });
  };
  const specs = (command: CommandHelp) => [
    ...command.options.flatMap(option),
    ...command.arguments.map(({ name, kind, choices = [] }) =>
      quote(`${kind === 'paths' ? '*' : ''}:${name}:${argumentAction(kind, choices)}`),
    ),
  ];
  const argumentAction = (kind: string, choices: readonly string[]): string => {
    if (choices.length > 0) return `(${choices.join(' ')})`;
    return kind === 'directory' ? '_files -/' : '_files';
  };
  const body = (command: CommandHelp) => `_arguments -s -S \\\n      ${specs(command).join(' \\\n      ')}`;
  const named = commands.filter(({ name }) => name !== 'convert');
  const standard = commands.filter(({ name }) => name === 'convert');
  const described = [
    ...named.map(({ name, summary }) => quote(`${name}:${describe(summary)}`)),
    quote('help:Describes a command.'),
  ];
  return `#compdef elf2dmp
# elf2dmp's completion for zsh: source <(elf2dmp completion zsh)
_elf2dmp() {
  local -a commands=(${described.join(' ')})
  if (( CURRENT == 2 )) && [[ $words[2] != -* ]]; then _describe -t commands command commands; fi
  case $words[2] in
${named.map((c) => `    ${c.name})\n      words=("\${(@)words[2,-1]}"); (( CURRENT-- ))\n      ${body(c)} ;;\n`).join('')}    help)
      (( CURRENT == 3 )) && compadd ${wordsAfterHelp} ;;
    *)
      ${standard.map(body).join('')} ;;
  esac
}
if [[ $funcstack[1] == _elf2dmp ]]; then _elf2dmp "$@"; else compdef _elf2dmp elf2dmp; fi
`;
}

function fish(commands: readonly CommandHelp[]): string {
  const action = (completion: Completion): string => {
    if (completion.kind === 'words') return ` -x -a ${quote(completion.words.join(' '))}`;
    if (completion.kind === 'directory') return " -x -a '(__fish_complete_directories)'";
    return completion.kind === 'file' ? ' -r -F' : ' -x';
  };
  const lines = commands.flatMap((command) => {
    const word = wordOf(command.name);
    const when =
      word === '' ? `not __fish_seen_subcommand_from ${WORDS.join(' ')}` : `__fish_seen_subcommand_from ${word}`;
    const options = command.options.map(({ names, value, text }) => {
      const flags = names.map((name) => (name.startsWith('--') ? `-l ${name.slice(2)}` : `-s ${name.slice(1)}`));
      // fish would take the next word for an optional value.
      const rest = value && !value.optional ? action(value.completion) : '';
      return `complete -c elf2dmp -n ${quote(when)} ${flags.join(' ')}${rest} -d ${quote(text)}\n`;
    });
    const values = argumentWords(command);
    const words = takesDirectory(command) ? "'(__fish_complete_directories)'" : quote(values.join(' '));
    const positional = words === "''" ? [] : [`complete -c elf2dmp -n ${quote(when)} -f -a ${words}\n`];
    const self =
      word === '' ? [] : [`complete -c elf2dmp -n __fish_use_subcommand -a ${word} -d ${quote(command.summary)}\n`];
    return [...self, ...options, ...positional];
  });
  lines.push(
    `complete -c elf2dmp -n __fish_use_subcommand -a help -d 'Describes a command.'\n`,
    `complete -c elf2dmp -n '__fish_seen_subcommand_from help' -f -a ${quote(wordsAfterHelp)}\n`,
  );
  return `# elf2dmp's completion for fish: elf2dmp completion fish | source\n${lines.join('')}`;
}
