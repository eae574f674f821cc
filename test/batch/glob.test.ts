import { describe, expect, it } from 'vitest';
import { isGlob, matcher } from '../../src/batch/glob.ts';
import fc from '../support/properties.ts';

const matches = (pattern: string, path: string, hidden = false) => matcher(pattern, { hidden })(path);

describe('globs', () => {
  it.each([
    ['*.elf', 'vm.elf', true],
    ['*.elf', 'a/vm.elf', false],
    ['**/*.elf', 'vm.elf', true],
    ['**/*.elf', 'a/b/vm.elf', true],
    ['a/**', 'a/b/c', true],
    ['a/**/c', 'a/c', true],
    ['a/**/b/**/c', 'a/x/b/y/b/c', true],
    ['?.elf', 'ä.elf', true],
    ['vm[0-9x].elf', 'vm7.elf', true],
    ['vm[!0-9].elf', 'vm7.elf', false],
    ['{a,b{1,2}}.elf', 'b2.elf', true],
    ['{a}.elf', '{a}.elf', true],
    ['a\\*b', 'a*b', true],
    ['a\\*b', 'axb', false],
    ['*', '.hidden', false],
    ['.h*', '.hidden', true],
    ['**/x', '.git/x', false],
    ['', '', true],
    ['*a*b', 'aab', true],
  ])('%j and %j: %j', (pattern, path, expected) => {
    expect(matches(pattern, path)).toBe(expected);
    if (expected) expect(matches(pattern, path, true)).toBe(true);
  });

  it('are matched in time that grows with the name, not with a power of it', () => {
    const name = 'a'.repeat(20_000);
    expect(matches('*a*a*a*a*a*a*a*a*b', name)).toBe(false);
    expect(matches('**/a/**/a/**/a/**/b', name.split('').join('/'))).toBe(false);
    expect(() => matcher('{a,b}'.repeat(20), { hidden: true })).toThrow('too many alternatives');
    expect(() => matcher('[a', { hidden: true })).toThrow('without its ]');
    expect(() => matcher('+(a)', { hidden: true })).toThrow('not known');
  });

  it('agree with a naive matcher', () => {
    const naive = (p: string, s: string): boolean => {
      if (p === '') return s === '';
      if (p[0] === '*') return naive(p.slice(1), s) || (s !== '' && naive(p, s.slice(1)));
      return s !== '' && (p[0] === '?' || p[0] === s[0]) && naive(p.slice(1), s.slice(1));
    };
    const text = (of: string) => fc.string({ unit: fc.constantFrom(...of), maxLength: 8 });
    fc.assert(fc.property(text('ab*?'), text('ab'), (p, s) => matches(p, s, true) === naive(p, s)));
  });

  it('are told from names', () => {
    expect(['vm.elf', 'a\\*b', '*.elf', 'vm?.elf', '{a,b}', '[ab]'].map(isGlob)).toEqual([
      false,
      false,
      true,
      true,
      true,
      true,
    ]);
  });
});
