import { spawn } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Elf2dmpError } from '../../src/core/errors.ts';
import { Reason } from '../../src/core/reason.ts';
import { FILE_CALLS, type FileCalls } from '../../src/files/file-calls.ts';
import { locateWindows } from '../../src/locate/locator.ts';
import { planConversion } from '../../src/plan/conversion.ts';
import type { DumpPlan } from '../../src/plan/plan.ts';
import type { SharedPages } from '../../src/plan/shared-pages.ts';
import { inPlaceFirstPage, sharedPages } from '../../src/plan/shared-pages.ts';
import { openImage } from '../../src/readers/registry.ts';
import { InPlaceFile } from '../../src/write/in-place.ts';
import { writeElf } from '../guest/elf.ts';
import { buildGuest } from '../guest/guest.ts';
import { type Fault, faultyAt, faultyCalls } from '../support/faults.ts';
import { canMount, mountNew } from '../support/loop-mounts.ts';

const elf = writeElf(buildGuest({ processors: 2, seed: 52 }));

describe.skipIf(!canMount()).each(['ext4', 'xfs'] as const)('in place on %s', (kind) => {
  let dir: string;
  let fs: ReturnType<typeof mountNew>;
  let file: string;
  let plan: DumpPlan;
  let pages: SharedPages;
  let dump: Buffer;
  let before: object;

  const metadata = () => {
    const { mode, mtimeNs, ino } = statSync(file, { bigint: true });
    return { mode, mtimeNs, ino };
  };
  const using = async <T>(calls: FileCalls, work: (opened: InPlaceFile) => Promise<T>): Promise<T> => {
    const opened = await InPlaceFile.open(file, calls);
    try {
      return await work(opened);
    } finally {
      await opened.close();
    }
  };
  const convert = (calls: FileCalls = FILE_CALLS) => using(calls, (f) => f.convert(plan, pages));
  const undo = (calls: FileCalls = FILE_CALLS) => using(calls, (f) => f.undo());
  const undoIfBegun = () =>
    undo().catch((error) => {
      if (error.code !== 'journal-missing') throw error;
    });
  const expectElf = (what: string) => {
    if (!readFileSync(file).equals(elf)) throw new Error(`${what}: not the ELF file`);
    expect([what, metadata()]).toEqual([what, before]);
    expect([what, readdirSync(fs.path).filter((name) => name !== 'lost+found')]).toEqual([what, ['vm.elf']]);
  };
  const expectDump = (what: string) => {
    if (!readFileSync(file).equals(dump)) throw new Error(`${what}: not the dump`);
  };
  /** Converts what the last run left, as the command does. */
  const again = async () => {
    const state = await using(FILE_CALLS, async (f) => {
      const found = await f.state();
      if (found === 'begun') await f.undo();
      return found;
    });
    if (state !== 'dump') await convert();
  };

  beforeAll(async () => {
    dir = mkdtempSync(join(tmpdir(), `elf2dmp-${kind}-`));
    fs = mountNew(kind, dir, 512 << 20);
    file = join(fs.path, 'vm.elf');
    writeFileSync(file, elf, { mode: 0o400, flush: true });
    utimesSync(file, 1_600_000_000.5, 1_600_000_000.5);
    before = metadata();
    const image = openImage(file);
    const found = sharedPages(image);
    if (found instanceof Reason) throw new Error(found.text);
    pages = found;
    plan = planConversion(await locateWindows(image), { type: 'bitmap', firstPage: inPlaceFirstPage(pages) }).plan;
    image.close();
    await convert();
    dump = readFileSync(file);
    expect(dump.toString('latin1', 0, 8)).toBe('PAGEDU64');
    await undo();
    expectElf('undone');
  });
  afterAll(() => {
    fs?.unmount();
    rmSync(dir, { recursive: true, force: true });
  });

  it('opens a file that is read-only for its owner too, and leaves it so', async () => {
    const NOBODY = 65534;
    const owner = statSync(file).uid;
    for (const path of [dir, fs.path]) chmodSync(path, 0o777);
    chownSync(file, NOBODY, NOBODY);
    process.seteuid!(NOBODY);
    try {
      const all = faultyCalls();
      await convert(all);
      expect(all.made.filter((name) => name === 'chmod')).toHaveLength(2);
      expect(statSync(file).mode & 0o777).toBe(0o400);
      await undo();
      expectElf('undone by its owner');
      // Between the two: the file is left writable, which the journal knows.
      await interrupted(convert, all.made.lastIndexOf('chmod'), 'dies');
      expect(statSync(file).mode & 0o777).toBe(0o600);
      await undo();
      expectElf('killed while it was writable');
    } finally {
      process.seteuid!(0);
      chownSync(file, owner, owner);
    }
    // Another user's, who may read it.
    chmodSync(file, 0o444);
    process.seteuid!(NOBODY);
    try {
      await expect(convert()).rejects.toMatchObject({ code: 'in-place-not-owner', kind: 'io-permanent' });
    } finally {
      process.seteuid!(0);
      chmodSync(file, 0o400);
    }
    expectElf("another user's");
  });

  it('takes back an insertion or removal that the file system gave up', async () => {
    const { insertRange, collapseRange, truncate, write } = FILE_CALLS;
    const full = () => Object.assign(new Error('ENOSPC: no space left on device, injected'), { code: 'ENOSPC' });
    const lengthens = async (fd: number, length: number) => {
      await truncate(fd, elf.length + length);
      throw full();
    };
    await expect(convert({ ...FILE_CALLS, insertRange: lengthens })).rejects.toMatchObject({ code: 'io-enospc' });
    expectElf('lengthened, but nothing moved');

    const leavesTheLength = async (fd: number, length: number) => {
      await collapseRange(fd, length);
      await lengthens(fd, length);
    };
    await convert();
    await expect(undo({ ...FILE_CALLS, collapseRange: leavesTheLength })).rejects.toMatchObject({ code: 'io-enospc' });
    await undo();
    expectElf('moved back, but not shortened');

    // Going back fails too: the error says so, and the cause removed, it can be done.
    const fails = async () => {
      throw full();
    };
    const late = async (fd: number, length: number) => {
      await insertRange(fd, length);
      throw full();
    };
    const error = await convert({ ...FILE_CALLS, insertRange: late, collapseRange: fails }).catch((e) => e);
    expect(error).toMatchObject({ code: 'in-place-stuck' });
    expect(error.details.hint).toContain('--undo');
    expect(readFileSync(file).toString('latin1', 0, 8)).not.toBe('PAGEDU64');
    await undo();
    expectElf('stuck');

    const noPatch = async (fd: number, bytes: Buffer, at: number) => {
      if (at > pages.offset) throw full();
      await write(fd, bytes, at);
    };
    await convert({ ...FILE_CALLS, write: noPatch, collapseRange: fails }).catch(() => undefined);
    expect(() => openImage(file)).toThrow(expect.objectContaining({ code: 'in-place-begun' }));
    await undo();
    expectElf('stuck half-way');
  });

  // What the file system does of it is the same: so each on one of them is enough.
  const fault = kind === 'ext4' ? 'fails' : 'fails-late';
  it(`leaves the ELF file whichever call of a conversion ${fault}`, async () => {
    const all = faultyCalls();
    await convert(all);
    await undo();
    for (const [at, name] of faultyAt(all.made, fault)) {
      const what = `${name} (${at}) ${fault}`;
      const calls = faultyCalls(at, fault);
      const error = await convert(calls).catch((e) => e);
      if (error === undefined) {
        // Only what comes after the work may fail unheard.
        expect([what, calls.wentWrong ? name : 'close']).toEqual([what, 'close']);
        expectDump(what);
        await undo();
      } else expect([what, error]).toEqual([what, expect.any(Elf2dmpError)]);
      expectElf(what);
    }
  });

  it.each([fault, 'dies'] as const)('undoes, whichever call of an earlier undoing %s', async (fault) => {
    const all = faultyCalls();
    await convert();
    await undo(all);
    for (const [at, name] of all.made.entries()) {
      const what = `${name} (${at}) ${fault}`;
      await convert();
      await interrupted(undo, at, fault);
      await undoIfBegun();
      expectElf(what);
    }
  });

  it('undoes, and converts, whichever call an earlier conversion was at when its process died', async () => {
    const all = faultyCalls();
    await convert(all);
    await undo();
    for (const [at, name] of faultyAt(all.made, 'dies')) {
      const what = `${name} (${at})`;
      await interrupted(convert, at, 'dies');
      await undoIfBegun();
      expectElf(what);

      await interrupted(convert, at, 'dies');
      await again();
      expectDump(what);
      await undo();
      expectElf(what);
    }
  });

  async function interrupted(work: (calls: FileCalls) => Promise<unknown>, at: number, fault: Fault): Promise<void> {
    const calls = faultyCalls(at, fault);
    await work(calls).catch((error) => expect(error).toBeInstanceOf(Elf2dmpError));
    await calls.bury();
  }

  // Here too.
  const job = kind === 'ext4' ? 'convert' : 'undo';
  it(`survives SIGKILL at every call of ${job} that changes something`, async () => {
    const ready = () => (job === 'undo' ? convert() : undefined);
    await ready();
    const { printed } = await killedRun(Number.POSITIVE_INFINITY);
    if (job === 'convert') await undo();
    expect(printed.length).toBeGreaterThan(15);
    for (const [at, name] of printed.entries()) {
      const what = `${name} (${at})`;
      await ready();
      expect([what, (await killedRun(at)).signal]).toEqual([what, 'SIGKILL']);
      if (at % 2 === 0 && existsSync(`${file}.elf2dmp-undo`)) {
        await again();
        expectDump(what);
      }
      await undoIfBegun();
      expectElf(what);
    }
  });

  function killedRun(at: number): Promise<{ signal: string | null; printed: string[] }> {
    const script = fileURLToPath(new URL('../support/killed-run.mjs', import.meta.url));
    const child = spawn(process.execPath, [script, job, file, `${at}`], { stdio: ['ignore', 'pipe', 'inherit'] });
    let text = '';
    child.stdout.on('data', (data) => {
      text += data;
    });
    return new Promise((resolve) =>
      child.on('close', (_, signal) => resolve({ signal, printed: text.split('\n').filter(Boolean) })),
    );
  }
});
