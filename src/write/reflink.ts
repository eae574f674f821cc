import { ioError } from '../core/errors.ts';
import { because, type Reason } from '../core/reason.ts';
import { cloneRange } from '../files/clone-range.ts';
import { writeAll, writeThenPublish } from '../files/publish.ts';
import { type DumpPlan, positionOf } from '../plan/plan.ts';
import type { SharedPages } from '../plan/shared-pages.ts';
import type { EmitOptions } from './options.ts';

/**
 * As `emitCopy`, but the pages share the input's blocks.
 *
 * @returns undefined, or the reason why it can't be done here; then nothing was written
 */
export async function emitReflink(
  plan: DumpPlan,
  shared: SharedPages,
  output: string,
  options: EmitOptions = {},
): Promise<Reason | undefined> {
  let obstacle: Reason | undefined;
  try {
    await writeThenPublish(output, options, async (file, name) => {
      const within = shared.offset % shared.block;
      const refused = await cloneRange(
        { fd: shared.fd, offset: shared.offset - within, length: 0 },
        { fd: file.fd, offset: plan.firstPage - within },
      );
      if (refused !== undefined) {
        obstacle = because(refused);
        throw new NotShared();
      }
      await writeAll(file, name, plan.prefix, 0);
      for (const patch of plan.patches) await writeAll(file, name, patch.bytes, positionOf(plan, patch.physical));
      // Bytes that follow the pages in the input do not belong to the dump.
      await file.truncate(plan.size).catch((cause) => {
        throw ioError('truncate', name, cause);
      });
    });
  } catch (error) {
    if (!(error instanceof NotShared)) throw error;
  }
  return obstacle;
}
/** Leaves `writeThenPublish` without a file. */
class NotShared extends Error {}
