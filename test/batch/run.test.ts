import { appendFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ReportFile, renderJunit } from '../../src/batch/report.ts';
import { type RunOptions, runBatch } from '../../src/batch/run.ts';
import type { JobRecord } from '../../src/batch/sidecar.ts';
import { linesOf } from '../support/batches.ts';

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'elf2dmp-run-'));
});
afterEach(() => rmSync(dir, { recursive: true }));

/** Instead of elf2dmp: what its input says, in a process that has INPUT and OUTPUT. */
function options(more: Partial<RunOptions> = {}): RunOptions {
  const script = join(dir, 'job.mjs');
  writeFileSync(
    script,
    `import { readFileSync, writeFileSync, appendFileSync } from 'node:fs';
    const [input, output] = process.argv.slice(-2);
    const fail = (kind, code) => {
      console.log(JSON.stringify({ outcome: 'failed', error: { code: 'made-up', kind, text: kind } }));
      process.exitCode = code;
    };
    const done = () => {
      writeFileSync(output, 'dump');
      console.log(JSON.stringify({ outcome: 'good', windows: { build: 1, bugCheck: null }, diagnostics: [] }));
    };
    const tries = () => (appendFileSync(output + '.tries', '.'), readFileSync(output + '.tries').length);
    eval(readFileSync(input, 'utf8'));`,
  );
  return {
    command: [process.execPath, script],
    jobs: 2,
    keepGoing: true,
    retries: 1,
    force: false,
    hash: false,
    recheck: false,
    retryFailed: false,
    html: false,
    exitCodeOf: () => 6,
    ...more,
  };
}

const job = (name: string, script: string) => {
  writeFileSync(join(dir, name), script);
  return { input: join(dir, name), output: join(dir, `${name}.dmp`), relative: name, options: {} };
};

describe('runBatch', () => {
  it('survives jobs that crash, and keeps what they said', async () => {
    const records: JobRecord[] = [];
    const jobs = [
      job('killed', "console.error('last words'); process.kill(process.pid, 'SIGKILL')"),
      job('exits', 'process.exit(9)'),
      job('good', 'done()'),
    ];
    await runBatch(jobs, options(), (record) => records.push(record));
    const found = Object.fromEntries(records.map((r) => [r.input.slice(dir.length + 1), r]));
    expect(found['killed']).toMatchObject({
      outcome: 'failed',
      exitCode: 137,
      error: { code: 'crashed', stderr: 'last words\n' },
    });
    expect(found['exits']).toMatchObject({ exitCode: 9, error: { code: 'crashed' } });
    expect(found['good']).toMatchObject({ outcome: 'good', exitCode: 0, bytes: 4 });
  });

  it('tries again what may pass, and only that', async () => {
    const jobs = [
      job('once', "tries() < 2 ? fail('io-transient', 7) : done()"),
      job('always', "tries(); fail('io-transient', 7)"),
      job('corrupt', "tries(); fail('corrupt', 5)"),
    ];
    const attempts = async (more: Partial<RunOptions> = {}) =>
      (await runBatch(jobs, options(more), () => undefined)).map(({ record, status }) => [
        status,
        record?.outcome,
        record?.attempts,
      ]);
    expect(await attempts()).toEqual([
      ['ran', 'good', 2],
      ['ran', 'failed', 2],
      ['ran', 'failed', 1],
    ]);
    // In another run too.
    expect((await attempts({ retries: 0 })).map(([status]) => status)).toEqual(['skipped', 'ran', 'skipped']);
    expect((await attempts({ retries: 0, retryFailed: true })).map(([status]) => status)).toEqual([
      'skipped',
      'ran',
      'ran',
    ]);
  });

  it('stops its jobs by closing their channel, so that Ctrl-C and a batch that is gone are one', async () => {
    const stop = new AbortController();
    const script =
      "process.on('disconnect', () => process.exit(143)); setInterval(() => {}, 1000); process.send({ phase: 'open' })";
    const results = await runBatch(
      [job('long', script), job('longer', script), job('never', 'done()')],
      options({ signal: stop.signal, onEvent: (event) => event.type === 'progress' && stop.abort() }),
      () => undefined,
    );
    expect(results.map(({ status }) => status)).toEqual(['stopped', 'stopped', 'stopped']);
  });
});

describe('ReportFile', () => {
  const record = (id: string, more: Partial<JobRecord> = {}) =>
    ({ id, output: `${id}.dmp`, outcome: 'good', exitCode: 0, ...more }) as JobRecord;

  it('writes a line once, and the same failure once', async () => {
    const file = join(dir, 'r.jsonl');
    for (let i = 0; i < 2; i++) {
      const report = await ReportFile.open(file);
      report.add(record('a'));
      report.add(record('a'));
      report.add(record(`b${i}`, { output: 'b.dmp', outcome: 'failed', exitCode: 6 }));
      report.close();
    }
    expect(linesOf(file).map(({ id }) => id)).toEqual(['a', 'b0']);
    const report = await ReportFile.open(file);
    report.add(record('b3', { output: 'b.dmp' }));
    report.close();
    expect(linesOf(file)).toHaveLength(3);
  });

  it('makes blanks of what killed writers left, and loses nothing that came behind it', async () => {
    const file = join(dir, 'r.jsonl');
    const line = (id: string) => `${JSON.stringify(record(id))}\n`;
    appendFileSync(
      file,
      `${line('a')}${line('torn').slice(0, 20)}${line('b')}${line('torn').slice(0, -1).slice(0, 9)}`,
    );
    const report = await ReportFile.open(file);
    for (const id of ['a', 'b', 'torn']) report.add(record(id));
    report.close();
    expect(linesOf(file).map(({ id }) => id)).toEqual(['a', 'b', 'torn']);
    expect(readFileSync(file, 'utf8')).toContain(`\n${' '.repeat(20)}{"id":"b"`);
  });
});

describe('renderJunit', () => {
  it('escapes what XML does not allow', () => {
    const one = { ...job('a', ''), relative: '<a&"\u0001>' };
    const error = { code: 'c', kind: 'corrupt', text: '\u001b[31m]]>' } as const;
    const failed = { outcome: 'failed', exitCode: 5, seconds: 1, error, losses: [] } as unknown as JobRecord;
    const text = renderJunit(
      [
        { job: one, status: 'ran', record: failed },
        { job: one, status: 'stopped' },
      ],
      { known: undefined, failOnNew: false },
    );
    expect(text).toContain('name="&lt;a&amp;&quot;\\u{1}&gt;"');
    expect(text).toContain('message="\\u{1b}[31m]]&gt;"');
    expect(text).toContain('failures="1" errors="0" skipped="1"');
  });
});
