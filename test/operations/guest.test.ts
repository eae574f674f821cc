import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { convert } from '../../src/operations/convert.ts';
import { type Guest, openGuest } from '../../src/operations/guest.ts';
import { inspect } from '../../src/operations/inspect.ts';
import { stacks } from '../../src/operations/stacks.ts';
import { verify } from '../../src/operations/verify.ts';
import { writeElf } from '../guest/elf.ts';
import { buildGuest } from '../guest/guest.ts';

let dir: string;
let guest: Guest;
const at = (name: string) => join(dir, name);

beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), 'elf2dmp-guest-'));
  writeFileSync(
    at('vm.elf'),
    writeElf(
      buildGuest({
        processors: 2,
        crash: { code: 0xd1, parameters: [0x10n, 2n, 0n, 0xfffff8042c460004n], processor: 1 },
      }),
    ),
  );
  guest = await openGuest(at('vm.elf'));
});
afterAll(() => {
  guest.close();
  rmSync(dir, { recursive: true, force: true });
});

/** A report without what differs between two runs. */
const lasting = (report: object) => JSON.parse(JSON.stringify({ ...report, seconds: 0, effort: undefined }));

describe('an opened guest', () => {
  it('is what a path is', async () => {
    expect(await inspect({ input: guest })).toEqual(await inspect({ input: at('vm.elf') }));
    expect(await stacks({ input: guest, context: 'cpu' })).toEqual(
      await stacks({ input: at('vm.elf'), context: 'cpu' }),
    );
    const byPath = await convert({ input: at('vm.elf'), output: at('path.dmp'), hash: true });
    const byGuest = await convert({ input: guest, output: at('guest.dmp'), hash: true });
    expect(byGuest.sha256).toEqual(byPath.sha256);
    expect(lasting({ ...byGuest, dump: { ...byGuest.dump, path: at('path.dmp') } })).toEqual(lasting(byPath));
    expect(await verify({ dump: at('guest.dmp'), against: guest })).toMatchObject({
      outcome: 'sound',
      against: { input: { path: at('vm.elf') } },
    });
  });

  it('can be verified against with a list of patches', async () => {
    await convert({ input: guest, output: at('patched.dmp'), patches: at('patches.json') });
    const report = await verify({ dump: at('patched.dmp'), against: guest, patches: at('patches.json') });
    expect(report.outcome).toBe('sound');
  });

  it('keeps no losses of one conversion for the next', async () => {
    const few = await convert({ input: guest, output: at('few.dmp'), dropZeroPages: true });
    expect(few.diagnostics.map((d) => d.code)).toContain('zero-pages-dropped');
    const again = await convert({ input: guest, output: at('again.dmp'), strict: true });
    expect(again).toMatchObject({ outcome: 'good', diagnostics: [] });
    expect((await inspect({ input: guest })).diagnostics).toEqual([]);
  });

  it('is not written over', async () => {
    const before = readFileSync(at('vm.elf'));
    const conversion = convert({ input: guest, output: at('vm.elf'), force: true });
    await expect(conversion).rejects.toMatchObject({ code: 'output-is-input' });
    expect(readFileSync(at('vm.elf')).equals(before)).toBe(true);
  });

  it('closes its file, once', async () => {
    let fd: number | undefined;
    {
      await using inner = await openGuest(at('vm.elf'));
      fd = inner.image.stored?.fd;
      expect(readFileSync(`/proc/self/fd/${fd}`).length).toBeGreaterThan(0);
    }
    expect(() => readFileSync(fd!)).toThrow('EBADF');
  });

  it('is converted again where it is a crash dump', async () => {
    await convert({ input: guest, output: at('out.dmp') });
    await using dump = await openGuest(at('out.dmp'), { crashDumps: true });
    expect(await inspect({ input: dump })).toEqual(await inspect({ input: at('out.dmp') }));
    await convert({ input: dump, output: at('again2.dmp') });
    expect(readFileSync(at('again2.dmp')).equals(readFileSync(at('out.dmp')))).toBe(true);
  });

  it('is closed where no Windows is in it', async () => {
    writeFileSync(at('empty.elf'), writeElf(buildGuest(), { runs: [[0xf00000, 0x1000000]] }));
    await expect(openGuest(at('empty.elf'))).rejects.toMatchObject({ code: 'windows-not-found' });
  });
});
