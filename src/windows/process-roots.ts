/** The page-table roots that lead to everything that Windows maps: the kernel's, the CPUs' and the processes'. */
import { Reason } from '../core/reason.ts';
import { type PhysicalAddress, pa } from '../core/units.ts';
import type { Registers } from '../machines/machine.ts';
import { AddressSpace } from '../memory/address-space.ts';
import { readProcesses, SYSTEM_PID } from './processes.ts';
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

/** What processes are looked for in. */
export type ProcessScene = Pick<Windows, 'space' | 'kernel' | 'kdbg' | 'processors'>;

/** Whether a root maps the kernel and SharedUserData to where they are. */
export function mapsKernel({ space, kernel }: Pick<ProcessScene, 'space' | 'kernel'>, root: number): boolean {
  if (root === space.root) return true;
  const other = new AddressSpace(space.image, pa(root), space.mode);
  return [kernel.base, space.image.machine.sharedUserData].every(
    (virtual) => other.translate(virtual) === space.translate(virtual),
  );
}

/** The page-table root of System, which outlives all other processes; undefined where it is not known for certain. */
export function findSystemRoot(scene: ProcessScene): PhysicalAddress | undefined {
  const list = readProcesses(scene.space, scene.kdbg.fields, scene.processors);
  if (list instanceof Reason) return undefined;
  const system = list.processes.filter(({ pid, name }) => pid === SYSTEM_PID && name === 'System');
  const [root, ...others] = system.flatMap(({ directoryTableBase }) => directoryTableBase ?? []);
  return root !== undefined && others.length === 0 && mapsKernel(scene, root) ? root : undefined;
}

/** Of the input's CPUs; a crash dump has those of its processors. */
const loadedRegisters = ({ space, processors }: ProcessScene): Registers[] =>
  [...space.image.cpus, ...processors.flatMap(({ cpu }) => cpu ?? [])].flatMap(({ registers }) => registers ?? []);

/** With KVA shadow, the tables that a CPU in user mode has loaded map little more of the kernel than this. */
function mapsInterrupts({ space }: ProcessScene, registers: Registers, root: number): boolean {
  const table = space.image.machine.interruptTable(registers);
  const at = table && new AddressSpace(space.image, pa(root), space.mode).translate(table.base);
  return table !== undefined && at !== undefined && at === space.translate(table.base);
}

/**
 * A root is believed when it maps the kernel and SharedUserData to where they are; one that a CPU has loaded also if it
 * maps the CPU's interrupt table to where it is.
 */
export function findProcessRoots(scene: ProcessScene): ProcessRoots {
  const { space, kdbg, processors } = scene;
  const { image } = space;
  const roots = new Set<number>([space.root]);
  /** Whether it is one. */
  const add = (root: number): boolean => {
    if (roots.has(root)) return true;
    const leads = mapsKernel(scene, root);
    if (leads) roots.add(root);
    return leads;
  };
  for (const registers of loadedRegisters(scene)) {
    const tables = image.machine.pageTables(registers);
    if (!tables || tables.mode !== space.mode || add(tables.root)) continue;
    if (mapsInterrupts(scene, registers, tables.root)) roots.add(tables.root);
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
