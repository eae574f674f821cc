import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { SHELLS } from '../../src/cli/command-table.ts';
import { type CommandHelp, describeCommands } from '../../src/cli/describe.ts';
import { renderCompletion } from '../../src/cli/shell/completion.ts';
import { renderManual } from '../../src/cli/shell/manual.ts';
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
      expect(fish('help st')).toEqual(['stack']);
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
    for (const { options, arguments: positionals, summary } of commands) {
      expect(text).toContain(summary.slice(0, 40));
      for (const { names } of options) expect(text).toMatch(new RegExp(` ${names.join(', ')}[ [=]`));
      for (const { name } of positionals) expect(text).toContain(` ${name} `);
    }
    expect(text).toContain('3 the dump was written, but something was lost');
  });
});
