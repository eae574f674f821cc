import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readConfig } from '../../src/cli/config.ts';
import { Elf2dmpError } from '../../src/core/errors.ts';
import fc from '../support/properties.ts';

let file: string;
let dir: string;

beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'elf2dmp-config-'));
  file = join(dir, 'batch.toml');
});
afterAll(() => rmSync(dir, { recursive: true }));

describe('readConfig', () => {
  it('takes a file, or says what is wrong with it, whatever is in it', () => {
    const good = `inputs = ["a"]\njobs = 2\n[options]\ndtb = "0x1ad000"\nstrict = true\n[[override]]\nmatch = "*.elf"\noptions = { type = "full" }\n`;
    const piece = fc.constantFrom(
      '=',
      '[',
      ']',
      '"',
      '{',
      '}',
      '#',
      '\\',
      '\n',
      '\0',
      '99999999999999999999',
      'nan',
      '1979-05-27',
      '\u{1f4a9}',
      'out',
    );
    const change = fc.record({
      at: fc.nat(good.length),
      remove: fc.nat(8),
      put: fc.oneof(piece, fc.string({ maxLength: 6 })),
    });
    fc.assert(
      fc.property(fc.array(change, { minLength: 1, maxLength: 4 }), (changes) => {
        let text = good;
        for (const { at, remove, put } of changes) text = text.slice(0, at) + put + text.slice(at + remove);
        writeFileSync(file, text);
        try {
          readConfig(file);
        } catch (error) {
          expect(error).toBeInstanceOf(Elf2dmpError);
          expect((error as Elf2dmpError).kind).toBe('usage');
        }
      }),
      { numRuns: 500 },
    );
  });

  it('takes every key', () => {
    writeFileSync(
      file,
      `inputs = ["a"]
      manifest = "list"
      exclude = ["b"]
      out = "out"
      name = "{stem}.dmp"
      jobs = 2
      keep-going = false
      retries = 0
      force = true
      hash = true
      report = "r.jsonl"
      junit = "j.xml"
      [options]
      dtb = "0x1ad000"
      kernel-base = "fffff800\`12345000"
      strict = true
      [[override]]
      match = "*.elf"
      name = "x.dmp"
      options = { type = "full", reflink = "auto", ram = "windows", context = "cpu", format = "raw", runs = "0+1G", spool = "s", patch = false }`,
    );
    expect(readConfig(file)).toMatchObject({
      retries: 0,
      options: { dtb: '0x1ad000', strict: true },
      override: [{ match: '*.elf', options: { type: 'full', patch: false } }],
    });
  });

  it.each([
    ['jbs = 2', 'unknown key "jbs" in line 1 (did you mean "jobs"?)'],
    ['[options]\ncontxt = "cpu"', 'unknown key "options.contxt" in line 2 (did you mean "context"?)'],
    ['[options]\nruns = "1+"', 'key "options.runs" in line 2: expected a string with a list of START+SIZE'],
    ['jobs = "two"', 'key "jobs" in line 1: expected a whole number from 1 to 100000, found "two"'],
    ['[options]\ndtb = 4096', 'key "options.dtb" in line 2: expected a string with a hexadecimal address'],
    ['[options]\ntype = "mini"', 'key "options.type" in line 2: expected one of "auto", "full", '],
    [
      '[[override]]\nmatch = "a"\n[[override]]\nname = "b"',
      'key "override[1].match" in line 3: expected a string, found nothing',
    ],
    ['[[override]]\nmatch = "a"\noptions = { foo = 1 }', 'unknown key "override[0].options.foo" in line 3'],
    ['retries = 18446744073709551617', 'the number 18446744073709551617 in line 1 is too large'],
    ['# 1\nretries = 9_007_199_254_740_993', 'the number 9_007_199_254_740_993 in line 2 is too large'],
    ['jobs = 0xffff_ffff_ffff_ffff', 'the number 0xffff_ffff_ffff_ffff in line 1 is too large'],
    ['exclude = ["""\njbs = 1\n"""]\n\n  [ "options" ] # jbs = 1\n"jbs" = 1', 'unknown key "options.jbs" in line 6'],
    ['[options]\r\njbs = 1\r\n', 'unknown key "options.jbs" in line 2'],
    ['[[override]]\nmatch = "a"\n[override.options]\nfoo = 1', 'unknown key "override[0].options.foo" in line 4'],
    ['options.foo = 1', 'unknown key "options.foo" in line 1'],
    ['a = = 1', 'is not TOML in line 1: '],
  ])('refuses the configuration %j', (text, message) => {
    writeFileSync(file, text);
    expect(() => readConfig(file)).toThrow(`${file}: ${message}`);
  });
});
