import { expect, it } from 'vitest';
import type { ProcessList } from '../../src/windows/processes.ts';
import { readProcesses } from '../../src/windows/processes.ts';
import { findProcessors } from '../../src/windows/processors.ts';
import { readUnloadedModules } from '../../src/windows/unloaded-modules.ts';
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

it('reads unloaded modules, the last one first', () => {
  const { space, fields, truth } = knownGuest();
  const unloaded = readUnloadedModules(space, fields) as { name: string }[];
  expect(unloaded.map(({ name }) => name)).toEqual(truth.unloaded.map(({ name }) => name));
});
