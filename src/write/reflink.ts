import type { FileHandle } from 'node:fs/promises';
import { ioError } from '../core/errors.ts';
import { because, type Reason } from '../core/reason.ts';
import { cloneRange } from '../files/clone-range.ts';
import { HoleMap } from '../files/holes.ts';
import { writeAll, writeThenPublish } from '../files/publish.ts';
import { clearRange } from '../files/punch-hole.ts';
import { type DumpPlan, positionOf } from '../plan/plan.ts';
import type { SharedPages, SharedParts } from '../plan/shared-pages.ts';
import type { EmitOptions } from './options.ts';

/**
 * As `emitCopy`, but the pages share the input's blocks.
 *
 * @returns undefined, or the reason why it can't be done here; then nothing was written
 */
export async function emitReflink(
  plan: DumpPlan,
  shared: SharedPages | SharedParts,
  output: string,
  options: EmitOptions = {},
): Promise<Reason | undefined> {
  let obstacle: Reason | undefined;
  try {
    await writeThenPublish(output, options, async (file, name) => {
      const refused = await ('runs' in shared ? cloneParts(plan, shared, file) : cloneAll(plan, shared, file));
      if (refused !== undefined) {
        obstacle = because(refused);
        throw new NotShared();
      }
      if ('runs' in shared) await clearZeros(plan, shared, { file, name });
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

/** All of the input from its first page on. */
function cloneAll(plan: DumpPlan, shared: SharedPages, file: FileHandle): Promise<string | undefined> {
  const within = shared.offset % shared.block;
  return cloneRange(
    { fd: shared.fd, offset: shared.offset - within, length: 0 },
    { fd: file.fd, offset: plan.firstPage - within },
  );
}

async function cloneParts(
  plan: DumpPlan,
  { fd, runs, block }: SharedParts,
  file: FileHandle,
): Promise<string | undefined> {
  let position = plan.firstPage;
  for (const { fileOffset, size } of runs) {
    const refused =
      size % block !== 0
        ? 'a part of its memory ends within a block of the file system'
        : await cloneRange({ fd, offset: fileOffset, length: size }, { fd: file.fd, offset: position });
    if (refused !== undefined) return refused;
    position += size;
  }
  return undefined;
}

/** Clears what the input has where pages are zeros: only its data, and not its holes, which most of them are. */
async function clearZeros(
  plan: DumpPlan,
  shared: SharedParts,
  { file, name }: { file: FileHandle; name: string },
): Promise<void> {
  const holes = await HoleMap.open(shared.fd);
  let position = plan.firstPage;
  for (const run of shared.runs) {
    for (const { from, to } of shared.zeros(run)) {
      let at = from;
      for (const hole of [...(holes?.within(from, to) ?? []), { from: to, to }]) {
        const place = position + at - run.fileOffset;
        if (hole.from > at) await clearRange(file, name, place, place + hole.from - at);
        at = hole.to;
      }
    }
    position += run.size;
  }
}

/** Leaves `writeThenPublish` without a file. */
class NotShared extends Error {}
