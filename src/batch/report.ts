/** A batch's reports: one JSON line for each job, and JUnit XML. */
import { closeSync, openSync, writeSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { setTimeout as wait } from 'node:timers/promises';
import { Elf2dmpError, ioError, printable } from '../core/errors.ts';
import { toJson } from '../core/json.ts';
import { openForAppending } from '../files/publish.ts';
import { type CrashPolicy, crashLine, failsAsNew, isKnown, signatureOf } from './crashes.ts';
import type { JobResult } from './run.ts';
import { asRecord, type JobRecord } from './sidecar.ts';

/** The dumps are there. */
const RUN_AGAIN = 'make it writable or free space, then run the batch again: it adds the lines that are missing';

/** A write in progress ends sooner: an incomplete line that is older stays incomplete. */
const TORN_AFTER_MS = 2000;

/**
 * A report that several batches may write to at once: each line is appended by one write, which local file systems
 * do not interleave. A process killed during a write leaves an incomplete line. The next batch overwrites it with
 * blanks, which JSON allows before a line's value and which do not disturb others that append.
 */
export class ReportFile {
  readonly #file: string;
  readonly #fd: number;
  /** Lines in the report. */
  readonly #ids = new Set<string>();
  /** The last line of each output. */
  readonly #last = new Map<string, JobRecord>();

  private constructor(file: string, fd: number) {
    this.#file = file;
    this.#fd = fd;
  }

  /**
   * Throws `Elf2dmpError`.
   *
   * @param others reports whose lines are not written again
   */
  static async open(file: string, others: readonly string[] = []): Promise<ReportFile> {
    const fd = openForAppending(file);
    try {
      const report = new ReportFile(file, fd);
      const content = await settled(file);
      refuseForeign(file, content);
      report.#take(content);
      for (const other of others) report.#learn(await readFile(other));
      return report;
    } catch (cause) {
      closeSync(fd);
      throw cause instanceof Elf2dmpError ? cause : ioError('use the report', file, cause);
    }
  }

  /** Appends the job's line, unless the report has it or one with the same failure. Throws `Elf2dmpError`. */
  add(record: JobRecord): void {
    const last = this.#last.get(record.output);
    if (this.#ids.has(record.id) || (last && sameFailure(last, record))) return;
    const line = Buffer.from(`${toJson(record)}\n`);
    let written: number;
    try {
      written = writeSync(this.#fd, line);
    } catch (cause) {
      throw ioError('write', this.#file, cause, RUN_AGAIN);
    }
    if (written < line.length) {
      const cause = Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC' });
      throw ioError('write', this.#file, cause, RUN_AGAIN);
    }
    this.#keep(record);
  }

  close(): void {
    closeSync(this.#fd);
  }

  #keep(record: JobRecord): void {
    this.#ids.add(record.id);
    this.#last.set(record.output, record);
  }

  /** Reads the lines, and blanks out incomplete ones. */
  #take(content: Buffer): void {
    const torn = this.#learn(content);
    if (torn.length === 0) return;
    // The descriptor that appends won't do: Linux ignores positions there.
    const fd = openSync(this.#file, 'r+');
    try {
      for (const { at, size } of torn) writeSync(fd, Buffer.alloc(size, ' '), 0, size, at);
    } finally {
      closeSync(fd);
    }
  }

  /** @returns the incomplete lines */
  #learn(content: Buffer): { at: number; size: number }[] {
    const unfinished: { at: number; size: number }[] = [];
    for (let at = 0; at < content.length; ) {
      const newline = content.indexOf(0x0a, at);
      const end = newline < 0 ? content.length : newline;
      const { record, torn } = parseLine(content.subarray(at, end), newline >= 0);
      if (torn > 0) unfinished.push({ at, size: torn });
      if (record) this.#keep(record);
      at = end + 1;
    }
    return unfinished;
  }
}

/** As `ReportFile`, for standard output: every job's line. */
export const reportStream = (write: (text: string) => void): Pick<ReportFile, 'add' | 'close'> => ({
  add: (record) => write(`${toJson(record)}\n`),
  close: () => undefined,
});

/** The file's contents once nobody is writing at its end. */
async function settled(file: string): Promise<Buffer> {
  for (let content = await readFile(file); ; ) {
    if (content.length === 0 || content.at(-1) === 0x0a) return content;
    await wait(TORN_AFTER_MS);
    const later = await readFile(file);
    if (later.length === content.length) return later;
    content = later;
  }
}

/** What each line begins with. */
const LINE_START = '{"id":"';

/** Whether a file with these first bytes may be a report. */
export const mayBeReport = (head: Buffer): boolean => {
  const text = head.toString('latin1').trimStart();
  return text.startsWith(LINE_START) || LINE_START.startsWith(text);
};

/** Throws `Elf2dmpError` unless batches wrote all lines, though perhaps not to their ends. */
function refuseForeign(file: string, content: Buffer): void {
  for (let at = 0, line = 1; at < content.length; line++) {
    const newline = content.indexOf(0x0a, at);
    const end = newline < 0 ? content.length : newline;
    const part = content.subarray(at, end);
    if (!mayBeReport(part) || (isJson(part) && !parseLine(part, true).record)) {
      throw new Elf2dmpError({
        code: 'report-unknown',
        kind: 'io-permanent',
        message: 'this file exists, but it is not the report of a batch; it was left as it is',
        file,
        structure: `line ${line}`,
        expected: `a line that begins with ${LINE_START}`,
        hint: 'name another file for --jsonl',
      });
    }
    at = end + 1;
  }
}

function isJson(line: Buffer): boolean {
  try {
    JSON.parse(line.toString('utf8'));
    return true;
  } catch {
    return false;
  }
}

/** @returns a line's record, and how many bytes of an incomplete one precede it */
function parseLine(line: Buffer, whole: boolean): { record?: JobRecord; torn: number } {
  if (!whole) return { torn: line.toString('latin1').trim() === '' ? 0 : line.length };
  for (let at = 0; at >= 0; at = line.indexOf('{"id":', at + 1)) {
    try {
      const record = asRecord(JSON.parse(line.toString('utf8', at)));
      return record ? { record, torn: at } : { torn: 0 };
    } catch {
      // Try the next place that looks like the beginning of a line.
    }
  }
  return { torn: 0 };
}

/** A retry that failed in the same way. */
const sameFailure = (a: JobRecord, b: JobRecord): boolean =>
  a.outcome === 'failed' && b.outcome === 'failed' && a.exitCode === b.exitCode && a.error?.code === b.error?.code;

const JUNIT_START = '<?xml version="1.0" encoding="UTF-8"?>\n<testsuites>\n  <testsuite name="elf2dmp batch" ';

/** Whether a file with these first bytes holds a batch's results. */
export const isOurJunit = (head: Buffer): boolean =>
  head.subarray(0, JUNIT_START.length).toString('latin1') === JUNIT_START;

/** JUnit XML, which CI systems read. A crash is the class of its case. */
export function renderJunit(results: readonly JobResult[], policy: CrashPolicy): string {
  const seconds = results.reduce((sum, { record }) => sum + (record?.seconds ?? 0), 0);
  const failures = results.filter(({ record }) => record?.outcome === 'failed' || failsAsNew(record, policy)).length;
  const stopped = results.filter(({ record }) => !record).length;
  const cases = results.map(({ job, record }) => {
    const classname = signatureOf(record)?.text ?? 'elf2dmp';
    const head = `    <testcase classname="${xml(classname)}" name="${xml(job.relative)}" time="${record?.seconds ?? 0}">`;
    return `${head}${junitBody(record, policy)}</testcase>\n`;
  });
  return `${JUNIT_START}tests="${results.length}" failures="${failures}" errors="0" skipped="${stopped}" time="${seconds.toFixed(3)}">\n${cases.join('')}  </testsuite>\n</testsuites>\n`;
}

const ENTITIES: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' };

/** Names and guests' text may contain characters that XML forbids, and line breaks that would fake a line. */
const xml = (text: string): string =>
  printable(text)
    .replace(/[&<>"]/g, (c) => ENTITIES[c]!)
    .replace(/[\uFFFE\uFFFF]/g, '\uFFFD');

/** The contents of a JUnit test case: why it did not run, why it failed, what crashed, or what its dump lacks. */
function junitBody(record: JobResult['record'], policy: CrashPolicy): string {
  if (!record) return '<skipped message="not run: the batch was stopped"/>';
  const { error, losses, exitCode } = record;
  if (error) {
    return `<failure type="${xml(error.code)}" message="${xml(error.text)}">exit code ${exitCode}</failure>`;
  }
  const signature = signatureOf(record);
  const crash = signature && `${crashKind(isKnown(record, policy.known))}: ${crashLine(signature, record)}`;
  const failure = failsAsNew(record, policy) ? `<failure type="new-crash" message="${xml(crash!)}"/>` : '';
  const lines = [...(crash === undefined ? [] : [crash]), ...losses.map((loss) => `loss: ${loss}`)];
  return lines.length > 0 ? `${failure}<system-out>${lines.map(xml).join('\n')}</system-out>` : failure;
}

/** What a crash is called by a list; null: there is none. */
export function crashKind(known: boolean | null): string {
  if (known === null) return 'crash';
  return known ? 'known crash' : 'new crash';
}
