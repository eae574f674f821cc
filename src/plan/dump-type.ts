/** Which type a dump gets, by what was asked for and what the input holds. */
import type { Diagnostic } from '../core/errors.ts';
import type { MemoryImage } from '../memory/image.ts';
import type { DumpTypeChoice, RamChoice } from '../options/choices.ts';
import type { Windows } from '../windows/windows.ts';
import { dumpTypeOf } from './plan.ts';
import { type PageSelection, selectPages } from './select-pages.ts';

/** What a dump that is converted was made to hold; undefined where the input is meant to hold all memory. */
function heldBy({ dumpHeader }: MemoryImage): 'kernel' | 'active' | undefined {
  const type = dumpHeader && dumpTypeOf(dumpHeader);
  return type === 'kernel' || type === 'active' ? type : undefined;
}

/** The pages for a kernel dump or one of active memory; undefined where all pages of the input go into the dump. */
export async function chooseSelection(
  windows: Windows,
  { type, ram }: { type: DumpTypeChoice; ram: RamChoice },
  signal?: AbortSignal,
): Promise<PageSelection | undefined> {
  if (type !== 'kernel' && type !== 'active') return undefined;
  // Its writer has chosen them already.
  return heldBy(windows.image) === type ? undefined : selectPages(windows, type, ram, signal);
}

/**
 * The type, with what a dump of that type should have and the input was made without.
 *
 * @param userStacks a triage dump has user-mode stacks too
 */
export function chooseType(
  image: MemoryImage,
  choice: DumpTypeChoice,
  { userStacks = false }: { userStacks?: boolean | undefined } = {},
): { type: DumpTypeChoice; losses: readonly Diagnostic[] } {
  const held = heldBy(image);
  // All that a triage dump has is in the kernel's memory, but for user-mode stacks.
  const isTriage = choice === 'triage' && !(userStacks && held === 'kernel');
  if (held === undefined || choice === held || choice === 'kernel' || isTriage) return { type: choice, losses: [] };
  if (choice === 'auto') return { type: held, losses: [] };
  const what = held === 'kernel' ? 'a kernel dump' : 'a dump of active memory';
  const lacks = held === 'kernel' ? 'memory of processes' : 'memory that was not in use';
  return {
    type: choice,
    losses: [
      {
        severity: 'loss',
        code: 'input-is-smaller-dump',
        message: `the input is ${what}: ${lacks} is not in it, so the dump lacks what one of type ${choice} should have`,
      },
    ],
  };
}
