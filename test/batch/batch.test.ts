import { spawn } from 'node:child_process';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { JobRecord } from '../../src/batch/sidecar.ts';
import { convert } from '../../src/index.ts';
import { buildArm64Guest } from '../guest/arm64.ts';
import { writeArm64Elf } from '../guest/arm64-elf.ts';
import { writeElf } from '../guest/elf.ts';
import { buildGuest32 } from '../guest/x86/guest.ts';
import {
  BIN,
  type Ended,
  endState,
  type Kind,
  killAfter,
  linesOf,
  makeArchive,
  runBatchCommand,
} from '../support/batches.ts';
import { canMount, mountNew } from '../support/loop-mounts.ts';
import { held } from '../support/schemas.ts';

const CRASH_32 = { code: 0xd1, parameters: [0x10, 2, 0, 0x8a460003], processor: 1 } as const;
let dir: string;
let archive: string;
let made: Map<string, Kind>;
let undisturbed: ReturnType<typeof endState>;
let first: Ended;
let out: string;
let report: string;
let runs = 0;

const outputOf = (name: string) => join(out, `${name}.dmp`);
const batch = (...more: string[]) =>
  runBatchCommand([archive, '--out', out, '--name', '{relative}.dmp', '--jsonl', report, '--jobs', '2', ...more]);
const place = () => {
  out = join(dir, `out${runs}`);
  report = join(dir, `report${runs++}.jsonl`);
};

beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), 'elf2dmp-batch-'));
  archive = join(dir, 'archive');
  made = makeArchive(archive, 10, 5);
  place();
  first = await batch('--junit', join(dir, 'junit.xml'));
  undisturbed = endState(out, report);
});
beforeEach(place);
// Jobs of a batch that was killed may be about to end.
afterAll(() => rmSync(dir, { recursive: true, force: true, maxRetries: 10 }));

