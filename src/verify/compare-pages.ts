import type { FindingCode } from '../core/codes.ts';
import { hex, MIB, PAGE_SIZE } from '../core/units.ts';
import type { MemoryImage } from '../memory/image.ts';
import { type Extent, intersect, sum, without } from '../memory/runs.ts';
import { applyPatches, type Patch, patchAt } from '../plan/patches.ts';
import { type Findings, inMemory, type NewFinding } from '../report/findings.ts';
import type { Expectation, VerifyDumpOptions } from './expectation.ts';

/** Bytes of each file that are compared together. */
const CHUNK = MIB;

/** Compares every page with the patched input's, and reports missing and added pages. */
export async function comparePages(
  dump: MemoryImage,
  { image, extents, patches }: Expectation,
  findings: Findings,
  { signal, onProgress }: VerifyDumpOptions,
): Promise<{ pagesCompared: number; pagesDifferent: number }> {
  const present = dump.pageExtents().extents;
  const report = (code: FindingCode, what: string, ranges: readonly Extent[]) => {
    for (const { start, size } of ranges) {
      findings.addDifference({
        severity: 'error',
        code,
        message: `${size / PAGE_SIZE} pages ${what}`,
        where: inMemory({ physical: start }),
        found: `${hex(start)} to ${hex(start + size)}`,
      });
    }
  };
  report('pages-missing', 'of the input are not in the dump', without(extents, present));
  report('pages-added', 'are in the dump that should not be', without(present, extents));

  const common = intersect(extents, present);
  const total = sum(common);
  let done = 0;
  let pagesDifferent = 0;
  // Chunks are read ahead but compared in order, so that findings come in order.
  const chunks = chunksOf(common);
  const reading: { physical: number; wanted: Buffer; found: Buffer; buffers: Buffer; ready: Promise<unknown> }[] = [];
  const readNext = (buffers: Buffer) => {
    const chunk = chunks.next();
    if (chunk.done) return;
    const { physical, size } = chunk.value;
    const [wanted, found] = [buffers.subarray(0, size), buffers.subarray(CHUNK, CHUNK + size)];
    const ready = Promise.all([image.read(physical, wanted), dump.read(physical, found)]);
    // Awaited below, maybe after another one has failed: not an unhandled rejection.
    ready.catch(() => undefined);
    reading.push({ physical, wanted, found, buffers, ready });
  };
  for (let i = 0; i < IN_FLIGHT; i++) readNext(Buffer.allocUnsafeSlow(2 * CHUNK));
  try {
    for (let next = reading.shift(); next; next = reading.shift()) {
      signal?.throwIfAborted();
      await next.ready;
      const { physical, wanted, found } = next;
      applyPatches(patches, physical, wanted);
      if (!wanted.equals(found)) {
        for (let page = 0; page < wanted.length; page += PAGE_SIZE) {
          const [a, b] = [wanted.subarray(page, page + PAGE_SIZE), found.subarray(page, page + PAGE_SIZE)];
          if (a.equals(b)) continue;
          pagesDifferent++;
          findings.addDifference(pageFinding(physical + page, a, b, patches));
        }
      }
      done += wanted.length;
      onProgress?.(done, total);
      readNext(next.buffers);
    }
  } finally {
    await Promise.allSettled(reading.map(({ ready }) => ready));
  }
  return { pagesCompared: total / PAGE_SIZE, pagesDifferent };
}
export function* chunksOf(extents: readonly Extent[]): Generator<{ physical: number; size: number }> {
  for (const { start, size } of extents) {
    for (let at = 0; at < size; at += CHUNK) yield { physical: start + at, size: Math.min(CHUNK, size - at) };
  }
}
export function pageFinding(physical: number, wanted: Buffer, found: Buffer, patches: readonly Patch[]): NewFinding {
  let at = 0;
  while (wanted[at] === found[at]) at++;
  let bytes = 0;
  for (let i = at; i < wanted.length; i++) if (wanted[i] !== found[i]) bytes++;
  const patch = patchAt(patches, physical + at);
  const shown = (buffer: Buffer) =>
    `bytes ${buffer
      .subarray(at, at + 8)
      .toString('hex')
      .replace(/..(?=.)/g, '$& ')}`;
  return {
    severity: 'error',
    code: patch ? 'change-differs' : 'page-differs',
    message: patch
      ? `${patch.what} differs from what the conversion writes (bytes of its page that differ: ${bytes})`
      : `a page is not the input's (bytes that differ: ${bytes})`,
    where: inMemory({ physical: physical + at }),
    expected: shown(wanted),
    found: shown(found),
  };
}

/** Chunks read ahead, in both files. */
export const IN_FLIGHT = 4;
