import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { convert } from '../../src/index.ts';
import { askDebugger, debuggerAvailable, modules, registers, stack } from '../debugger/debugger.ts';
import { buildGuest } from '../guest/guest.ts';
import { flatten, guestNotes, kdumpFile } from '../guest/kdump.ts';
import { loadCompressors } from '../support/compressors.ts';
import { pagesOf } from '../support/dumps.ts';
import { programsAvailable } from '../support/programs.ts';
import { dumpWithQemu, qemuAvailable } from '../support/qemu.ts';

const ready =
  qemuAvailable() && debuggerAvailable() && programsAvailable({ zstd: 'zstd', xz: 'xz-utils', gzip: 'gzip' });

// Each form that a real QEMU writes of one paused guest, and those that Debian's can't: its own pages, recompressed.
describe.skipIf(!ready)('all forms of one paused guest', () => {
  const guest = buildGuest({ seed: 75, processors: 2, user: [1] });
  let dir: string;
  const at = (name: string) => join(dir, name);
  /** The dump of the plain ELF file, and the same with the guest's memory as it was. */
  let elf: Buffer;
  let unpatched: Buffer;
  let seen: unknown;

  const ask = (dump: string) => askDebugger(dump, { r0: registers(0), r1: registers(1), k0: stack(0), lm: modules() });
  const converted = async (name: string): Promise<Buffer> => {
    await convert({ input: at(name), output: at(`${name}.dmp`) });
    return readFileSync(at(`${name}.dmp`));
  };

  beforeAll(async () => {
    dir = mkdtempSync(join(tmpdir(), 'elf2dmp-forms-'));
    await dumpWithQemu(guest, at('elf'), {
      also: [
        { path: at('kdump'), format: 'kdump-zlib' },
        { path: at('pmemsave'), raw: 'pmemsave' },
        { path: at('paging'), paging: true },
      ],
    });
    elf = await converted('elf');
    await convert({ input: at('elf'), output: at('unpatched.dmp'), patch: false });
    unpatched = readFileSync(at('unpatched.dmp'));
    seen = await ask(at('elf.dmp'));
  });
  afterAll(() => rmSync(dir, { recursive: true, force: true }));

  it('kdump-zlib', async () => {
    expect((await converted('kdump')).equals(elf)).toBe(true);
    expect(await ask(at('kdump.dmp'))).toEqual(seen);
  });

  it.each(['lzo', 'snappy'] as const)('its pages in %s, flattened and raw', async (kind) => {
    const compress = loadCompressors()?.[kind];
    if (!compress) throw new Error('liblzo2 and libsnappy are needed');
    const pages = new Map([...pagesOf(unpatched)].map(([address, page]) => [address / 0x1000, page]));
    const made = kdumpFile({ pages, notes: guestNotes(guest), flags: kind === 'lzo' ? 2 : 4, compress });
    writeFileSync(at(`${kind}-raw`), made.file);
    writeFileSync(at(`${kind}-flat`), flatten(made));
    for (const form of ['raw', 'flat']) {
      expect((await converted(`${kind}-${form}`)).equals(elf)).toBe(true);
    }
    expect(await ask(at(`${kind}-flat.dmp`))).toEqual(seen);
  });

  it.each(['gzip', 'zstd', 'xz'])('%s of it, and of the kdump', async (program) => {
    for (const form of ['elf', 'kdump']) {
      const name = `${form}.${program}`;
      writeFileSync(at(name), execFileSync(program, ['-c', at(form)], { maxBuffer: 2 ** 28 }));
      expect((await converted(name)).equals(elf)).toBe(true);
    }
  });

  it('paging mode and raw memory: the pages that they hold', async () => {
    const all = pagesOf(elf);
    for (const name of ['paging', 'pmemsave']) {
      const pages = pagesOf(await converted(name));
      // Paging mode lists what CPUs have mapped, and so what lies between.
      expect(pages.size).toBeGreaterThan(name === 'paging' ? 100 : (0.9 * guest.ramBytes) / 0x1000);
      let different = 0;
      for (const [address, page] of pages) if (!all.get(address)?.equals(page)) different++;
      // Registers are set where they are known; of raw memory they are not: frames and special registers, two pages each.
      expect(different).toBeLessThanOrEqual(name === 'paging' ? 0 : 4 + holeOf(pages, all));
    }
  });
});

/** Pages that `pmemsave` has of the hole below 1 MiB, which no RAM is behind. */
const holeOf = (pages: ReadonlyMap<number, Buffer>, all: ReadonlyMap<number, Buffer>): number =>
  [...pages.keys()].filter((address) => !all.has(address)).length;
