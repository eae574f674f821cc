import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { commandHelp } from '../../src/cli/arguments.ts';
import { type CommandHelp, commandNames, parseHelp } from '../../src/cli/help-text.ts';
import { renderCompletion, SHELLS } from '../../src/cli/shell/completion.ts';
import { renderManual } from '../../src/cli/shell/manual.ts';
import { programsAvailable } from '../support/programs.ts';

let dir: string;
let commands: CommandHelp[];
const scripts: Record<string, string> = {};
beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), 'elf2dmp-completion-'));
  commands = await commandHelp();
  for (const shell of SHELLS) {
    scripts[shell] = join(dir, shell);
    writeFileSync(scripts[shell], renderCompletion(shell, commands));
  }
  writeFileSync(join(dir, 'vm.elf'), '');
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

function lines(program: string, ...args: string[]): string[] {
  const { status, stdout, stderr, error } = spawnSync(program, args, { encoding: 'utf8', cwd: dir });
  if (status !== 0) throw error ?? new Error(stderr);
  return stdout.split('\n').filter((line) => line !== '');
}

const HELP = `elf2dmp thing <file>

Does a thing.

Commands:
  elf2dmp <input>       Converts.  [default]
  elf2dmp thing <file>  Does a thing.

Positionals:
  file  what [it] is about  [string] [required]

Options:
      --version  Show version number  [boolean]
  -q, --quiet    say less  [boolean] [default: false]
      --patch    --no-patch leaves it  [boolean] [default: true]
      --type     which: one, or another  [choices: "one", "other"] [default: "one"]
      --at       where  [string]

Exit codes:
    0  good`;

it('reads the help', () => {
  expect(commandNames(HELP)).toEqual(['thing']);
  const option = { takesValue: false, choices: [] };
  expect(parseHelp('thing', HELP)).toEqual({
    name: 'thing',
    usage: 'elf2dmp thing <file>',
    summary: 'Does a thing.',
    positionals: [{ name: 'file', text: 'what [it] is about', choices: [] }],
    options: [
      { ...option, names: ['--version'], text: 'Show version number' },
      { ...option, names: ['-q', '--quiet'], text: 'say less' },
      { ...option, names: ['--no-patch'], text: 'leaves it' },
      { names: ['--type'], text: 'which: one, or another', takesValue: true, choices: ['one', 'other'] },
      { ...option, names: ['--at'], text: 'where', takesValue: true },
    ],
    epilogue: 'Exit codes:\n    0  good',
  });
});

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
    expect(commands.map((c) => c.name)).toEqual(expect.arrayContaining(['', 'stack', 'completion']));
    for (const { name, options } of commands) {
      const expected = options.flatMap((o) => o.names).sort();
      expect(expected.length).toBeGreaterThan(2);
      expect(bash(...(name === '' ? [] : [name]), '-').sort()).toEqual(expected);
    }
  });

  it('completes commands, files, values and directories, in bash', () => {
    expect(bash('sta')).toEqual(['stack']);
    expect(bash('vm')).toEqual(['vm.elf']);
    expect(bash('--type', 'b')).toEqual(['bitmap']);
    expect(bash('--type', '=')).toEqual(['auto', 'full', 'bitmap', 'kernel', 'active']);
    expect(bash('--type', '=', 'f')).toEqual(['full']);
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
      expect(fish('completion ').sort()).toEqual(['bash', 'fish', 'zsh']);
    });

    it('is a function of zsh', () => {
      const load =
        'autoload -Uz compinit && compinit -u -D && source $1 && print $_comps[elf2dmp] && whence -w _elf2dmp';
      expect(lines('zsh', '-f', '-c', load, 'zsh', scripts['zsh']!)).toEqual(['_elf2dmp', '_elf2dmp: function']);
    });
  });
});

describe.skipIf(!programsAvailable({ groff: 'groff-base' }))('the manual page', () => {
  it('has all that the help has, and troff finds no fault with it', () => {
    const page = join(dir, 'elf2dmp.1');
    writeFileSync(page, renderManual(commands));
    const { status, stdout, stderr } = spawnSync('groff', ['-man', '-ww', '-Tutf8', '-P-cbou', page], {
      encoding: 'utf8',
    });
    expect([status, stderr]).toEqual([0, '']);
    const text = stdout.replaceAll(/\s+/g, ' ');
    for (const { options, positionals, summary } of commands) {
      expect(text).toContain(summary.slice(0, 40));
      for (const { names } of options) expect(text).toContain(` ${names.join(', ')} `);
      for (const { name } of positionals) expect(text).toContain(` ${name} `);
    }
    expect(text).toContain('3 the dump was written, with losses');
  });
});
