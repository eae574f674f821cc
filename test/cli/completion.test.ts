import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { SHELLS } from '../../src/cli/command-table.ts';
import { type CommandHelp, describeCommands } from '../../src/cli/describe.ts';
import { renderCompletion } from '../../src/cli/shell/completion.ts';
import { renderManuals } from '../../src/cli/shell/manual.ts';
import { programsAvailable } from '../support/programs.ts';

let dir: string;
let commands: CommandHelp[];
const scripts: Record<string, string> = {};
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'elf2dmp-completion-'));
  commands = describeCommands();
  for (const shell of SHELLS) {
    scripts[shell] = join(dir, shell);
    writeFileSync(scripts[shell], renderCompletion(shell, commands));
  }
  writeFileSync(join(dir, 'vm.elf'), '');
  mkdirSync(join(dir, 'dumps'));
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

/**
 * Presses tab in a shell of its own, behind the line $3, and writes the matches to $2. Its line editor says when it is there:
 * before, the terminal itself would take the key that clears the line, and lose what was typed.
 */
const ZSH_SESSION = `
zmodload zsh/zpty
zpty z zsh -f -i
zpty -w z 'PROMPT=; autoload -Uz compinit; compinit -u -D; source '\${(q)1}'
compadd() { local -a m; builtin compadd -O m "$@"; (( $#m )) && print -rl -- $m >> '\${(q)2}'; builtin compadd "$@" }
zle-line-init() { print REA""DY }; zle -N zle-line-init'
zpty -r z out '*READY*'
zpty -w -n z "$3"$'\\t'
zpty -w z $'\\025print DO""NE'
zpty -r z out '*DONE*'
zpty -d z
`;

function lines(program: string, ...args: string[]): string[] {
  const { status, stdout, stderr, error } = spawnSync(program, args, { encoding: 'utf8', cwd: dir });
  if (status !== 0) throw error ?? new Error(stderr);
  return stdout.split('\n').filter((line) => line !== '');
}

describe('completion', () => {
  const bash = (...words: string[]) =>
    lines(
      'bash',
      '-c',
      `source "$0"; COMP_WORDS=(elf2dmp "$@"); COMP_CWORD=$#; _elf2dmp 2>/dev/null; printf '%s\\n' "\${COMPREPLY[@]}"`,
      scripts['bash']!,
      ...words,
    );

  it('knows every option of every command, in bash', () => {
    expect(commands.map((c) => c.name)).toEqual(expect.arrayContaining(['convert', 'stack', 'completion']));
    for (const { name, options } of commands) {
      const expected = options.flatMap((o) => o.names).sort();
      expect(expected.length).toBeGreaterThan(2);
      expect(bash(...(name === 'convert' ? [] : [name]), '-').sort()).toEqual(expected);
    }
  });

  it('completes commands, files, values and directories, in bash', () => {
    expect(bash('sta')).toEqual(['stack']);
    expect(bash('vm')).toEqual(['vm.elf']);
    expect(bash('--type', 'b')).toEqual(['bitmap']);
    expect(bash('--type', '=')).toEqual(['auto', 'full', 'bitmap', 'kernel', 'active', 'triage']);
    expect(bash('--type', '=', 'f')).toEqual(['full']);
    expect(bash('--compress', '=', 'z')).toEqual(['zstd']);
    expect(bash('--report', 'v')).toEqual(['vm.elf']);
    expect(bash('--spool', '')).toEqual(['dumps']);
    expect(bash('--dtb', 'v')).toEqual([]);
    expect(bash('info', '--symbols', 'd')).toEqual(['dumps']);
    expect(bash('batch', '--out', '')).toEqual(['dumps']);
    expect(bash('doctor', '')).toEqual(['dumps']);
    expect(bash('help', 'inf')).toEqual(['info']);
    expect(bash('vm.elf', 'vm.dmp', '--no-p')).toEqual(['--no-patch']);
    expect(bash('stack', '--no-p')).toEqual([]);
    expect(bash('stack', '--context', 'ca')).toEqual(['captured']);
    expect(bash('completion', '')).toEqual([...SHELLS]);
    // What the function leaves empty, bash takes for file names.
    expect(bash('stack', '')).toEqual([]);
  });

  describe.skipIf(!programsAvailable({ fish: 'fish', zsh: 'zsh' }))('in other shells', () => {
    it('completes the same in fish', () => {
      const fish = (line: string) =>
        lines(
          'fish',
          '--no-config',
          '-c',
          `source ${scripts['fish']}; complete -C ${JSON.stringify(`elf2dmp ${line}`)}`,
        ).map((found) => found.split('\t')[0]);
      expect(fish('sta')).toEqual(['stack']);
      expect(fish('--type b')).toEqual(['bitmap']);
      expect(fish('stack --c').sort()).toEqual(['--context', '--cpu']);
      expect(fish('--spool ')).toEqual(['dumps/']);
      expect(fish('--report v')).toEqual(['vm.elf']);
      expect(fish('--dtb v')).toEqual([]);
      expect(fish('stack --symbols d')).toEqual(['dumps/']);
      expect(fish('stack v')).toEqual(['vm.elf']);
      expect(fish('doctor ')).toEqual(['dumps/']);
      expect(fish('help st')).toEqual(['stack']);
      expect(fish('completion ').sort()).toEqual(['bash', 'fish', 'zsh']);
    });

    it('completes the same in zsh', () => {
      const zsh = (line: string) => {
        const found = join(dir, 'found');
        rmSync(found, { force: true });
        lines('zsh', '-f', '-c', ZSH_SESSION, 'zsh', scripts['zsh']!, found, `elf2dmp ${line}`);
        return existsSync(found) ? [...new Set(readFileSync(found, 'utf8').split('\n'))].filter(Boolean).sort() : [];
      };
      expect(zsh('sta')).toEqual(['stack']);
      expect(zsh('--type b')).toEqual(['bitmap']);
      expect(zsh('--spool ')).toEqual(['dumps']);
      expect(zsh('--report v')).toEqual(['vm.elf']);
      expect(zsh('stack --symbols d')).toEqual(['dumps']);
      expect(zsh('--dtb v')).toEqual([]);
      expect(zsh('batch --out ')).toEqual(['dumps']);
      expect(zsh('info v')).toEqual(['vm.elf']);
      expect(zsh('doctor ')).toEqual(['dumps']);
      expect(zsh('completion ')).toEqual(['bash', 'fish', 'zsh']);
    });

    it('is a function of zsh', () => {
      const load =
        'autoload -Uz compinit && compinit -u -D && source $1 && print $_comps[elf2dmp] && whence -w _elf2dmp';
      expect(lines('zsh', '-f', '-c', load, 'zsh', scripts['zsh']!)).toEqual(['_elf2dmp', '_elf2dmp: function']);
    });
  });
});

