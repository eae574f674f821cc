import { expect, it } from 'vitest';
import { firstModule, moduleDoubts, readModules } from '../../src/windows/modules.ts';
import { linkIn } from '../guest/guest.ts';
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

it('is not cut by a link to the head: what was cut out is found from the other end', () => {
  const { space, truth } = knownGuest({}, ({ kernel, truth: { psLoadedModuleList: head } }) => {
    kernel.u64(kernel.read(head, 8).readBigUInt64LE(), head);
  });
  const { modules, broken } = readModules(space, truth.psLoadedModuleList);
  expect(broken).toMatch(/^the head at 0x\w+ does not link back to 0x\w+$/);
  expect(modules.map(({ name }) => name)).toEqual(truth.modules.map(({ name }) => name));
});

it('says that there are more entries than it follows, and calls that no loop', () => {
  const { space, truth } = knownGuest({}, ({ kernel, truth: { psLoadedModuleList: head, kernelBase } }) => {
    const [from, count] = [0xffffb000_00000000n, 4100];
    kernel.mapNew(from, 0xa0 * count + 0x1000);
    const entries = Array.from({ length: count }, (_, i) => from + BigInt(0xa0 * i));
    linkIn(kernel, head, entries);
    for (const entry of entries) kernel.u64(entry + 0x30n, kernelBase);
  });
  expect(readModules(space, truth.psLoadedModuleList).broken).toBe('the list has more than 4096 entries');
});

it('has no module that begins within a page', () => {
  const { space, truth } = knownGuest({}, ({ kernel, truth: { psLoadedModuleList: head } }) => {
    const last = kernel.read(head + 8n, 8).readBigUInt64LE();
    kernel.u64(last + 0x30n, kernel.read(last + 0x30n, 8).readBigUInt64LE() + 8n);
  });
  const { modules, broken } = readModules(space, truth.psLoadedModuleList);
  expect(broken).toMatch(/^the entry at 0x\w+ names 0x\w+8 as a module's base$/);
  expect(modules.map(({ name }) => name)).toEqual(truth.modules.slice(0, -1).map(({ name }) => name));
});

it('says which modules reach into others', () => {
  const { space, kernel, truth } = knownGuest();
  const { modules } = readModules(space, truth.psLoadedModuleList);
  const [below, above] = [...modules].sort((a, b) => Number(a.base - b.base)).slice(1);
  const longer = modules.map((m) => (m === below ? { ...m, size: Number(above!.base - m.base) + 1 } : m));
  expect(moduleDoubts(space, kernel, longer)).toContain(`${below!.name} reaches into ${above!.name}`);
});

it('is held against the images where it says that they are', () => {
  const sound = knownGuest();
  const doubts = ({ space, kernel, truth }: typeof sound) =>
    moduleDoubts(space, kernel, readModules(space, truth.psLoadedModuleList).modules);
  expect(doubts(sound)).toEqual([]);
  const damaged = knownGuest({}, ({ kernel, truth: { psLoadedModuleList: head } }) => {
    const last = kernel.read(head + 8n, 8).readBigUInt64LE();
    kernel.u32(last + 0x40n, 0x30000);
  });
  expect(doubts(damaged)).toEqual(['demo.sys has 0x30000 bytes there, 0x20000 by its header']);
  const exchanged = knownGuest({}, ({ kernel, truth: { psLoadedModuleList: head, modules } }) => {
    const last = kernel.read(head + 8n, 8).readBigUInt64LE();
    const before = kernel.read(last + 8n, 8).readBigUInt64LE();
    kernel.u64(last + 0x30n, modules[1]!.base);
    kernel.u64(before + 0x30n, modules[2]!.base);
  });
  expect(doubts(exchanged)).toEqual(['hal.dll and demo.sys are where the other is']);
  const alone = knownGuest({}, ({ kernel, truth: { psLoadedModuleList: head } }) => {
    linkIn(kernel, head, [kernel.read(head, 8).readBigUInt64LE()]);
  });
  expect(doubts(alone)).toEqual(['it has one entry: every Windows has drivers']);
});
