import { describe, expect, it } from 'vitest';
import { locateWindows } from '../../src/locate/locator.ts';
import { ImageSpaces } from '../../src/windows/image-spaces.ts';
import { pdbIdentity } from '../../src/windows/pe-image.ts';
import { buildTrueGuest, type TrueGuest } from '../guest/true-guest.ts';
import { imageOf } from '../support/images.ts';

const located = (guest: TrueGuest) =>
  locateWindows(imageOf([{ start: 0, bytes: guest.memory.flat(0, guest.ramBytes) }]));

describe('images in session space', () => {
  it('are read in the address space of a process that maps them', async () => {
    const guest = buildTrueGuest({ generation: '1809' });
    const windows = await located(guest);
    const spaces = new ImageSpaces(windows);
    const session = guest.processes.filter((p) => !p.gone).map((p) => p.root);
    expect(guest.sessionModules.length).toBeGreaterThan(1);
    for (const { base, guid } of guest.sessionModules) {
      const found = spaces.find(base);
      expect(found && pdbIdentity(found.space, found.image)?.guid).toBe(guid);
      expect(session).toContain(found?.space.root);
      expect(windows.space.translate(base)).toBeUndefined();
    }
    // The kernel's own are read in its own.
    expect(spaces.find(guest.truth.kernelBase)?.space).toBe(windows.space);
  });

  it('are not where no process maps them, nor where all map a page without one', async () => {
    const guest = buildTrueGuest({ generation: '1809' });
    const spaces = new ImageSpaces(await located(guest));
    expect(spaces.find(guest.sessionModules[0]!.base + 0x10_0000_0000n)).toBeUndefined();
    expect(spaces.find(guest.truth.kdbg & ~0xfffn)).toBeUndefined();
  });
});
