import {
  chmodSync,
  closeSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import {
  checkOutputs,
  openForAppending,
  type Publication,
  publishTogether,
  replaceFile,
  writeNewFile,
  writeThenPublish,
} from '../../src/files/publish.ts';
import { outputOfTemporary } from '../../src/files/temporary.ts';

let dir: string;
let file: string;

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'elf2dmp-publish-'));
  file = join(dir, 'out');
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

describe('publishing', () => {
  it('shows nothing under the name before it is complete', async () => {
    await writeThenPublish(file, {}, async (handle) => {
      await handle.writeFile('whole');
      expect(readdirSync(dir).filter((name) => outputOfTemporary(name) !== 'out')).toEqual([]);
    });
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

  it('lets a signal in that came while the last file was made', async () => {
    const stop = new AbortController();
    const work = async (together: Publication) => {
      await writeNewFile(file, Buffer.from('new'), { together });
      setImmediate(() => stop.abort(new Error('stop')));
    };
    await expect(publishTogether(stop.signal, work)).rejects.toThrow('stop');
    expect(readdirSync(dir)).toEqual([]);
  });

  it('does not replace a memory dump that got the name meanwhile', async () => {
    const core = Buffer.from('7f454c46020101000000000000000000040000003e00', 'hex');
    const work = async (together: Publication) => {
      await writeNewFile(file, Buffer.from('new'), { together, force: true });
      writeFileSync(file, core);
    };
    await expect(publishTogether(undefined, work)).rejects.toMatchObject({ code: 'output-is-memory-dump' });
    expect([readdirSync(dir), readFileSync(file)]).toEqual([['out'], core]);
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

it('appends to a regular file, and to nothing else', () => {
  expect(() => openForAppending('/dev/null')).toThrow(expect.objectContaining({ code: 'output-not-a-file' }));
  writeFileSync(file, 'one');
  const fd = openForAppending(file);
  writeSync(fd, ' two');
  closeSync(fd);
  expect(readFileSync(file, 'utf8')).toBe('one two');
});

describe('files that are published together', () => {
  const two = (force: boolean) =>
    publishTogether(undefined, async (together) => {
      await writeNewFile(file, Buffer.from('dump'), { force, together });
      await writeNewFile(join(dir, 'page'), Buffer.from('new page'), { force, together });
      expect(readFileSync(together.fileOf(file), 'utf8')).toBe('dump');
    });

  it('get their names, all of them or none', async () => {
    writeFileSync(file, 'old');
    await expect(two(false)).rejects.toMatchObject({ code: 'output-exists' });
    expect(readdirSync(dir)).toEqual(['out']);
    rmSync(file);
    await two(false);
    expect([readdirSync(dir).sort(), readFileSync(file, 'utf8')]).toEqual([['out', 'page'], 'dump']);
  });

  it('leave what was there where a later one fails', async () => {
    writeFileSync(join(dir, 'page'), 'old page');
    // A file can't replace a directory.
    mkdirSync(file);
    await expect(two(true)).rejects.toMatchObject({ code: expect.stringMatching(/^io-/) });
    expect([readdirSync(dir).sort(), readFileSync(join(dir, 'page'), 'utf8')]).toEqual([['out', 'page'], 'old page']);
    rmSync(file, { recursive: true });
    await two(true);
    expect([readdirSync(dir).sort(), readFileSync(join(dir, 'page'), 'utf8')]).toEqual([['out', 'page'], 'new page']);
  });

  it('are not published after an abort, or if the work fails', async () => {
    const signal = AbortSignal.abort(new Error('stop'));
    const work = (together: Publication) => writeNewFile(file, Buffer.from('x'), { together });
    await expect(publishTogether(signal, work)).rejects.toThrow('stop');
    const failing = async (together: Publication) => {
      await work(together);
      throw new Error('no');
    };
    await expect(publishTogether(undefined, failing)).rejects.toThrow('no');
    expect(readdirSync(dir)).toEqual([]);
  });
});

describe('checkOutputs', () => {
  const output = (path: string, force = true) => ({ what: path, path, force });

  it('refuses inputs and other outputs by whatever name', async () => {
    writeFileSync(file, 'x');
    linkSync(file, join(dir, 'second'));
    symlinkSync(dir, join(dir, 'link'));
    await expect(checkOutputs([output(join(dir, 'second'))], [file])).rejects.toMatchObject({
      code: 'output-is-input',
    });
    for (const other of [file, join(dir, 'second'), join(dir, 'link', 'out')]) {
      await expect(checkOutputs([output(file), output(other)], [])).rejects.toMatchObject({ code: 'output-twice' });
    }
    const fresh = [output(join(dir, 'new')), output(join(dir, 'link', 'new'))];
    await expect(checkOutputs(fresh, [])).rejects.toMatchObject({ code: 'output-twice' });
    expect(await checkOutputs([output(join(dir, 'link', 'new'))], [])).toEqual([join(dir, 'new')]);
  });

  it('says for what growing files are refused', async () => {
    writeFileSync(file, 'foreign');
    const wanted = { what: '--jsonl', path: file, force: false, ours: () => false, grows: true };
    await expect(checkOutputs([wanted], [])).rejects.toMatchObject({
      code: 'output-exists',
      details: { hint: expect.not.stringContaining('--force') },
    });
  });

  it('refuses names of undo journals, and files whose journal is beside them', async () => {
    for (const name of ['vm.elf.elf2dmp-undo', 'vm.elf.elf2dmp-undo.part']) {
      await expect(checkOutputs([output(join(dir, name))], [])).rejects.toMatchObject({ code: 'output-is-journal' });
    }
    writeFileSync(file, 'PAGEDU64');
    expect(await checkOutputs([output(file)], [])).toEqual([file]);
    writeFileSync(`${file}.elf2dmp-undo`, '');
    await expect(checkOutputs([output(file)], [])).rejects.toMatchObject({ code: 'output-is-memory-dump' });
  });

  it('never replaces the memory of a guest', async () => {
    const core = Buffer.alloc(64);
    core.write('\x7fELF\x02\x01\x01', 'latin1');
    core.writeUInt16LE(4, 16);
    const program = Buffer.from(core);
    program.writeUInt16LE(2, 16);
    const dumps = [core, 'KDUMP   ', 'makedumpfile\0\0\0\0', 'QEVM\0\0\0\x03', 'LibvirtQemudSave', gzipSync(core)];
    for (const dump of dumps) {
      writeFileSync(file, dump);
      await expect(checkOutputs([output(file)], [])).rejects.toMatchObject({ code: 'output-is-memory-dump' });
    }
    for (const other of [program, 'PAGEDU64', gzipSync('PAGEDU64'), gzipSync(core).subarray(0, 9), '']) {
      writeFileSync(file, other);
      expect(await checkOutputs([output(file)], [])).toEqual([file]);
    }
  });

  it('replaces without force only what is ours', async () => {
    writeFileSync(file, 'ours');
    const ours = (head: Buffer) => head.toString() === 'ours';
    expect(await checkOutputs([{ ...output(file, false), ours }], [])).toEqual([file]);
    writeFileSync(file, 'theirs');
    await expect(checkOutputs([{ ...output(file, false), ours }], [])).rejects.toMatchObject({ code: 'output-exists' });
  });
});