describe.skipIf(!programsAvailable({ groff: 'groff-base', mandoc: 'mandoc' }))('the manual pages', () => {
  const pages = renderManuals(describeCommands());

  it.each(pages.map(({ file, text }) => [file, text] as const))(
    '%s has all that the help has, and nobody finds fault with it',
    (file, source) => {
      const path = join(dir, file);
      writeFileSync(path, source);
      const { status, stdout, stderr } = spawnSync('groff', ['-man', '-ww', '-Tutf8', '-P-cbou', path], {
        encoding: 'utf8',
      });
      expect([status, stderr]).toEqual([0, '']);
      // It has no date: each build makes the same page.
      const lint = spawnSync('mandoc', ['-T', 'lint', '-W', 'warning', path], { encoding: 'utf8' }).stdout;
      expect(lint.split('\n').filter((line) => line !== '' && !line.includes('missing date'))).toEqual([]);
      const text = stdout.replaceAll(/\s+/g, ' ');
      const command = commands.find(({ name }) => file === (name === 'convert' ? 'elf2dmp.1' : `elf2dmp-${name}.1`))!;
      expect(text).toContain(command.summary.slice(1, 40));
      for (const { names } of command.options) expect(text).toMatch(new RegExp(` ${names.join(', ')}[ [=]`));
      for (const { name } of command.arguments) expect(text).toContain(` ${name} `);
      for (const [line] of command.examples) expect(text).toContain(line);
      expect(text).toContain('EXIT STATUS');
      expect(text).toContain(' 3 the dump was written, but something was lost');
    },
  );

  it('name files and variables, and each other', () => {
    const textOf = (file: string) => pages.find((page) => page.file === file)!.text;
    expect(textOf('elf2dmp.1')).toMatch(/^\.SH FILES$/m);
    expect(textOf('elf2dmp.1')).toContain('ELF2DMP_SYMBOL_PATH');
    expect(textOf('elf2dmp-batch.1')).toContain('OUTPUT.json');
    for (const { file } of pages.slice(1)) {
      expect(textOf('elf2dmp.1')).toContain(`.BR ${file.replace(/\.1$/, '').replaceAll('-', '\\-')} (1)`);
    }
  });
});