describe('elf2dmp batch', () => {
  it('makes a page for each dump, and an index with what needs a look first', async () => {
    await batch('--html');
    const index = readFileSync(join(out, 'elf2dmp-index.html'), 'utf8');
    const links = [...index.matchAll(/<a href="([^#"]+)">/g)].map(([, link]) => decodeURIComponent(link!));
    const pages = readdirSync(out, { recursive: true }).filter((name) => /dmp\.html$/.test(String(name)));
    // Each is linked by time, by guest, and a crashed guest's from its crash.
    expect([...new Set(links)].map((link) => link.slice(2)).sort()).toEqual(pages.map(String).sort());
    expect(index).toMatch(/<h2>Crashes by signature <span class="count">1<\/span><\/h2>/);
    expect(pages.length).toBeGreaterThan(4);
    expect(index).toMatch(/<h1>\d+ guests? crashed, in 1 way<\/h1>\s*<p>\d+ of 1?\d dumps failed\.<\/p>/);
    const at = ['signatures', 'failed', 'time', 'guests'].map((id) => index.indexOf(`<section id="${id}"`));
    expect(at).toEqual([...at].sort((a, b) => a - b));
    expect(at[0]).toBeGreaterThan(0);
    const state = endState(out, report);
    // Run again it makes none anew, and the index is whole.
    await batch('--html');
    expect(endState(out, report)).toEqual(state);
    expect(readFileSync(join(out, 'elf2dmp-index.html'), 'utf8')).toBe(index);
  });

  it('gives each input its outcome, in the report, in JUnit and in the exit code', () => {
    const lines = linesOf(join(dir, 'report0.jsonl'));
    expect(
      lines.map(({ input, outcome, exitCode }) => [input.slice(archive.length + 1), outcome, exitCode]).sort(),
    ).toEqual([...made].map(([name, kind]) => [name, kind.outcome, kind.exitCode]).sort());
    expect(first.code).toBe(5);
    expect(first.stdout).toMatch(/^good +8 +0 /m);
    for (const line of lines) held('batch', line);
    expect(lines.find(({ input }) => input.includes('crashed'))).toMatchObject({
      schema: 'elf2dmp-batch-1',
      windows: { build: 19041, bugCheck: { code: '0xd1' } },
    });
    const junit = readFileSync(join(dir, 'junit.xml'), 'utf8');
    expect(junit).toContain('tests="10" failures="1"');
    expect(junit.match(/<testcase /g)).toHaveLength(10);
  });

  it('converts guests of all machines', async () => {
    const inputs = join(dir, 'machines');
    mkdirSync(inputs);
    writeFileSync(join(inputs, 'x86.elf'), writeElf(buildGuest32({ crash: CRASH_32 })));
    writeFileSync(join(inputs, 'arm64.elf'), writeArm64Elf(buildArm64Guest({ processors: 2 })));
    const { code } = await runBatchCommand([inputs, '--out', out, '--jsonl', report]);
    expect(code).toBe(0);
    const lines = linesOf(report) as unknown as JobRecord[];
    expect(lines.map(({ windows }) => [windows?.build, windows?.bugCheck?.code]).sort()).toEqual([
      [22000, undefined],
      [7601, '0xd1'],
    ]);
    const marks = readdirSync(out)
      .filter((name) => name.endsWith('.dmp'))
      .sort()
      .map((name) => readFileSync(join(out, name)).toString('latin1', 0, 8));
    expect(marks).toEqual(['PAGEDU64', 'PAGEDUMP']);
  });

  it('says which crashes there are, and with a list of known ones which are new', async () => {
    out = join(dir, 'out0');
    report = join(dir, 'report0.jsonl');
    const crashed = linesOf(report).find(({ input }) => input.includes('crashed'))!;
    const { hash, text } = (crashed as unknown as JobRecord).windows!.signatures.rva;
    expect(first.stdout).toMatch(
      new RegExp(`^crash ${hash} 0xd1_3 .*: \\d+ dumps?, first seen 2023-.*, last seen 2023-`, 'm'),
    );
    const [known, junit] = [join(dir, 'known.txt'), join(dir, 'known.xml')];
    writeFileSync(known, `# none\n`);
    const one = (...more: string[]) =>
      runBatchCommand([crashed.input, '--out', join(dir, 'one'), '--known', known, '--junit', junit, ...more]);
    expect(await one()).toMatchObject({ code: 0, stdout: expect.stringMatching(/^new crash /m) });
    expect((await one('--fail-on-new')).code).toBe(9);
    expect(readFileSync(junit, 'utf8')).toMatch(
      /tests="1" failures="1"[\s\S]*<testcase classname="0xd1_3 [^"]*"[\s\S]*<failure type="new-crash" message="new crash: /,
    );
    // A failure is told in any case.
    expect(await one('--fail-on-new', '--quiet')).toMatchObject({
      code: 9,
      stdout: '',
      stderr: expect.stringMatching(new RegExp(`^new crash ${hash} .*: 1 dump, [^\n]*\n$`)),
    });
    expect(await one('--quiet')).toMatchObject({ code: 0, stderr: '' });
    writeFileSync(known, `${hash} ${text}\n`);
    expect(await one('--fail-on-new')).toMatchObject({ code: 0, stdout: expect.stringMatching(/^known crash /m) });
    expect(readFileSync(junit, 'utf8')).toMatch(/failures="0"[\s\S]*<system-out>known crash: /);
    writeFileSync(known, 'demo.sys\n');
    expect((await one()).code).toBe(2);
  });

  it('does nothing the second time, and writes no line again', async () => {
    out = join(dir, 'out0');
    report = join(dir, 'report0.jsonl');
    const { code, stdout } = await batch();
    expect([code, endState(out, report)]).toEqual([5, undisturbed]);
    expect(stdout).toMatch(/^good +8 +8 /m);
  });

  it('ends as if undisturbed after kills', async () => {
    for (const [milliseconds, jobsToo] of [
      [300, false],
      [500, true],
      [700, false],
      [900, true],
      [1100, true],
    ] as const) {
      const args = [archive, '--out', out, '--name', '{relative}.dmp', '--jsonl', report, '--jobs', '2'];
      await runBatchCommand(args, killAfter(milliseconds, jobsToo));
    }
    expect((await batch()).code).toBe(5);
    expect(endState(out, report)).toEqual(undisturbed);
  });

  it('stops cleanly on SIGTERM, and goes on', async () => {
    const args = [archive, '--out', out, '--name', '{relative}.dmp', '--jsonl', report, '--jobs', '2'];
    const { code, stderr } = await runBatchCommand(args, (pid, ended) => {
      const timer = setInterval(() => {
        // As soon as there is something: a fast machine is soon done with the rest.
        if (!existsSync(report) || linesIn(report) < 2) return;
        clearInterval(timer);
        process.kill(pid, 'SIGTERM');
      }, 1);
      ended.addEventListener('abort', () => clearInterval(timer));
    });
    expect([code, stderr]).toEqual([143, expect.stringContaining('ended by SIGTERM')]);
    const files = readdirSync(out, { recursive: true, encoding: 'utf8' });
    expect(files.filter((name) => name.endsWith('.part'))).toEqual([]);
    // A dump that got its name just when the batch stopped has a sidecar that vouches for it, and no record.
    const states = files
      .filter((name) => name.endsWith('.dmp.json'))
      .map((name) => JSON.parse(readFileSync(join(out, name), 'utf8')).state);
    expect(states.filter((state) => state === 'finished')).toHaveLength(linesOf(report).length);
    await batch();
    expect(endState(out, report)).toEqual(undisturbed);
  });

  it('is told how far a job is, and a job stops when the batch is gone', async () => {
    const output = join(dir, 'stopped.dmp');
    const child = spawn(process.execPath, [BIN, '--json', '-', output], { stdio: ['pipe', 'ignore', 'ignore', 'ipc'] });
    const input = readFileSync(join(archive, [...made.keys()][0]!));
    child.stdin!.write(input.subarray(0, input.length / 2));
    const phases = new Set<unknown>();
    await new Promise<void>((resolve) =>
      child.on('message', ({ phase }: { phase: unknown }) => phases.add(phase) && phase === 'spool' && resolve()),
    );
    child.disconnect();
    child.stdin!.on('error', () => undefined).write(input.subarray(input.length / 2));
    expect(await new Promise((resolve) => child.on('exit', resolve))).toBe(143);
    expect([phases.has('open'), existsSync(output)]).toEqual([true, false]);
  });

  it('in shards at once writes one report', async () => {
    const ended = await Promise.all(['0/2', '1/2'].map((shard) => batch('--shard', shard)));
    expect(
      ended.map(({ stderr }) => /shard .*: (\d+) of 10/.exec(stderr)?.[1]).reduce((sum, n) => sum + Number(n), 0),
    ).toBe(10);
    expect(endState(out, report)).toEqual(undisturbed);
  });

  it('has a file for each shard in a report directory, and no line twice when the shards change', async () => {
    const texts = join(dir, 'texts');
    mkdirSync(texts);
    for (const name of ['a', 'b', 'c', 'd']) writeFileSync(join(texts, name), '\x7fELF, and no dump');
    const reports = join(dir, 'reports');
    const run = (...more: string[]) => runBatchCommand([texts, '--out', out, '--jsonl', `${reports}/`, ...more]);
    await Promise.all([run('--shard', '0/2'), run('--shard', '1/2')]);
    await run();
    expect(readdirSync(reports).sort()).toEqual(['report-0-of-2.jsonl', 'report-1-of-2.jsonl', 'report.jsonl']);
    const lines = readdirSync(reports).map((name) => linesIn(join(reports, name)));
    expect([lines[0]! + lines[1]!, lines[2]]).toEqual([4, 0]);
  });

  it('converts again what changed, and what does not hold with --recheck', async () => {
    const live = [...made.keys()].find((name) => name.endsWith('live.elf')) ?? '';
    const inputs = ['a', 'b'].map((name) => join(dir, name));
    for (const name of inputs) copyFileSync(join(archive, live), name);
    const limit = ['--hash', '--name', '{relative}.dmp', '--jsonl', report, '--out', out];
    const run = (...more: string[]) => runBatchCommand([...inputs, ...limit, ...more]);
    const outputs = ['a', 'b'].map((name) => join(out, `${name}.dmp`));
    expect((await run()).stdout).toMatch(/^good +2 +0 /m);
    const dumps = outputs.map((name) => readFileSync(name));
    utimesSync(inputs[0]!, 1, 1);
    expect((await run()).stdout).toMatch(/^good +2 +1 /m);
    expect(linesOf(report)).toHaveLength(3);
    // A changed byte is not seen by size, but by --recheck.
    const changed = Buffer.from(dumps[1]!);
    changed[changed.length - 1]! ^= 1;
    writeFileSync(outputs[1]!, changed);
    expect((await run()).stdout).toMatch(/^good +2 +2 /m);
    expect((await run('--recheck')).stdout).toMatch(/^good +2 +1 /m);
    truncateSync(outputs[0]!, 1 << 20);
    expect((await run()).stdout).toMatch(/^good +2 +1 /m);
    // Nothing shows any more that it was ours.
    truncateSync(outputs[0]!, 4096);
    expect((await run()).code).toBe(6);
    expect(readFileSync(outputs[0]!)).toHaveLength(4096);
    expect((await run('--force')).stdout).toMatch(/^good +2 +1 /m);
    expect(outputs.map((name) => readFileSync(name).equals(dumps[outputs.indexOf(name)]!))).toEqual([true, true]);
    expect((await run('--type', 'bitmap')).stdout).toMatch(/^good +2 +0 /m);
  });

  it('writes what a single conversion writes, of files that QEMU wrote', async () => {
    const samples = fileURLToPath(new URL('../../samples/', import.meta.url));
    const { code, stdout } = await runBatchCommand([`${samples}*.elf.gz`, '--out', out, '--verify']);
    expect([code, stdout]).toEqual([0, expect.stringMatching(/^good +4 +0 /m)]);
    for (const name of ['live-19041-4cpu', 'crashed-19041-2cpu', 'crashed-arm64-22000-4cpu']) {
      const output = join(dir, `${name}.dmp`);
      await convert({ input: join(samples, `${name}.elf.gz`), output });
      expect(readFileSync(join(out, `${name}.dmp`)).equals(readFileSync(output))).toBe(true);
    }
  });

  it("leaves other people's files", async () => {
    const [name = ''] = [...made.keys()];
    const one = (...more: string[]) =>
      runBatchCommand([join(archive, name), '--out', out, '--name', 'one.dmp', ...more]);
    await one('--dry-run');
    expect(existsSync(out)).toBe(false);
    await batch('--dry-run');
    expect([existsSync(out), existsSync(report)]).toEqual([false, false]);
    await one();
    rmSync(join(out, 'one.dmp.json'));
    writeFileSync(join(out, 'one.dmp.html'), 'mine');
    const refused = await one('--html');
    expect([refused.code, refused.stderr]).toEqual([6, expect.stringContaining('exists already')]);
    expect(readFileSync(join(out, 'one.dmp.html'), 'utf8')).toBe('mine');
    for (const name of ['one.dmp.html', 'elf2dmp-index.html']) rmSync(join(out, name));
    expect((await one('--dry-run')).stdout).toMatch(/^taken/);
    expect(readdirSync(out)).toEqual(['one.dmp']);
    writeFileSync(join(out, 'one.dmp.json'), '{"a":1}');
    expect((await one('--force')).code).toBe(6);
    rmSync(join(out, 'one.dmp.json'));
    expect((await one('--force')).code).toBe(0);
  });

  it('stops at the first failure with --fail-fast', async () => {
    const { code, stdout } = await batch('--fail-fast', '--jobs', '1');
    expect(code).toBe(5);
    expect(stdout).toMatch(/^not run +[1-9]/m);
  });

  it('takes all of it from a configuration', async () => {
    const config = join(dir, 'batch.toml');
    writeFileSync(
      config,
      `inputs = ["archive/host*/*.elf"]\nexclude = ["**/*lossy*", "**/*empty*"]\nout = "out${runs - 1}"\nname = "{relative}.dmp"
      jobs = 2\nreport = "report${runs - 1}.jsonl"\n[options]\nstrict = true\n
      [[override]]\nmatch = "**/*crashed*"\noptions = { type = "bitmap" }\n`,
    );
    expect((await runBatchCommand([config])).code).toBe(0);
    const crashed = [...made.keys()].find((name) => name.includes('crashed')) ?? '';
    expect(readFileSync(outputOf(crashed)).readUInt32LE(0xf98)).toBe(5);
    expect(readFileSync(outputOf(crashed.replace(/.*/, [...made.keys()][0] ?? ''))).readUInt32LE(0xf98)).toBe(1);
  });

  it.each([
    [['--out', 'b'], 'no inputs'],
    [['a'], '--out is missing'],
    [['a.toml', 'b', '--out', 'c'], 'is a configuration'],
    [['a', '--out', 'b', '--jobs', '0'], '--jobs: expected a whole number from 1'],
    [['a', '--out', 'b', '--dtb', 'xyz'], '--dtb: expected a hexadecimal address'],
    [['a', '--out', 'b', '--keep-going', '--fail-fast'], 'do not go together'],
    [['a', '--out', 'b', '--shard', '2/2'], 'is not a shard'],
  ])('refuses %j', async (args, message) => {
    const { code, stderr, stdout } = await runBatchCommand(args);
    expect([code, stdout, stderr]).toEqual([2, '', expect.stringContaining(message)]);
  });
});

