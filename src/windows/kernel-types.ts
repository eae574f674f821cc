/** Where members of the kernel's structures are, by the types in the kernel's own PDB. */
import { because, Reason } from '../core/reason.ts';
import { hex } from '../core/units.ts';
import type { Member, Structure } from '../symbols/structures.ts';
import type { Symbols } from '../symbols/symbols.ts';
import type { DebuggerFields } from './kdbg.ts';
import type { Windows } from './windows.ts';

/** What is looked for. Which members there are differs between builds: public types of late ones lack many. */
const WANTED = {
  _KPRCB: [
    ...['CurrentThread', 'IdleThread', 'DpcRoutineActive', 'DpcStack', 'IsrStack', 'DpcData'],
    ...['DpcWatchdogCount', 'DpcWatchdogPeriod', 'DpcWatchdogPeriodTicks'],
    ...['DpcTimeCount', 'DpcTimeLimit', 'DpcTimeLimitTicks'],
  ],
  _KDPC_DATA: ['ActiveDpc'],
  _KDPC: ['DeferredRoutine'],
  _KTHREAD: ['KernelTime', 'UserTime', 'StackLimit', 'StackBase'],
  _ETHREAD: ['Cid'],
  _CLIENT_ID: ['UniqueProcess', 'UniqueThread'],
} as const;

type StructureName = keyof typeof WANTED;
/** A member that is looked for. */
export type MemberName<S extends StructureName> = (typeof WANTED)[S][number];

/** What types and the KDBG both have. */
const IN_BOTH: readonly (readonly [StructureName, string, keyof DebuggerFields])[] = [
  ['_KPRCB', 'CurrentThread', 'OffsetPrcbCurrentThread'],
  ['_KPRCB', 'IdleThread', 'OffsetPrcbIdleThread'],
  ['_KPRCB', 'DpcRoutineActive', 'OffsetPrcbDpcRoutine'],
  ['_KPRCB', 'DpcStack', 'OffsetPrcbDpcStack'],
  ['_KPRCB', 'IsrStack', 'OffsetPrcbIsrStack'],
  ['_KTHREAD', 'StackLimit', 'OffsetKThreadStackLimit'],
  ['_KTHREAD', 'StackBase', 'OffsetKThreadStackBase'],
];

/** The kernel's types, as far as its PDB has them. */
export class KernelTypes {
  readonly #structures: ReadonlyMap<string, Structure>;

  constructor(structures: ReadonlyMap<string, Structure>) {
    this.#structures = structures;
  }

  /** undefined: this build's public types lack it. */
  member<S extends StructureName>(structure: S, member: MemberName<S>): Member | undefined {
    return this.#structures.get(structure)?.members.get(member);
  }
}

/** The types, or why there are none. They are not used where they contradict the KDBG: then one of both is another build's. */
export function kernelTypes({ kernel, kdbg }: Windows, symbols: Symbols | undefined): KernelTypes | Reason {
  const { pdb } = kernel;
  if (!pdb || !symbols?.has(pdb)) return because("the kernel's PDB is not at hand");
  const structures = symbols.structures(pdb, WANTED);
  if (!structures?.size) return because("the kernel's PDB has no types of the kernel");
  for (const [structure, name, field] of IN_BOTH) {
    const member = structures.get(structure)?.members.get(name);
    const inKdbg = Number(kdbg.fields[field] ?? 0);
    if (member && inKdbg !== 0 && member.offset !== inKdbg) {
      return because(
        `the PDB has ${structure}.${name} at ${hex(member.offset)}, the KDBG at ${hex(inKdbg)}: its types are not used`,
      );
    }
  }
  return new KernelTypes(structures);
}

/** The types, without the reason. */
export const typesOrNone = (types: KernelTypes | Reason): KernelTypes | undefined =>
  types instanceof Reason ? undefined : types;
