import { describe, expect, it } from 'vitest';
import { Reason } from '../../src/core/reason.ts';
import { pa, va } from '../../src/core/units.ts';
import { decodeBlock, findKdbg } from '../../src/locate/kdbg.ts';
import { findKernel, kernelAt } from '../../src/locate/kernel.ts';
import { locateWindows } from '../../src/locate/locator.ts';
import { givenRoot, headerRoot, loadedRoots, shadowedRoots } from '../../src/locate/roots.ts';
import { AddressSpace } from '../../src/memory/address-space.ts';
import { Evidence } from '../../src/windows/evidence.ts';
import { knownGuest } from '../support/known-guest.ts';

describe('page-table roots', () => {
  it('are those that the CPUs have loaded', () => {
    const { image, truth } = knownGuest();
    expect([...loadedRoots(image, new Evidence())].map(({ tables }) => tables.root)).toContain(truth.root);
  });

  it('lie behind the shadow roots of CPUs in user mode', () => {
    const { image, truth } = knownGuest({ kernelRootAt: 0x9000, user: [0, 1] });
    const behind = [...shadowedRoots(image, new Evidence())].map(({ tables }) => tables);
    expect(behind).toHaveLength(2);
    for (const { root, mode } of behind) {
      const space = new AddressSpace(image, pa(root), mode);
      expect(space.read(truth.samples[0]!.virtual, 8)).toEqual(truth.samples[0]!.bytes.subarray(0, 8));
    }
  });

  it('are the one that is named', () => {
    const { image, truth } = knownGuest();
    expect([...givenRoot(image, truth.root)].map(({ tables }) => tables.root)).toEqual([truth.root]);
  });

  it('go into the header as they are where paging has four levels', () => {
    const { image, space, truth } = knownGuest();
    expect([headerRoot(space, image.diagnostics), image.diagnostics.list]).toEqual([pa(truth.root), []]);
  });
});

describe('the kernel', () => {
  it('is found from an address in its code', () => {
    const { space, truth } = knownGuest();
    const addresses = [{ address: va(truth.exports.get('PoIdle')!), why: 'test' }];
    expect(findKernel(space, addresses, new Evidence())).toMatchObject({ base: truth.kernelBase });
  });

  it('is not where no image begins, nor where a driver does', () => {
    const { space, truth } = knownGuest();
    expect(kernelAt(space, truth.kernelBase + 0x1000n)).toBeInstanceOf(Reason);
    expect(kernelAt(space, truth.modules.at(-1)!.base)).toBeInstanceOf(Reason);
  });
});

describe('the KDBG', () => {
  it.each(['win7', 'win10'] as const)('of %s is found, decoded and checked', (build) => {
    const { space, kernel, truth } = knownGuest({ build });
    const kdbg = findKdbg(space, kernel, new Evidence());
    expect([kdbg?.address, kdbg?.encoded]).toEqual([truth.kdbg, truth.kdbgEncoded]);
    expect(kdbg?.block.equals(truth.kdbgBlock)).toBe(true);
  });

  it('decodes only with its own rotation', () => {
    const encoded = Buffer.from(Array.from({ length: 0x40 }, (_, i) => i));
    expect(decodeBlock(encoded, 1n, 3).equals(decodeBlock(encoded, 1n, 4))).toBe(false);
  });
});

it('Windows is found with evidence of each step', async () => {
  const { image, truth } = knownGuest();
  const windows = await locateWindows(image);
  expect([windows.root, windows.kernel.base, windows.kdbg.address]).toEqual([truth.root, truth.kernelBase, truth.kdbg]);
  const steps = new Set(windows.evidence.filter(({ accepted }) => accepted).map(({ step }) => step));
  expect([...steps]).toEqual(expect.arrayContaining(['page-table root', 'kernel image', 'KDBG']));
});

it('Windows is found behind KVA shadow', async () => {
  const { image, truth } = knownGuest({ kernelRootAt: 0x9000, user: [0, 1] });
  expect((await locateWindows(image)).kernel.base).toBe(truth.kernelBase);
});
