import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { outputOfTemporary, replaceFile, writeNewFile, writeThenPublish } from '../../src/files/publish.ts';

let dir: string;
let file: string;

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'elf2dmp-publish-'));
  file = join(dir, 'out');
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

describe('publishing', () => {
  it('shows nothing under the name before it is complete, and a temporary file that is known by its name', async () => {
    let seen: string[] = [];
    await writeThenPublish(file, {}, async (handle, name) => {
      await handle.writeFile('whole');
      seen = readdirSync(dir);
      expect(name).toBe(join(dir, seen[0]!));
    });
    expect(seen.map(outputOfTemporary)).toEqual(['out']);
    expect([readdirSync(dir), readFileSync(file, 'utf8')]).toEqual([['out'], 'whole']);
    expect(outputOfTemporary('out.part')).toBeUndefined();
  });

  it('leaves what was there when writing fails, is refused or is aborted', async () => {
    writeFileSync(file, 'old');
    const fail = () => {
      throw new Error('no');
    };
    await expect(writeThenPublish(file, { force: true }, async () => fail())).rejects.toThrow('no');
    await expect(writeNewFile(file, Buffer.from('new'), { force: true, beforePublish: fail })).rejects.toThrow('no');
    const signal = AbortSignal.abort(new Error('stop'));
    await expect(writeNewFile(file, Buffer.from('new'), { force: true, signal })).rejects.toThrow('stop');
    await expect(writeNewFile(file, Buffer.from('new'))).rejects.toMatchObject({ code: 'output-exists' });
    expect([readdirSync(dir), readFileSync(file, 'utf8')]).toEqual([['out'], 'old']);
  });

  it('replaces a file of ours, which others may read where a dump is its own', async () => {
    const before = process.umask(0o022);
    try {
      await replaceFile(file, 'one');
      await replaceFile(file, 'two');
      await writeNewFile(join(dir, 'secret'), Buffer.from('x'));
    } finally {
      process.umask(before);
    }
    expect(readFileSync(file, 'utf8')).toBe('two');
    expect([file, join(dir, 'secret')].map((f) => statSync(f).mode & 0o777)).toEqual([0o644, 0o600]);
    expect(readdirSync(dir).sort()).toEqual([basename(file), 'secret']);
  });

  it('tells which file it could not make', async () => {
    const missing = join(dir, 'no', 'out');
    await expect(replaceFile(missing, 'x')).rejects.toMatchObject({ code: 'io-enoent', kind: 'io-permanent' });
    if (process.geteuid?.() === 0) return;
    chmodSync(dir, 0o500);
    await expect(replaceFile(file, 'x')).rejects.toMatchObject({ code: 'io-eacces' });
    chmodSync(dir, 0o700);
  });
});
