import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { errorsDocument } from '../../scripts/make-docs.ts';
import { DIAGNOSTICS, ERRORS, FINDINGS } from '../../src/core/codes.ts';
import { Diagnostics, Elf2dmpError, failIn, ioError } from '../../src/core/errors.ts';

const ROOT = join(import.meta.dirname, '../..');

describe('the table of codes', () => {
  const sources = readdirSync(join(ROOT, 'src'), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts') && name !== join('core', 'codes.ts'))
    .map((name) => readFileSync(join(ROOT, 'src', name), 'utf8'))
    .join('\n');

  it.each(Object.entries({ ERRORS, DIAGNOSTICS, FINDINGS }))('%s has no code that nothing uses', (_, table) => {
    expect(Object.keys(table).filter((code) => !sources.includes(`'${code}'`))).toEqual([]);
  });

  it('explains each in sentences', () => {
    for (const [code, entry] of Object.entries({ ...ERRORS, ...DIAGNOSTICS, ...FINDINGS })) {
      expect(entry.means, code).toMatch(/^[A-Z`].*\.$/);
      expect(code, code).toMatch(/^[a-z0-9]+(-[a-z0-9]+)*$/);
    }
  });

  it('is docs/errors.md (made by `npm run docs`)', () => {
    expect(readFileSync(join(ROOT, 'docs/errors.md'), 'utf8')).toBe(errorsDocument());
  });
});

// `tsc` fails where one of these compiles.
describe('codes that do not compile', () => {
  it('a typo', () => {
    // @ts-expect-error
    expect(new Elf2dmpError({ code: 'elf-not-coer', kind: 'corrupt', message: '' }).kind).toBe('corrupt');
    // @ts-expect-error
    new Diagnostics().add('loss', 'input-trunkated', '');
  });

  it('another kind or severity', () => {
    // @ts-expect-error
    expect(new Elf2dmpError({ code: 'elf-not-core', kind: 'usage', message: '' }).kind).toBe('usage');
    // @ts-expect-error
    expect(failIn('file')('corrupt', { code: 'elf-not-core', message: '' }).details.file).toBe('file');
    // @ts-expect-error
    new Diagnostics().add('note', 'input-truncated', '');
  });
});

describe('ioError', () => {
  const of = (code?: string) => ioError('read', 'f', Object.assign(new Error('x'), { code }));

  it('has a code by errno and a kind by whether it may pass', () => {
    expect(of('ENOSPC')).toMatchObject({ code: 'io-enospc', kind: 'io-transient' });
    expect(of('ENOENT')).toMatchObject({ code: 'io-enoent', kind: 'io-permanent' });
  });

  it('has one code for what has no errno', () => {
    for (const code of [undefined, '', 'nonsense']) {
      expect(of(code)).toMatchObject({ code: 'io-unknown', kind: 'io-permanent' });
    }
  });
});
