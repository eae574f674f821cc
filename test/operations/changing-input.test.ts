import {
  appendFileSync,
  chmodSync,
  closeSync,
  existsSync,
  linkSync,
  mkdtempSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { FILE_CALLS } from '../../src/files/file-calls.ts';
import { convert, convertInPlace, inspect, openGuest, type Progress, stacks, verify } from '../../src/index.ts';
import { writeElf } from '../guest/elf.ts';
import { buildGuest } from '../guest/guest.ts';

const guest = buildGuest({ processors: 1, ramMiB: 16, decoys: false });
const elf = writeElf(guest);
let dir: string;
let input: string;
let output: string;

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'elf2dmp-changing-'));
  input = join(dir, 'vm.elf');
  output = join(dir, 'vm.dmp');
  writeFileSync(input, elf);
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

/** Converts, and does something once while the dump is written. */
function convertWhile(disturb: () => void, more: { hash?: boolean } = {}) {
  let done = false;
  return convert({
    input,
    output,
    ...more,
    onProgress: ({ phase }) => {
      if (phase !== 'write' || done) return;
      done = true;
      disturb();
    },
  });
}

/** Waits until what is written now has a later time than the file: file systems' clocks go in steps of up to 10 ms. */
function awaitClock(file: string): void {
  const { ctimeNs } = statSync(file, { bigint: true });
  const probe = `${file}.probe`;
  do writeFileSync(probe, '');
  while (statSync(probe, { bigint: true }).ctimeNs <= ctimeNs);
  rmSync(probe);
}

function replace(): void {
  writeFileSync(`${input}.new`, elf);
  // Nothing but the inode is different, and a mode, which has a right to change.
  utimesSync(`${input}.new`, 1000, 1000);
  chmodSync(`${input}.new`, (statSync(input).mode & 0o777) ^ 0o040);
  renameSync(`${input}.new`, input);
}

describe('an input that changes while it is read', () => {
  it.each([
    ['is written to', () => utimesSync(input, 1, 1)],
    [
      'is written to, and its time put back,',
      () => {
        writeFileSync(input, elf);
        utimesSync(input, 1000, 1000);
      },
    ],
    [
      'is written to, and gets another mode,',
      () => {
        utimesSync(input, 1, 1);
        chmodSync(input, (statSync(input).mode & 0o777) ^ 0o040);
      },
    ],
    ['grows', () => appendFileSync(input, 'more')],
    ['is replaced', replace],
  ])('fails where it %s, and leaves nothing', async (_, disturb) => {
    for (const hash of [false, true]) {
      writeFileSync(input, elf);
      utimesSync(input, 1000, 1000);
      awaitClock(input);
      await expect(convertWhile(disturb, { hash })).rejects.toMatchObject({
        code: 'input-changed',
        kind: 'io-transient',
      });
      expect(readdirSync(dir)).toEqual(['vm.elf']);
    }
  });

  it('may get another mode and another link', async () => {
    await convertWhile(() => chmodSync(input, 0o640));
    rmSync(output);
    await convertWhile(() => linkSync(input, join(dir, 'link')));
  });

  it('is the error where it then makes no sense', async () => {
    const damage = () =>
      writeFileSync(input, Buffer.concat([elf.subarray(0, 0x1000), Buffer.alloc(elf.length - 0x1000)]));
    const onProgress = ({ phase }: Progress) => phase === 'locate' && damage();
    awaitClock(input);
    await expect(convert({ input, output, onProgress })).rejects.toMatchObject({ code: 'input-changed' });
  });

  it('is noticed by the hashes of verify', async () => {
    await convert({ input, output });
    for (const file of [input, output]) {
      const touch = () => utimesSync(file, 1, 1);
      const checked = verify({ dump: output, against: input, hash: true, onProgress: touch });
      await expect(checked).rejects.toMatchObject({ code: 'input-changed', details: { file } });
    }
  });

  it('fails where it is compressed too: its hash would be of another file', async () => {
    input = join(dir, 'vm.elf.gz');
    writeFileSync(input, gzipSync(elf, { level: 1 }));
    await expect(convertWhile(() => utimesSync(input, 1, 1))).rejects.toMatchObject({ code: 'input-changed' });
    expect(existsSync(output)).toBe(false);
  });

  it('is noticed by all that read', async () => {
    await convert({ input, output });
    let time = 1;
    const touch = () => utimesSync(input, time, time++);
    await using opened = await openGuest(input);
    touch();
    await expect(inspect({ input: opened })).rejects.toMatchObject({ code: 'input-changed' });
    await expect(stacks({ input: opened })).rejects.toMatchObject({ code: 'input-changed' });
    await expect(verify({ dump: output, against: opened })).rejects.toMatchObject({ code: 'input-changed' });
  });

  it('is kept from being converted in place, and waits for such a conversion', async () => {
    const fd = openSync(input, 'r');
    try {
      expect(await FILE_CALLS.lock(fd)).toBe(true);
      await expect(convert({ input, output })).rejects.toMatchObject({ code: 'input-locked', kind: 'io-transient' });
    } finally {
      closeSync(fd);
    }
    await using _ = await openGuest(input);
    await expect(convertInPlace({ file: input })).rejects.toMatchObject({ code: 'in-place-busy' });
  });
});

describe("a running guest's memory", () => {
  it('is refused while it is open for writing, and is a loss with liveInput', async () => {
    input = join(dir, 'ram');
    const ram = Buffer.alloc(guest.ramBytes);
    for (const [address, page] of guest.memory.pages) {
      page.copy(ram, address < 2 ** 31 ? address : address - 2 ** 31);
    }
    writeFileSync(input, ram);
    await convert({ input, output });
    const fd = openSync(input, 'r+');
    try {
      await expect(convert({ input, output, force: true })).rejects.toMatchObject({ code: 'input-live' });
      const live = await convert({ input, output, force: true, liveInput: true });
      expect(live.diagnostics).toContainEqual(expect.objectContaining({ severity: 'loss', code: 'input-changed' }));
      await expect(convert({ input, output, force: true, liveInput: true, strict: true })).rejects.toMatchObject({
        code: 'strict-losses',
      });
    } finally {
      closeSync(fd);
    }
    expect((await convert({ input, output, force: true, liveInput: true })).diagnostics).not.toContainEqual(
      expect.objectContaining({ code: 'input-changed' }),
    );
  });
});
