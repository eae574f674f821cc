/** Things that go wrong while the tool runs, each in turn: used by the tests briefly, by `npm run reliability` at length. */
import { type ChildProcess, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Elf2dmpError } from '../../src/core/errors.ts';
import { locateWindows } from '../../src/locate/locator.ts';
import { planConversion } from '../../src/plan/conversion.ts';
import { openSource } from '../../src/readers/registry.ts';
import { BufferSource } from '../../src/source/buffer.ts';
import type { ByteSource } from '../../src/source/source.ts';
import { emitCopy } from '../../src/write/copy.ts';

export const BIN = fileURLToPath(new URL('../../bin/elf2dmp.js', import.meta.url));

/** Fails at the nth read. */
class FaultySource implements ByteSource {
  readonly name = 'faulty';
  readonly fd = undefined;
  reads = 0;
  readonly #inner: ByteSource;
  readonly #failAt: number;

  constructor(bytes: Buffer, failAt: number) {
    this.#inner = new BufferSource(bytes);
    this.#failAt = failAt;
  }

  get size(): number {
    return this.#inner.size;
  }

  #count(offset: number): void {
    if (++this.reads !== this.#failAt) return;
    throw new Elf2dmpError({ code: 'io-eio', kind: 'io-transient', message: 'cannot read', file: this.name, offset });
  }

  readSync(offset: number, target: Uint8Array): void {
    this.#count(offset);
    this.#inner.readSync(offset, target);
  }

  async read(offset: number, target: Uint8Array): Promise<void> {
    this.#count(offset);
    await this.#inner.read(offset, target);
  }

  close(): void {}
}

/**
 * Converts with the nth read failing.
 *
 * @returns how many reads there were, and what went wrong that must not
 */
export async function withFailingRead(
  file: Buffer,
  dir: string,
  failAt: number,
): Promise<{ reads: number; problem?: string }> {
  const source = new FaultySource(file, failAt);
  const output = join(dir, 'faulty.dmp');
  try {
    const windows = await locateWindows(openSource(source));
    await emitCopy(planConversion(windows).plan, windows.image, output);
    // A place where a failure is no reason to give up must not hide it.
    if (source.reads >= failAt && windows.image.diagnostics.list.length === 0) {
      return { reads: source.reads, problem: `read ${failAt} failed, and nothing says so` };
    }
  } catch (error) {
    if (!(error instanceof Elf2dmpError) || error.code !== 'io-eio') {
      return { reads: source.reads, problem: `read ${failAt}: ${String(error)}` };
    }
    const left = readdirSync(dir);
    if (left.length > 0) return { reads: source.reads, problem: `read ${failAt} failed, and left ${left.join(', ')}` };
  } finally {
    rmSync(output, { force: true });
  }
  return { reads: source.reads };
}

export const sha256 = (path: string): string => createHash('sha256').update(readFileSync(path)).digest('hex');

/**
 * Kills a conversion after a while, and converts again.
 *
 * @param args before INPUT and OUTPUT
 * @returns whether it was killed while it ran, or what is wrong afterwards
 */
export async function killedAfter(
  milliseconds: number,
  input: string,
  output: string,
  expected: string,
  args: readonly string[] = [],
): Promise<'killed' | 'finished' | { problem: string }> {
  const before = sha256(input);
  const child = spawn(process.execPath, [BIN, '--quiet', ...args, input, output], { stdio: 'ignore' });
  const ended = ending(child);
  await Promise.race([sleep(milliseconds), ended]);
  child.kill('SIGKILL');
  const how = await ended;
  const problem = (what: string) => ({ problem: `killed after ${milliseconds} ms (${args.join(' ')}): ${what}` });
  if (sha256(input) !== before) return problem('the input was changed');
  const there = readdirSync(join(output, '..')).includes(output.slice(output.lastIndexOf('/') + 1));
  if (there && sha256(output) !== expected) return problem('a partial file has the name of the output');
  rmSync(output, { force: true });
  const again = await ending(spawn(process.execPath, [BIN, '--quiet', ...args, input, output], { stdio: 'ignore' }));
  if (again !== 0) return problem(`the next run ended with ${again}`);
  if (sha256(output) !== expected) return problem('the next run made something else');
  rmSync(output);
  return how === 'SIGKILL' ? 'killed' : 'finished';
}

const ending = (child: ChildProcess) =>
  new Promise<number | NodeJS.Signals | null>((resolve) =>
    child.on('close', (code, signal) => resolve(signal ?? code)),
  );
