/** Shell completions, made from the help. They need no program while they complete. */
import type { CommandHelp, OptionHelp } from '../help-text.ts';

export const SHELLS = ['bash', 'zsh', 'fish'] as const;
type Shell = (typeof SHELLS)[number];

export const renderCompletion = (shell: Shell, commands: readonly CommandHelp[]): string => RENDER[shell](commands);

const RENDER: Record<Shell, (commands: readonly CommandHelp[]) => string> = { bash, zsh, fish };

const words = (commands: readonly CommandHelp[]) => commands.map((c) => c.name).filter((name) => name !== '');
const wantsDirectory = (option: OptionHelp) => /^director/.test(option.text);

/** In single quotes, for any of the shells. */
const quote = (text: string) => `'${text.replaceAll("'", "'\\''")}'`;

function bash(commands: readonly CommandHelp[]): string {
  const valued = commands.flatMap((c) =>
    c.options
      .filter((o) => o.choices.length > 0 || wantsDirectory(o))
      .map((o) => {
        const patterns = o.names.map((name) => `"${c.name} ${name}"`).join(' | ');
        const how = wantsDirectory(o) ? '-d' : `-W ${quote(o.choices.join(' '))}`;
        return `    ${patterns}) COMPREPLY=($(compgen ${how} -- "$cur")) && return ;;\n`;
      }),
  );
  const perCommand = commands.map(
    (c) =>
      `    ${c.name === '' ? "''" : c.name}) options=${quote(c.options.flatMap((o) => o.names).join(' '))} values=${quote(c.positionals.flatMap((p) => p.choices).join(' '))} ;;\n`,
  );
  const names = words(commands);
  return `# elf2dmp's completion for bash: source <(elf2dmp completion bash)
_elf2dmp() {
  local cur=\${COMP_WORDS[COMP_CWORD]} prev=\${COMP_WORDS[COMP_CWORD - 1]} command= options= values=
  # bash makes a word of the = in --type=full
  if [ "$cur" = = ]; then cur=
  elif [ "$prev" = = ]; then prev=\${COMP_WORDS[COMP_CWORD - 2]}; fi
  if [ "$COMP_CWORD" -gt 1 ]; then
    case \${COMP_WORDS[1]} in ${names.join(' | ')}) command=\${COMP_WORDS[1]} ;; esac
  fi
  case "$command $prev" in
${valued.join('')}  esac
  case $command in
${perCommand.join('')}  esac
  if [[ $cur == -* ]]; then
    COMPREPLY=($(compgen -W "$options" -- "$cur"))
  elif [ -n "$values" ]; then
    COMPREPLY=($(compgen -W "$values" -- "$cur"))
  elif [ "$COMP_CWORD" = 1 ]; then
    compopt -o filenames
    mapfile -t COMPREPLY < <(compgen -W ${quote(names.join(' '))} -- "$cur"; compgen -f -- "$cur")
  fi
}
complete -o default -F _elf2dmp elf2dmp
`;
}

function zsh(commands: readonly CommandHelp[]): string {
  const describe = (text: string) => text.replaceAll(/[[\]\\]/g, '').replaceAll(':', ';');
  const values = (o: OptionHelp) => {
    if (o.choices.length > 0) return `(${o.choices.join(' ')})`;
    return wantsDirectory(o) ? '_files -/' : ' ';
  };
  const option = (o: OptionHelp) => {
    const value = o.takesValue ? `:value:${values(o)}` : '';
    const exclusive = o.names.length > 1 ? `(${o.names.join(' ')})` : '';
    return o.names.map((name) => {
      const equals = o.takesValue && name.startsWith('--') ? '=' : '';
      return quote(`${exclusive}${name}${equals}[${describe(o.text)}]${value}`);
    });
  };
  const specs = (c: CommandHelp) => [
    ...c.options.flatMap(option),
    ...c.positionals.map((p) => quote(`:${p.name}:${p.choices.length > 0 ? `(${p.choices.join(' ')})` : '_files'}`)),
  ];
  const body = (c: CommandHelp) => `_arguments -s -S \\\n      ${specs(c).join(' \\\n      ')}`;
  const named = commands.filter((c) => c.name !== '');
  const standard = commands.filter((c) => c.name === '');
  return `#compdef elf2dmp
# elf2dmp's completion for zsh: source <(elf2dmp completion zsh)
_elf2dmp() {
  local -a commands=(${named.map((c) => quote(`${c.name}:${describe(c.summary)}`)).join(' ')})
  if (( CURRENT == 2 )) && [[ $words[2] != -* ]]; then _describe -t commands command commands; fi
  case $words[2] in
${named.map((c) => `    ${c.name})\n      words=("\${(@)words[2,-1]}"); (( CURRENT-- ))\n      ${body(c)} ;;\n`).join('')}    *)
      ${standard.map(body).join('')} ;;
  esac
}
compdef _elf2dmp elf2dmp
`;
}

function fish(commands: readonly CommandHelp[]): string {
  const names = words(commands).join(' ');
  const argument = (o: OptionHelp) => {
    if (o.choices.length > 0) return ` -x -a ${quote(o.choices.join(' '))}`;
    if (wantsDirectory(o)) return " -x -a '(__fish_complete_directories)'";
    return o.takesValue ? ' -x' : '';
  };
  const lines = commands.flatMap((c) => {
    const when = c.name === '' ? `not __fish_seen_subcommand_from ${names}` : `__fish_seen_subcommand_from ${c.name}`;
    const options = c.options.map((o) => {
      const flags = o.names.map((name) => (name.startsWith('--') ? `-l ${name.slice(2)}` : `-s ${name.slice(1)}`));
      return `complete -c elf2dmp -n ${quote(when)} ${flags.join(' ')}${argument(o)} -d ${quote(o.text)}\n`;
    });
    const values = c.positionals.flatMap((p) => p.choices);
    const positional =
      values.length > 0 ? [`complete -c elf2dmp -n ${quote(when)} -f -a ${quote(values.join(' '))}\n`] : [];
    const self =
      c.name === '' ? [] : [`complete -c elf2dmp -n __fish_use_subcommand -a ${c.name} -d ${quote(c.summary)}\n`];
    return [...self, ...options, ...positional];
  });
  return `# elf2dmp's completion for fish: elf2dmp completion fish | source\n${lines.join('')}`;
}
