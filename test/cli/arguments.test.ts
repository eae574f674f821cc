import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { parseArguments } from '../../src/cli/arguments.ts';
import { COMMAND_NAMES } from '../../src/cli/command-table.ts';
import { withDefaults } from '../../src/cli/job.ts';
import { parseWords } from '../../src/cli/parse.ts';
import type { Elf2dmpError } from '../../src/core/errors.ts';
import type { OptionRow } from '../../src/options/row.ts';
import { OPTIONS, rowsOf } from '../../src/options/table.ts';

/** A value as it is written, and what it becomes. */
const SAMPLES: Record<Exclude<OptionRow['kind'], 'flag' | 'choice'>, [text: string, value: unknown]> = {
  file: ['x', 'x'],
  directory: ['x', 'x'],
  text: ['x', 'x'],
  physical: ['1ad000', 0x1ad000],
  virtual: ['fffff800`12345000', 0xfffff80012345000n],
  ranges: [
    '0+3G,4G',
    [
      { start: 0, size: 3 * 2 ** 30 },
      { start: 4 * 2 ** 30, size: undefined },
    ],
  ],
  count: ['7', 7],
};

/** The option that a row needs, with a value that it takes. */
function neededBy({ needs }: OptionRow): string[] {
  if (needs === undefined) return [];
  const row: OptionRow = OPTIONS[needs as keyof typeof OPTIONS];
  return [`--${needs}=${row.kind === 'choice' ? row.choices.at(-1) : 'y'}`];
}

describe('the command line', () => {
  it('means without the parser what it means with it', () => {
    expect(parseWords(['a', 'b', '--'])).toEqual({
      command: 'convert',
      names: ['a', 'b'],
      raw: {},
      values: {},
      help: false,
      version: false,
    });
  });

  it('takes every option of every command, and gives its value', () => {
    for (const command of COMMAND_NAMES) {
      const words = command === 'convert' ? [] : [command];
      for (const [name, row] of rowsOf(command)) {
        const has = rowsOf(command).some(([other]) => other === row.needs);
        const needed = has ? neededBy(row) : [];
        const parse = (...given: string[]) =>
          withDefaults(command, parseWords([...words, ...needed, ...given]).values) as Record<string, unknown>;
        if (row.kind === 'flag') {
          expect(parse(`--${name}`)[name]).toBe(true);
          expect(parse(`--no-${name}`)[name]).toBe(false);
          expect(parse(`--${name}`, 'true')[name]).toBe(true);
          expect(parse(`--${name}=false`)[name]).toBe(false);
          expect(() => parse(`--${name}=maybe`)).toThrow(`--${name} takes no value but true or false`);
        } else {
          const [text, value] = row.kind === 'choice' ? [row.choices.at(-1)!, row.choices.at(-1)] : SAMPLES[row.kind];
          expect(parse(`--${name}=${text}`)[name]).toEqual(value);
          expect(() => parse(`--no-${name}`)).toThrow(`--no-${name}: there is only --${name}`);
          expect(() => parse(`--${name}=`)).toThrow(`--${name} needs a value`);
          if (row.kind === 'choice' && row.bare !== undefined) expect(parse(`--${name}`, 'x')[name]).toBe(row.bare);
          else {
            expect(parse(`--${name}`, text)[name]).toEqual(value);
            expect(() => parse(`--${name}`)).toThrow(`--${name} needs a value`);
            expect(() => parse(`--${name}`, '--json')).toThrow(`--${name} needs a value`);
          }
        }
        if (row.alias) expect(parse(`-${row.alias}`)[name]).toBe(true);
      }
    }
  });

  it.each([
    [['--vebrose', 'a', 'b'], '--vebrose is not an option', 'did you mean --verbose?'],
    [['info', '--no-pach', 'a'], '--no-pach is not an option', 'see elf2dmp info --help'],
    [['stack', '--type', 'full', 'a'], '--type is not an option of stack', 'see elf2dmp stack --help'],
    [['-x', 'a', 'b'], '-x is not an option', 'see elf2dmp --help'],
    [['--no-x', 'a', 'b'], '--no-x is not an option', 'see elf2dmp --help'],
    [['--no-patc', 'a', 'b'], '--no-patc is not an option', 'did you mean --no-patch?'],
    [['a', 'b', '-type', 'full'], '-type is not an option', 'did you mean --type?'],
    [['a', '-o', 'b'], '-o is not an option', 'OUTPUT is the second name: elf2dmp INPUT OUTPUT'],
    [['a', '-b.dmp'], '-b.dmp is not an option', './-b.dmp is a file of that name'],
    [
      ['--runs', '1+', 'a', 'b'],
      '--runs: expected a list of START+SIZE such as 0+3G,4G, found "1+"',
      'see elf2dmp --help',
    ],
    [
      ['stack', '--cpu=x', 'a'],
      '--cpu: expected a whole number from 0 to 99999, found "x"',
      'see elf2dmp stack --help',
    ],
    [['inof', 'vm.elf', '--json'], '"inof" is neither a command nor a file', 'did you mean elf2dmp info?'],
    [['--json', 'verfy', 'a'], '"verfy" is neither a command nor a file', 'did you mean elf2dmp verify?'],
    [['verify', '--patches=p', 'a'], '--patches needs --against', 'see elf2dmp verify --help'],
  ])('refuses %j', (words, message, hint) => {
    expect(() => parseWords(words)).toThrow(
      expect.objectContaining({ message, details: expect.objectContaining({ hint }) }),
    );
  });

  it('asks what a mistyped command meant, unless there is a file of that name', async () => {
    const hintOf = (...words: string[]) =>
      parseArguments(words).then(
        () => 'a conversion',
        (error: Elf2dmpError) => error.details.hint,
      );
    expect(await hintOf('inof', 'vm.dmp')).toBe('did you mean elf2dmp info?');
    expect(await hintOf('help', 'inof')).toBe('did you mean elf2dmp help info?');
    expect(await hintOf('vm.elf', 'vm.dmp')).toBe('a conversion');
    expect(await hintOf('./inof', 'vm.dmp')).toBe('a conversion');
    const dir = mkdtempSync(join(tmpdir(), 'elf2dmp-arguments-'));
    const before = process.cwd();
    try {
      writeFileSync(join(dir, 'inof'), '');
      process.chdir(dir);
      expect(await hintOf('inof', 'vm.dmp')).toBe('a conversion');
    } finally {
      process.chdir(before);
      rmSync(dir, { recursive: true });
    }
  });

  it('takes the last of an option that is given twice, names behind --, and a command behind options', () => {
    expect(parseWords(['--type=full', '--type', 'kernel', '-qv', '--', '-a', '--b', '-'])).toMatchObject({
      names: ['-a', '--b', '-'],
      values: { type: 'kernel', quiet: true, verbose: true },
    });
    expect(parseWords(['--json', 'info', 'a'])).toMatchObject({
      command: 'info',
      names: ['a'],
      values: { json: true },
    });
    expect(parseWords(['--cpu', '1', 'stack', 'a'])).toMatchObject({ command: 'stack', values: { cpu: 1 } });
    expect(parseWords(['verify', '--against', '-', 'a'])).toMatchObject({ values: { against: '-' } });
  });
});
