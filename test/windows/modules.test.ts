import { expect, it } from 'vitest';
import { firstModule, readModules } from '../../src/windows/modules.ts';
import { knownGuest } from '../support/known-guest.ts';

it('lists every module in load order, the kernel first', () => {
  const { space, truth } = knownGuest();
  const { modules, broken } = readModules(space, truth.psLoadedModuleList);
  expect(broken).toBeUndefined();
  expect(modules.map(({ name, base, size }) => [name, base, size])).toEqual(
    truth.modules.map(({ name, base, size }) => [name, base, size]),
  );
  expect(firstModule(space, truth.psLoadedModuleList)).toEqual({ base: truth.kernelBase, size: modules[0]!.size });
});

it('ends where a list goes round without its head', () => {
  const { space, truth } = knownGuest({}, ({ kernel, truth: { psLoadedModuleList: head } }) => {
    const first = kernel.read(head, 8).readBigUInt64LE();
    const second = kernel.read(first, 8).readBigUInt64LE();
    kernel.u64(second, first);
  });
  expect(readModules(space, truth.psLoadedModuleList).broken).toBeDefined();
});
