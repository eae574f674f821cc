/** Keeps batches apart that write to one output directory. Shards of one batch may run at once. */
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { Elf2dmpError } from '../core/errors.ts';
import { type HeldLock, takeLock } from '../files/directory-lock.ts';
import type { Shard } from './plan.ts';

const PREFIX = '.elf2dmp-batch';

/** Of a shard: its index and how many there are. */
const SHARD_LOCK = /^\.elf2dmp-batch-\d+-of-(\d+)\.lock$/;

/** Whether a file in an output directory is a batch's lock. */
export const isLock = (name: string): boolean => name === `${PREFIX}.lock` || SHARD_LOCK.test(name);

/** Locks the directory until `release`. Throws `Elf2dmpError` where another batch has it. */
export async function lockOutputs(out: string, shard: Shard | undefined): Promise<HeldLock> {
  const held: HeldLock[] = [];
  const release = async () => {
    for (const lock of held.splice(0).reverse()) await lock.release();
  };
  const take = async (name: string, how: 'shared' | 'exclusive') => {
    const lock = await takeLock(join(out, name), how);
    if (!lock) throw busy(out);
    held.push(lock);
  };
  try {
    await take(`${PREFIX}.lock`, shard ? 'shared' : 'exclusive');
    if (shard) {
      await take(`${PREFIX}-${shard.index}-of-${shard.count}.lock`, 'exclusive');
      // Where the batch is divided otherwise, shards overlap.
      for (const name of await readdir(out)) {
        const count = SHARD_LOCK.exec(name)?.[1];
        if (count === undefined || Number(count) === shard.count) continue;
        const other = await takeLock(join(out, name), 'exclusive');
        if (!other) throw busy(out);
        await other.release();
      }
    }
    return { release };
  } catch (error) {
    await release();
    throw error;
  }
}

const busy = (out: string) =>
  new Elf2dmpError({
    code: 'batch-busy',
    kind: 'io-transient',
    message: 'another batch is at work on this output directory',
    file: out,
    hint: 'wait until it is done; to divide one batch, give each part --shard I/N with the same N',
  });
