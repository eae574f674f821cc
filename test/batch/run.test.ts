import { appendFileSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ReportFile, renderJunit } from '../../src/batch/report.ts';
import { type BatchEvent, type RunOptions, runBatch } from '../../src/batch/run.ts';
import type { JobRecord } from '../../src/batch/sidecar.ts';
import { linesOf } from '../support/batches.ts';

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'elf2dmp-run-'));
});
afterEach(() => rmSync(dir, { recursive: true }));

/** Instead of elf2dmp: what its input says, in a process that takes jobs and knows each one's INPUT and OUTPUT. */
function options(more: Partial<RunOptions> = {}): RunOptions {
  const script = join(dir, 'job.mjs');
  writeFileSync(
    script,
    `import { readFileSync, writeFileSync, appendFileSync } from 'node:fs';
    let input, output;
    const end = (ended, exitCode, last = false) => process.send({ ended, exitCode, last });
    const fail = (kind, code) => end({ outcome: 'failed', error: { code: 'made-up', kind, text: kind } }, code);
    const done = (last) => {
      writeFileSync(output, String(process.pid));
      end({ outcome: 'good', windows: { build: 1, bugCheck: null }, diagnostics: [] }, 0, last);
    };
    const tries = () => (appendFileSync(output + '.tries', '.'), readFileSync(output + '.tries').length);
    process.on('message', ({ job }) => {
      if (!job) return;
      [input, output] = job.slice(-2);
      eval(readFileSync(input, 'utf8'));
    });`,
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
    expect(found['good']).toMatchObject({ outcome: 'good', exitCode: 0 });
  });

  it('keeps a process for its next job, unless the last one left it in doubt', async () => {
    const processes = async (...scripts: string[]) => {
      const jobs = scripts.map((script, i) => job(`${scripts.length}-${i}`, script));
      await runBatch(jobs, options({ jobs: 1, retries: 0 }), () => undefined);
      return jobs.map(({ output }) => (existsSync(output) ? readFileSync(output, 'utf8') : undefined));
    };
    const [first, second, third] = await processes('done()', "fail('corrupt', 5)", 'done()');
    expect([second, third]).toEqual([undefined, first]);
    const replaced = await processes('done(true)', 'done()', "process.kill(process.pid, 'SIGKILL')", 'done()');
    expect(new Set(replaced).size).toBe(4);
    // Nothing stays when the batch is done.
    for (const pid of [first, replaced[1], replaced[3]]) expect(existsSync(`/proc/${pid}`)).toBe(false);
  });

  it('keeps apart what jobs of one process say last', async () => {
    const records: JobRecord[] = [];
    const jobs = [
      job('a', "console.error('of the first'); done()"),
      job('b', "console.error('of the second'); process.exit(9)"),
    ];
    await runBatch(jobs, options({ jobs: 1 }), (record) => records.push(record));
    expect(records[1]?.error?.stderr).toBe('of the second\n');
  });

  it('records nothing of a job that asks for its name when the batch has ended', async () => {
    const stop = new AbortController();
    const asking = job('asks', "process.send({ phase: 'open' }); process.send({ ready: input });");
    const onEvent = ({ type }: BatchEvent) => type === 'progress' && stop.abort();
    const [result] = await runBatch([asking], options({ signal: stop.signal, onEvent }), () => undefined);
    expect(result?.status).toBe('stopped');
    expect(readdirSync(dir).sort()).toEqual(['asks', 'job.mjs']);
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

  it('vouches for the dump that is there until the new one has its name', async () => {
    // Killed when the new dump is complete: the old one stays, and is still the batch's.
    const script = (content: string, last: string) => `
      writeFileSync(output + '.part', ${JSON.stringify(content)});
      process.once('message', () => ${last});
      process.send({ ready: output + '.part' })`;
    const run = async (...words: [content: string, last: string]) => {
      const [result] = await runBatch([job('vm', script(...words))], options({ retries: 0 }), () => undefined);
      const { output } = result!.job;
      return [result?.record?.error?.code, readFileSync(output, 'utf8')];
    };
    const publish = (text: string) =>
      `(writeFileSync(output, '${text}'), end({ outcome: 'good', windows: { build: 1, bugCheck: null }, diagnostics: [] }, 0))`;
    expect(await run('old', publish('old'))).toEqual([undefined, 'old']);
    expect(await run('new', "process.kill(process.pid, 'SIGKILL')")).toEqual(['crashed', 'old']);
    expect(await run('newer', publish('newer'))).toEqual([undefined, 'newer']);
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