const linesIn = (file: string): number => readFileSync(file, 'utf8').split('\n').length - 1;

describe.skipIf(!canMount())('on a full disk', () => {
  it('fails clearly with nothing partial, and goes on once there is space', async () => {
    const { path, unmount } = mountNew('ext4', dir, 160 * 2 ** 20);
    try {
      out = join(path, 'out');
      const filler = join(path, 'filler');
      writeFileSync(filler, Buffer.alloc(100 * 2 ** 20));
      const refused = await batch();
      expect([refused.code, refused.stderr]).toEqual([
        7,
        expect.stringMatching(/^elf2dmp: .*the dumps need .* are free/m),
      ]);
      expect(existsSync(out)).toBe(false);
      const full = await batch('--no-space-check', '--retries', '0');
      expect([full.code, full.stderr]).toEqual([
        7,
        expect.stringMatching(/failed \(7\): .*(no space left|file system has)/),
      ]);
      const names = readdirSync(out, { recursive: true, encoding: 'utf8' });
      const written = linesOf(report).filter(({ bytes }) => bytes !== null);
      expect(written.length).toBeGreaterThan(0);
      expect(names.filter((name) => name.endsWith('.dmp'))).toHaveLength(written.length);
      expect(names.filter((name) => name.endsWith('.part'))).toEqual([]);
      rmSync(filler);
      expect((await batch()).code).toBe(5);
      expect(endState(out, report).files).toEqual(undisturbed.files);
      const lines = linesOf(report).filter(({ exitCode }) => exitCode !== 7);
      expect(new Set(lines.map(({ output }) => output)).size).toBe(10);
      expect(lines).toHaveLength(10);
    } finally {
      unmount();
    }
  });
});
