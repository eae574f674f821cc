import type { Fail as FailOf } from '../../core/errors.ts';
import { KIB, MIB } from '../../core/units.ts';

/** Makes the error for a file that cannot be read; fills in its name. */
export type Fail = FailOf<'unsupported' | 'corrupt'>;

/** A run costs about 100 bytes; QEMU's files have as many as the guest has RAM blocks. */
export const MAX_RUNS = 1 << 20;

/** Bytes of the file that one read fetches at most. */
export const MAX_SPAN = MIB;

/** Gap between two pages' data, in bytes, up to which one read for both is cheaper than two. */
export const MAX_GAP = 16 * KIB;

/** Damaged pages reported one by one; later ones are only counted. */
export const NAMED_PAGES = 10;
