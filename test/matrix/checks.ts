/** What the rows of the matrix share: comparing, and how much of the input it took to find Windows. */
import type { ConversionReport } from '../../src/report/conversion.ts';

/** Compares and counts; what differs is kept as a line. */
export class Checks {
  readonly problems: string[] = [];
  count = 0;

  same(what: string, actual: unknown, expected: unknown): void {
    this.count++;
    if (show(actual) !== show(expected)) this.problems.push(`${what}: ${show(actual)}, not ${show(expected)}`);
  }
}

const show = (value: unknown): string =>
  JSON.stringify(value, (_, v) => {
    if (typeof v === 'bigint') return `0x${v.toString(16)}`;
    return Buffer.isBuffer(v) ? v.toString('hex') : v;
  }) ?? 'undefined';

/** What finding Windows took. */
export interface Effort {
  locateMilliseconds: number;
  bytesRead: number;
  inputBytes: number;
}

/** As a conversion reports it. */
export const effortOf = ({ effort, input }: ConversionReport): Effort => ({
  locateMilliseconds: effort.locateMilliseconds,
  bytesRead: effort.bytesReadToLocate,
  inputBytes: input.memoryBytes,
});
