/** The page-table roots that lead to everything that Windows maps: the kernel's, the CPUs' and the processes'. */
import { Reason } from '../core/reason.ts';
import { pa } from '../core/units.ts';
import { AddressSpace } from '../memory/address-space.ts';
import { readProcesses } from './processes.ts';
import type { Windows } from './windows.ts';

/** Page-table roots that were believed. */
export interface ProcessRoots {
  /** Physical addresses, without duplicates. */
  roots: number[];
  /** Processes on the list. */
  processes: number;
  /** Those that have no page tables any more, so that nothing of theirs can be found. */
  gone: number;
  /** Why not all processes' roots are known; undefined when they are. */
  doubt: string | undefined;
}

/** A root is believed when it maps the kernel and SharedUserData to where they are. */
export function findProcessRoots({
  space,
  kernel,
  kdbg,
  image,
  processors,
}: Pick<Windows, 'space' | 'kernel' | 'kdbg' | 'image' | 'processors'>): ProcessRoots {
  const places = [kernel.base, image.machine.sharedUserData].map((virtual) => ({
    virtual,
    physical: space.translate(virtual),
  }));
  const roots = new Set<number>([space.root]);
  /** Whether it is one. */
  const add = (root: number): boolean => {
    if (roots.has(root)) return true;
    const other = new AddressSpace(image, pa(root), space.mode);
    const leads = places.every(({ virtual, physical }) => other.translate(virtual) === physical);
    if (leads) roots.add(root);
    return leads;
  };
  for (const cpu of image.cpus) {
    const tables = cpu.registers && image.machine.pageTables(cpu.registers);
    if (tables && tables.mode === space.mode) add(tables.root);
  }
  const list = readProcesses(space, kdbg.fields, processors);
  if (list instanceof Reason) return { roots: [...roots], processes: 0, gone: 0, doubt: list.text };
  const { processes, broken, layout, doubts } = list;
  let without = 0;
  const gone = processes.filter(({ pageTables }) => pageTables === 'gone').length;
  for (const { directoryTableBase, pageTables } of processes) {
    if (pageTables !== 'gone' && (directoryTableBase === undefined || !add(directoryTableBase))) without++;
  }
  const doubt =
    layout.link === undefined
      ? (doubts[0] ?? 'it has no entries')
      : (broken ??
        (without > 0 ? `${without} of ${processes.length} have no page tables that map the kernel` : undefined));
  return { roots: [...roots], processes: processes.length, gone, doubt };
}
