import { createHash } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { lockOutputs } from '../../src/batch/lock.ts';
import { ReportFile } from '../../src/batch/report.ts';
import {
  headerSha256,
  type JobRecord,
  mtimeOf,
  readSidecar,
  type Sidecar,
  startedSidecar,
  vouchedHeader,
  writeSidecar,
} from '../../src/batch/sidecar.ts';

let dir: string;
let output: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'elf2dmp-records-'));
  output = join(dir, 'vm.dmp');
});
afterEach(() => rmSync(dir, { recursive: true }));

describe('a sidecar', () => {
  it('is believed only if all of it makes sense', async () => {
    writeFileSync(join(dir, 'vm'), 'x');
    const started = await startedSidecar(join(dir, 'vm'), { strict: true });
    await writeSidecar(output, started);
    expect(await readSidecar(output)).toEqual(started);
    const { input: _, ...without } = started;
    for (const broken of [without, { ...started, state: 'finished' }, { ...started, options: { a: 1 } }, [], 7]) {
      writeFileSync(`${output}.json`, JSON.stringify(broken));
      await expect(readSidecar(output)).rejects.toMatchObject({ code: 'sidecar-unknown' });
    }
  });

  it('vouches for the dump that was there and the one that comes, by their headers', async () => {
    writeFileSync(join(dir, 'vm'), 'x');
    const started = await startedSidecar(join(dir, 'vm'), {});
    const sha256 = (text: string) => {
      writeFileSync(output, text);
      return vouchedHeader(output, started);
    };
    expect(await sha256('old')).toBeNull();
    const hashOf = (text: string) => {
      writeFileSync(join(dir, text), text);
      return headerSha256(join(dir, text));
    };
    const [old, next] = [await hashOf('old'), await hashOf('new')];
    const both = { ...started, headerSha256: next, formerHeaderSha256: old };
    for (const [text, expected] of [
      ['old', old],
      ['new', next],
      ['other', null],
    ] as const) {
      writeFileSync(output, text);
      expect(await vouchedHeader(output, both)).toBe(expected);
    }
    expect(await vouchedHeader(output, undefined)).toBeNull();
  });

  it('does not vouch for a dump whose body was written to since, unless that is as it was', async () => {
    writeFileSync(join(dir, 'vm'), 'x');
    const body = Buffer.alloc(0x4000, 1);
    writeFileSync(output, body);
    const header = await headerSha256(output);
    const record = { bytes: body.length, sha256: null } as unknown as JobRecord;
    const finished: Sidecar = {
      ...(await startedSidecar(join(dir, 'vm'), {})),
      state: 'finished',
      headerSha256: header,
      outputMtime: await mtimeOf(output),
      record,
    };
    expect(await vouchedHeader(output, finished)).toBe(header);
    const later = new Date(Date.now() + 5000);
    const dump = createHash('sha256').update(body).digest('hex');
    const hashed: Sidecar = { ...finished, record: { ...record, sha256: { input: dump, dump } } };
    utimesSync(output, later, later);
    expect([await vouchedHeader(output, finished), await vouchedHeader(output, hashed)]).toEqual([null, header]);
    writeFileSync(output, Buffer.concat([body.subarray(0, 0x3000), Buffer.alloc(0x1000, 2)]));
    utimesSync(output, later, later);
    expect([await vouchedHeader(output, finished), await vouchedHeader(output, hashed)]).toEqual([null, null]);
    // Cut off, by a full disk or a broken copy.
    writeFileSync(output, body.subarray(0, 0x3000));
    utimesSync(output, later, later);
    expect(await vouchedHeader(output, finished)).toBe(header);
  });
});

describe('a report that is not one', () => {
  it.each(['notes', '{"id":7}\n', '{"id":"a","output":"b","outcome":"fine","exitCode":0}\n', '\x7fELF'])(
    'is left as it is: %j',
    async (text) => {
      writeFileSync(output, text);
      await expect(ReportFile.open(output)).rejects.toMatchObject({ code: 'report-unknown' });
      expect(readFileSync(output, 'latin1')).toBe(text);
    },
  );
});

describe('the lock on an output directory', () => {
  it('lets in a shard that comes while another one leaves, which has the lock alone for a moment', async () => {
    // As a shard has it that looks whether it is the last.
    const leaving = await lockOutputs(dir, undefined);
    const coming = lockOutputs(dir, { index: 1, count: 2 });
    const came = coming.then(
      () => true,
      () => false,
    );
    for (let turn = 0; turn < 50; turn++) await stat(dir);
    await leaving.release();
    expect(await came).toBe(true);
    await (await coming).release();
    expect(readdirSync(dir)).toEqual([]);
  });

  const taken = async (shard?: { index: number; count: number }) => {
    try {
      await (await lockOutputs(dir, shard)).release();
      return false;
    } catch (error) {
      expect(error).toMatchObject({ code: 'batch-busy', kind: 'io-transient' });
      return true;
    }
  };

  it('lets shards of one batch in, and nobody else', async () => {
    const whole = await lockOutputs(dir, undefined);
    expect([await taken(), await taken({ index: 0, count: 2 })]).toEqual([true, true]);
    await whole.release();
    const shards = [await lockOutputs(dir, { index: 0, count: 2 }), await lockOutputs(dir, { index: 1, count: 2 })];
    expect([await taken(), await taken({ index: 0, count: 2 }), await taken({ index: 2, count: 3 })]).toEqual([
      true,
      true,
      true,
    ]);
    await shards[0]!.release();
    expect([await taken(), await taken({ index: 0, count: 2 })]).toEqual([true, false]);
    await shards[1]!.release();
    expect([await taken(), readdirSync(dir)]).toEqual([false, []]);
  });
});
