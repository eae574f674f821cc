import {
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { ON_SUDDEN_END } from '../../src/core/sudden-end.ts';
import * as libc from '../../src/files/libc.ts';
import { tryLock } from '../../src/files/lock.ts';
import { outputOfTemporary, removeLeftovers, TemporaryFile } from '../../src/files/temporary.ts';

let dir: string;
let output: string;

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'elf2dmp-temporary-'));
  output = join(dir, 'out.dmp');
});
afterEach(() => {
  vi.restoreAllMocks();
  rmSync(dir, { recursive: true, force: true });
});

const written = async (text: string): Promise<TemporaryFile> => {
  const file = await TemporaryFile.create(output, 0o600);
  await file.handle.writeFile(text);
  return file;
};

const hasUnnamed = process.platform === 'linux';

describe.each(hasUnnamed ? (['without a name', 'with a name'] as const) : (['with a name'] as const))(
  'a temporary file %s',
  (how) => {
    beforeEach(() => {
      if (how === 'with a name') vi.spyOn(libc, 'loadLibc').mockResolvedValue('not here');
    });

    it('can be read before it has its name, and then has it', async () => {
      const file = await written('whole');
      expect(readdirSync(dir).map(outputOfTemporary)).toEqual(how === 'with a name' ? ['out.dmp'] : []);
      expect(readFileSync(file.path, 'utf8')).toBe('whole');
      await file.giveName(output, false);
      await file.close();
      expect([readdirSync(dir), readFileSync(output, 'utf8')]).toEqual([['out.dmp'], 'whole']);
      expect(ON_SUDDEN_END.size).toBe(0);
    });

    it('replaces a file with force only', async () => {
      writeFileSync(output, 'old');
      const file = await written('new');
      await expect(file.giveName(output, false)).rejects.toMatchObject({ code: 'output-exists' });
      expect(readFileSync(output, 'utf8')).toBe('old');
      // What has no name gets none for being refused, so that a kill leaves nothing.
      expect(readdirSync(dir)).toHaveLength(how === 'with a name' ? 2 : 1);
      await file.giveName(output, true);
      await file.close();
      expect([readdirSync(dir), readFileSync(output, 'utf8')]).toEqual([['out.dmp'], 'new']);
    });

    it('may have a name of 255 bytes', async () => {
      const long = join(dir, `${'ä'.repeat(125)}.dmp`);
      for (const text of ['one', 'two']) {
        const file = await TemporaryFile.create(long, 0o600);
        await file.handle.writeFile(text);
        await file.giveName(long, text === 'two');
        await file.close();
        expect(readFileSync(long, 'utf8')).toBe(text);
      }
      expect(readdirSync(dir)).toHaveLength(1);
    });

    it('is gone when it is discarded, or when a second signal ends the process', async () => {
      await (await written('x')).discard();
      expect(readdirSync(dir)).toEqual([]);
      const file = await written('x');
      for (const act of ON_SUDDEN_END) act();
      expect(readdirSync(dir)).toEqual([]);
      await file.discard();
      expect(ON_SUDDEN_END.size).toBe(0);
    });
  },
);

describe.runIf(hasUnnamed)('a file system that creates files without names and cannot name them', () => {
  it('gets a copy', async () => {
    const real = await libc.loadLibc();
    if (typeof real === 'string') throw new Error(real);
    const refuses = Object.assign(() => -1, { async: () => undefined });
    const func = (declaration: string) => (declaration.includes('linkat') ? refuses : real.library.func(declaration));
    vi.resetModules();
    vi.doMock('../../src/files/libc.ts', () => ({
      ...libc,
      loadLibc: async () => ({ library: { func }, errno: () => 2 }),
    }));
    const { TemporaryFile: Other } = await import('../../src/files/temporary.ts');
    vi.doUnmock('../../src/files/libc.ts');
    const file = await Other.create(output, 0o600);
    await file.handle.writeFile('whole');
    await file.giveName(output, false);
    await file.close();
    expect([readdirSync(dir), readFileSync(output, 'utf8')]).toEqual([['out.dmp'], 'whole']);
  });
});

describe('a file system without hard links', () => {
  it('gets files under their names, but never over another one without force', async () => {
    const real = await import('node:fs/promises');
    vi.resetModules();
    vi.doMock('node:fs/promises', () => ({
      ...real,
      link: () => Promise.reject(Object.assign(new Error('EPERM: operation not permitted'), { code: 'EPERM' })),
    }));
    vi.doMock('../../src/files/libc.ts', () => ({ ...libc, loadLibc: async () => 'not here' }));
    const { TemporaryFile: Other } = await import('../../src/files/temporary.ts');
    vi.doUnmock('node:fs/promises');
    vi.doUnmock('../../src/files/libc.ts');
    writeFileSync(output, 'old');
    const file = await Other.create(output, 0o600);
    await file.handle.writeFile('new');
    await expect(file.giveName(output, false)).rejects.toMatchObject({ code: 'output-exists' });
    expect(readFileSync(output, 'utf8')).toBe('old');
    rmSync(output);
    await file.giveName(output, false);
    await file.close();
    expect([readdirSync(dir), readFileSync(output, 'utf8')]).toEqual([['out.dmp'], 'new']);
  });
});

describe.runIf(hasUnnamed)('what a killed process left', () => {
  const left = (name: string, ageSeconds: number): string => {
    const path = join(dir, name);
    writeFileSync(path, 'x');
    const then = Date.now() / 1000 - ageSeconds;
    utimesSync(path, then, then);
    return path;
  };

  it("is removed by the next run to that output, but for a living writer's and what is not ours", async () => {
    const dead = left('out.dmp.0123456789ab.part', 60);
    const kept = [
      left('out.dmp.0123456789ac.part', 0),
      left('other.dmp.0123456789ab.part', 60),
      left('out.dmp.part', 60),
      left('out.dmp.0123456789ab.former', 60),
    ];
    const alive = left('out.dmp.0123456789ad.part', 60);
    const writer = openSync(alive, 'r+');
    expect(await tryLock(writer, 'exclusive')).toBe('locked');
    await removeLeftovers([output]);
    closeSync(writer);
    expect(existsSync(dead)).toBe(false);
    expect([...kept, alive].map((path) => existsSync(path))).toEqual([true, true, true, true, true]);
  });
});
