// Which type a dump gets, by what was asked for and by what a dump that is converted was made to hold.
import { describe, expect, it } from 'vitest';
import type { DumpHeader } from '../../src/formats/dump-header.ts';
import type { MemoryImage } from '../../src/memory/image.ts';
import { chooseSelection, chooseType } from '../../src/plan/dump-type.ts';
import type { Windows } from '../../src/windows/windows.ts';
import { imageOf } from '../support/images.ts';

/** An ELF core has no header; dumps by their DumpType and Attributes. */
const inputs = {
  'a core file': undefined,
  'a full dump': { DumpType: 1, Attributes: 0x4547_4150 },
  'a kernel dump': { DumpType: 6, Attributes: 0 },
  'a dump of active memory': { DumpType: 5, Attributes: 0x40 },
};
const imageWith = (input: keyof typeof inputs): MemoryImage => imageOf([], { dumpHeader: inputs[input] as DumpHeader });

describe('the type of a dump', () => {
  it.each([
    ['a core file', 'auto', 'auto', false],
    ['a core file', 'full', 'full', false],
    ['a full dump', 'auto', 'auto', false],
    ['a full dump', 'active', 'active', false],
    ['a kernel dump', 'auto', 'kernel', false],
    ['a kernel dump', 'kernel', 'kernel', false],
    ['a kernel dump', 'full', 'full', true],
    ['a kernel dump', 'active', 'active', true],
    ['a dump of active memory', 'auto', 'active', false],
    ['a dump of active memory', 'active', 'active', false],
    // Of which all is there.
    ['a dump of active memory', 'kernel', 'kernel', false],
    ['a dump of active memory', 'bitmap', 'bitmap', true],
    // It holds no memory of processes.
    ['a kernel dump', 'triage', 'triage', false],
    ['a dump of active memory', 'triage', 'triage', false],
  ] as const)('from %s with --type %s is %s, with a loss: %s', (input, choice, type, isLoss) => {
    const chosen = chooseType(imageWith(input), choice);
    expect(chosen.type).toBe(type);
    expect(chosen.losses.map(({ severity, code }) => [severity, code])).toEqual(
      isLoss ? [['loss', 'input-is-smaller-dump']] : [],
    );
  });

  it('is a triage dump that lacks user-mode stacks, if they are asked for and the input is a kernel dump', () => {
    const lossesOf = (input: keyof typeof inputs) =>
      chooseType(imageWith(input), 'triage', { userStacks: true }).losses.length;
    expect([lossesOf('a kernel dump'), lossesOf('a dump of active memory'), lossesOf('a core file')]).toEqual([
      1, 0, 0,
    ]);
  });

  it('needs no choice of pages where its writer has made it, or all are kept', async () => {
    const choose = (input: keyof typeof inputs, type: 'kernel' | 'active' | 'full') =>
      chooseSelection({ image: imageWith(input) } as Windows, { type, ram: 'all' });
    expect(await choose('a kernel dump', 'kernel')).toBeUndefined();
    expect(await choose('a dump of active memory', 'active')).toBeUndefined();
    expect(await choose('a core file', 'full')).toBeUndefined();
  });
});
