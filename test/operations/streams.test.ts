/** Inputs that are bytes, and dumps that go to streams. */
import { createHash } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable, Writable } from 'node:stream';
import { gunzipSync, gzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { convert, inspect, open, openGuest, stacks, verify } from '../../src/index.ts';
import { writeElf } from '../guest/elf.ts';
import { buildGuest } from '../guest/guest.ts';

let dir: string;
let elf: Buffer;
/** The dump of the same guest, by way of files. */
let expected: Buffer;
const at = (name: string) => join(dir, name);

beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), 'elf2dmp-streams-'));
  elf = writeElf(buildGuest({ processors: 2, ramMiB: 8, decoys: false }));
  writeFileSync(at('vm.elf'), elf);
  await convert({ input: at('vm.elf'), output: at('vm.dmp') });
  expected = readFileSync(at('vm.dmp'));
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

class Collected extends Writable {
  readonly parts: Buffer[] = [];

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.parts.push(Buffer.from(chunk));
    done();
  }

  get bytes(): Buffer {
    return Buffer.concat(this.parts);
  }
}

const pieces = (bytes: Uint8Array) =>
  Readable.from(
    Array.from({ length: Math.ceil(bytes.length / 50_001) }, (_, i) => bytes.subarray(i * 50_001, (i + 1) * 50_001)),
  );

describe('an input', () => {
  it.each([
    ['a buffer', () => elf],
    ['an array of bytes', () => new Uint8Array(elf)],
    [
      'a part of a larger buffer',
      () => Buffer.concat([Buffer.alloc(3), elf, Buffer.alloc(5)]).subarray(3, 3 + elf.length),
    ],
    ['a compressed buffer', () => gzipSync(elf)],
    ['a stream', () => pieces(elf)],
    ['a compressed stream', () => pieces(gzipSync(elf))],
    ['a web stream', () => Readable.toWeb(pieces(elf)) as AsyncIterable<Uint8Array>],
  ])('may be %s', async (_, input) => {
    const output = at('from-bytes.dmp');
    const { input: described } = await convert({ input: input(), output, force: true });
    expect(readFileSync(output).equals(expected)).toBe(true);
    expect(described.path).toMatch(/^a (buffer|stream)/);
    expect((await inspect({ input: input() })).windows?.processors).toHaveLength(2);
    expect((await stacks({ input: input() })).stacks).toHaveLength(2);
    expect((await verify({ dump: output, against: input() })).outcome).toBe('sound');
    const guest = await openGuest(input());
    expect(guest.windows.version.build).toBe(19041);
    guest.close();
    (await open(input())).close();
  });

  it('is refused where it is neither a path nor bytes', async () => {
    const output = at('never.dmp');
    for (const input of [Readable.from(['text']), Readable.from([1])]) {
      await expect(convert({ input, output })).rejects.toMatchObject({ kind: 'usage' });
    }
    const wrong = [{}, 5, null, []] as unknown[];
    for (const input of wrong) {
      await expect(convert({ input: input as string, output })).rejects.toMatchObject({ kind: 'usage' });
      await expect(openGuest(input as string)).rejects.toMatchObject({ kind: 'usage' });
    }
    const broken = Readable.from(
      (async function* () {
        yield elf.subarray(0, 100_000);
        throw Object.assign(new Error('EIO: i/o error, read'), { code: 'EIO' });
      })(),
    );
    await expect(convert({ input: broken, output })).rejects.toMatchObject({ code: 'io-eio' });
    expect(readdirSync(dir)).not.toContain('never.dmp');
  });
});

describe('a dump', () => {
  it('may go to a stream, compressed too, and is hashed on its way', async () => {
    const plain = new Collected();
    const report = await convert({ input: at('vm.elf'), output: plain, hash: true, patches: at('patches.json') });
    expect(plain.bytes.equals(expected)).toBe(true);
    expect(plain.writableFinished).toBe(true);
    expect(report).toMatchObject({
      outcome: 'good',
      dump: { path: 'a stream', bytes: expected.length },
      sha256: { dump: createHash('sha256').update(expected).digest('hex') },
    });
    expect(JSON.parse(readFileSync(at('patches.json'), 'utf8'))).toMatchObject({ output: 'a stream' });
    const packed = new Collected();
    const { dump } = await convert({ input: elf, output: packed, compress: 'gzip' });
    expect(gunzipSync(packed.bytes).equals(expected)).toBe(true);
    expect(dump.compression).toEqual({ format: 'gzip', bytes: packed.bytes.length });
  });

  it('that goes to a stream fails as the stream does, or as the signal says', async () => {
    const broken = new Writable({
      write: (_chunk, _encoding, done) =>
        done(Object.assign(new Error('EPIPE: broken pipe, write'), { code: 'EPIPE' })),
    });
    await expect(convert({ input: elf, output: broken })).rejects.toMatchObject({ code: 'io-epipe' });
    const stop = new AbortController();
    const slow = new Writable({
      write: (_chunk, _encoding, done) => {
        stop.abort();
        done();
      },
    });
    await expect(convert({ input: elf, output: slow, signal: stop.signal })).rejects.toMatchObject({ code: 'aborted' });
    const wanting = [{ verify: true }, { reflink: 'always' }, { sparse: 'always' }] as const;
    for (const option of wanting) {
      await expect(convert({ input: elf, output: new Collected(), ...option })).rejects.toMatchObject({
        kind: 'usage',
      });
    }
  });
});
