import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { beforeAll, describe, expect, it } from 'vitest';
import { DOCUMENTS, pathOf, withOptions } from '../../scripts/options-docs.ts';
import { COMMAND_NAMES, SHELLS } from '../../src/cli/command-table.ts';
import { CONFIG_KEYS } from '../../src/cli/config.ts';
import { describeCommands } from '../../src/cli/describe.ts';
import { renderHelp } from '../../src/cli/help.ts';
import { renderCompletion } from '../../src/cli/shell/completion.ts';
import { renderManuals } from '../../src/cli/shell/manual.ts';
import { OPTIONS, type OptionName, ROWS, rowsOf } from '../../src/options/table.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
// Names of style sheets' variables look like options.
const SOURCES = readdirSync(join(ROOT, 'src'), { recursive: true, encoding: 'utf8' }).filter(
  (file) => file.endsWith('.ts') && !file.startsWith(join('cli', 'html')),
);

/** Options of other programs, which hints and comments name. */
const OF_OTHERS = new Set(['memory-only', 'split', 'reassemble', 'long', 'filename']);

/** Options as they are named in text. */
const named = (text: string): string[] =>
  [...text.matchAll(/(?<![\w-])--(?:no-)?([a-z][a-z-]*[a-z])/g)].map((m) => m[1]!);

describe('the table of options', () => {
  it('has every option that the sources name', () => {
    const unknown = SOURCES.flatMap((file) =>
      named(readFileSync(join(ROOT, 'src', file), 'utf8'))
        .filter((name) => !(name in OPTIONS) && !['help', 'version', 'no'].includes(name) && !OF_OTHERS.has(name))
        .map((name) => `${file}: --${name}`),
    );
    expect(unknown).toEqual([]);
  });

  it('is consistent: conflicts and needs name rows, aliases are unique, defaults are choices', () => {
    for (const [name, row] of ROWS) {
      for (const conflict of row.conflicts ?? []) {
        const other = ROWS.find(([known]) => known === conflict.with)?.[1];
        expect(other, `${name} conflicts with ${conflict.with}`).toBeDefined();
        for (const value of conflict.values ?? []) expect(other?.kind === 'choice' && other.choices).toContain(value);
      }
      if (row.needs !== undefined) expect(Object.keys(OPTIONS)).toContain(row.needs);
      if (row.kind === 'choice' && row.default !== undefined) expect(row.choices).toContain(row.default);
      for (const command of Object.keys(row.helpFor ?? {})) expect(row.commands).toContain(command);
      expect(row.commands.length + row.calls.length).toBeGreaterThan(0);
      expect(row.help, name).not.toMatch(/\.$|^[A-Z][a-z]+ /);
    }
    for (const command of COMMAND_NAMES) {
      const aliases = rowsOf(command).flatMap(([, { alias }]) => alias ?? []);
      expect(new Set(aliases).size).toBe(aliases.length);
    }
  });
});

describe('every option is in', () => {
  let texts: Record<string, (command: (typeof COMMAND_NAMES)[number]) => string>;
  beforeAll(() => {
    const all = describeCommands();
    const options = readFileSync(join(ROOT, 'docs', 'options.md'), 'utf8');
    const section = (command: string) =>
      options
        .split(/^## /m)
        .find((part) => part.startsWith(command === 'convert' ? 'elf2dmp\n' : `elf2dmp ${command}\n`)) ?? '';
    texts = {
      help: (command) => renderHelp(command, 80),
      manual: (command) =>
        renderManuals(all.filter(({ name }) => name === command))[0]!
          .text.replaceAll('\\-', '-')
          .replaceAll(/\\f./g, ''),
      'docs/options.md': section,
      ...Object.fromEntries(
        SHELLS.map((shell) => [shell, () => renderCompletion(shell, all).replaceAll(' -l ', ' --')]),
      ),
    };
  });

  it.each(['help', 'manual', 'docs/options.md', ...SHELLS])('%s', (where) => {
    for (const command of COMMAND_NAMES) {
      const found = new Set(named(texts[where]!(command)));
      for (const [name] of rowsOf(command)) expect(found, `${where} of ${command}`).toContain(name);
    }
  });

  it('README, for the conversion, and the documents are up to date', () => {
    for (const document of DOCUMENTS) {
      const text = readFileSync(pathOf(document), 'utf8');
      // Otherwise: npm run docs
      expect(text).toBe(withOptions(document, text));
    }
    const found = new Set(named(readFileSync(join(ROOT, 'README.md'), 'utf8')));
    for (const [name] of rowsOf('convert')) expect(found).toContain(name);
  });

  it("a batch's configuration, if a batch has it and the command line is not the only place for it", () => {
    const onlyCommandLine: OptionName[] = [
      ...([
        'fail-fast',
        'recheck',
        'retry-failed',
        'shard',
        'dry-run',
        'space-check',
        'progress',
        'json',
        'quiet',
        'verbose',
      ] as const),
    ];
    const wanted = rowsOf('batch')
      .map(([name]) => name)
      .filter((name) => !onlyCommandLine.includes(name));
    expect([...CONFIG_KEYS.top, ...CONFIG_KEYS.options]).toEqual(expect.arrayContaining(wanted));
    const guide = readFileSync(join(ROOT, 'docs', 'batch.md'), 'utf8');
    for (const key of [...CONFIG_KEYS.top, ...CONFIG_KEYS.options]) expect(guide).toMatch(new RegExp(`\\b${key}\\b`));
  });

  it('is shown in no more columns than a terminal has', () => {
    for (const width of [60, 80, 120]) {
      for (const command of COMMAND_NAMES) {
        // Command lines, and what they are for, are not broken.
        const wide = renderHelp(command, width)
          .split('\n')
          .filter((line) => line.length > width && !/elf2dmp |^ {2}# /.test(line));
        expect(wide).toEqual([]);
      }
    }
  });
});
