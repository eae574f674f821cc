import { expect, it } from 'vitest';
import type { ProcessList } from '../../src/windows/processes.ts';
import { readProcesses } from '../../src/windows/processes.ts';
import { findProcessors } from '../../src/windows/processors.ts';
import { readUnloadedModules } from '../../src/windows/unloaded-modules.ts';
import type { Guest } from '../guest/guest.ts';
import { knownGuest } from '../support/known-guest.ts';

it('infers the layout of EPROCESS and reads every process', () => {
  const { space, fields, truth } = knownGuest();
  const { processors } = findProcessors(space, fields);
  const list = readProcesses(space, fields, processors) as ProcessList;
  expect(list.broken).toBeUndefined();
  expect(list.processes.map(({ address, pid, name }) => [address, pid, name])).toEqual(
    truth.processes.map(({ address, pid, name }) => [address, pid, name]),
  );
});

/** The processes of a guest that was changed. */
function listOf(change: (guest: Guest) => void): ProcessList & { truth: Guest['truth'] } {
  const { space, fields, truth } = knownGuest({}, change);
  const { processors } = findProcessors(space, fields);
  return { ...(readProcesses(space, fields, processors) as ProcessList), truth };
}

it('keeps the others whole when a process has no page tables any more', () => {
  const { processes, truth, doubts } = listOf(({ kernel, truth }) => {
    // Its root's page has other data now.
    kernel.u64(truth.processes.at(-1)!.address + 0x28n, BigInt(kernel.translate(truth.kdbg)! & ~0xfff));
  });
  expect(processes.map(({ address, pid, parentPid }) => [address, pid, parentPid])).toEqual(
    truth.processes.map(({ address, pid, parent }) => [address, pid, parent]),
  );
  expect(processes.map(({ pageTables, directoryTableBase }) => [pageTables, directoryTableBase])).toEqual([
    ...truth.processes.slice(0, -1).map(({ root }) => ['present', root]),
    ['gone', undefined],
  ]);
  expect(doubts).toEqual([]);
});

it('ends where an entry does not link back', () => {
  const { broken, processes } = listOf(({ kernel, truth }) => {
    const last = kernel.read(truth.psActiveProcessHead + 8n, 8).readBigUInt64LE();
    kernel.u64(last + 8n, last);
  });
  expect(broken).toMatch(/^the entry at 0x\w+ does not link back to 0x\w+$/);
  expect(processes).toHaveLength(listOf(() => undefined).processes.length - 1);
});

it.each([
  [
    'the parent of System',
    'parent',
    0,
    8n,
    'OffsetEprocessParentCID in the KDBG does not lead to parents: none is shown',
  ],
  [
    'a PEB within a page',
    'peb',
    -1,
    0x7ff6_0000_1230n,
    'OffsetEprocessPeb in the KDBG does not lead to PEBs: none is shown',
  ],
] as const)('shows none of them where one is impossible: %s', (_, field, index, value, doubt) => {
  const { processes, doubts } = listOf(({ kernel, build, truth }) =>
    kernel.u64(truth.processes.at(index)!.address + BigInt(build.eprocess[field]), value),
  );
  expect(doubts).toEqual([doubt]);
  const shown = processes.map((process) => (field === 'peb' ? process.peb : process.parentPid));
  expect(shown.filter((each) => each !== undefined)).toEqual([]);
});

it('shows no names where two places could have them', () => {
  const { processes, doubts } = listOf(({ kernel, truth }) => {
    truth.processes.forEach(({ address }, i) => {
      kernel.write(address + 0x880n, Buffer.from(i === 0 ? 'System\0' : 'other.exe\0', 'latin1'));
    });
  });
  expect(processes.map(({ name }) => name)).toEqual(processes.map(() => undefined));
  expect(doubts).toEqual(['2 places hold "System" in the first process and a name in most others']);
});

it('says where page tables are not in the input', () => {
  const { processes } = listOf(({ kernel, truth }) => kernel.u64(truth.processes.at(-1)!.address + 0x28n, 1n << 40n));
  expect(processes.map(({ pageTables }) => pageTables).at(-1)).toBe('missing');
});

it.each([
  ['15 characters and a NUL, in 16 bytes', 'fifteen_charact\0', 'fifteen_charact'],
  ['15 characters and PriorityClass, in 15 bytes', 'fifteen_charact\x02', 'fifteen_charact'],
  ['16 characters', 'sixteen_characte', undefined],
  ['no text', '\x01\x02\x03\0', undefined],
  ['an end that is no NUL', 'short\x02', undefined],
])('reads a name of %s, and the others as they are', (_, text, name) => {
  const { processes, truth, doubts } = listOf(({ kernel, build, truth }) =>
    kernel.write(truth.processes.at(-1)!.address + BigInt(build.eprocess.name), Buffer.from(text, 'latin1')),
  );
  expect(processes.map((p) => p.name)).toEqual([...truth.processes.slice(0, -1).map((p) => p.name), name]);
  const last = truth.processes.at(-1)!;
  expect(doubts).toEqual(name === undefined ? [`damaged or not present: the name of process ${last.pid}`] : []);
});

it('loses one damaged process ID, not all', () => {
  const { processes, truth } = listOf(({ kernel, build, truth }) =>
    kernel.u64(truth.processes.at(-1)!.address + BigInt(build.eprocess.pid), 0x1234567890n),
  );
  expect(processes.map(({ pid }) => pid)).toEqual([...truth.processes.slice(0, -1).map(({ pid }) => pid), undefined]);
});

it('reads unloaded modules, the last one first', () => {
  const { space, fields, truth } = knownGuest();
  const unloaded = readUnloadedModules(space, fields) as { name: string }[];
  expect(unloaded.map(({ name }) => name)).toEqual(truth.unloaded.map(({ name }) => name));
});
