import { describe, expect, it } from 'vitest';
import yargs from 'yargs';
import { COMMAND_WORDS, commandHelp } from '../../src/cli/arguments.ts';
import { conversionOptions, PLAIN_CONVERSION } from '../../src/cli/commands/convert.ts';

describe('INPUT OUTPUT alone', () => {
  it('means without the parser what it means with it', async () => {
    const parsed = await conversionOptions(yargs().command('$0 [input] [output]', '')).parseAsync(['a', 'b']);
    const { _, $0, f, q, v, ...options } = parsed as Record<string, unknown>;
    const set = Object.entries(PLAIN_CONVERSION).filter(([, value]) => value !== undefined);
    const given = Object.entries(options).filter(
      ([name, value]) => value !== undefined && !/[A-Z]/.test(name) && name !== 'input' && name !== 'output',
    );
    expect(Object.fromEntries(given)).toEqual(Object.fromEntries(set));
  });

  it('leaves every other command to the parser', async () => {
    const names = (await commandHelp()).map(({ name }) => name).filter((name) => name !== '');
    expect([...COMMAND_WORDS].sort()).toEqual(names.sort());
  });
});
