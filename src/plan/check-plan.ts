/**
 * Whether a planned dump is in itself what it says: `verify`'s checks of memory, on the memory as the dump will have it,
 * before anything is written.
 */
import { type Diagnostic, Diagnostics } from '../core/errors.ts';
import { Reason } from '../core/reason.ts';
import { hex, hex64, pa } from '../core/units.ts';
import type { DumpHeader } from '../formats/dump-header.ts';
import { type DebuggerFields, KDBG_MIN_SIZE, KDBG_PAE, KDBG_TAG, readDebuggerData } from '../formats/win-kernel.ts';
import type { Machine } from '../machines/machine.ts';
import { rootIn, tableSize } from '../machines/paging-mode.ts';
import { AddressSpace } from '../memory/address-space.ts';
import type { MemoryImage } from '../memory/image.ts';
import { readProcesses } from '../windows/processes.ts';
import type { Windows } from '../windows/windows.ts';
import type { Contexts } from './contexts.ts';
import { patchedImage } from './patched-image.ts';
import type { DumpPlan } from './plan.ts';

/** Something in memory that a debugger follows, and that is not as it should be. */
export interface StructureProblem {
  code: 'processes-broken' | 'special-registers' | 'interrupt-table';
  message: string;
  virtual: bigint | undefined;
  found?: string;
}

/** What is damaged in lists, page tables and interrupt tables. @param image the memory that has to have the tables */
export function structureProblems(windows: Windows, image: MemoryImage = windows.image): StructureProblem[] {
  const { space, kdbg, processors } = windows;
  const { machine } = image;
  const problems: StructureProblem[] = [];
  const processes = readProcesses(space, kdbg.fields, processors);
  const broken = processes instanceof Reason ? processes.text : processes.broken;
  if (broken !== undefined) {
    const message = `the list of processes is broken: ${broken}`;
    problems.push({ code: 'processes-broken', message, virtual: undefined });
  }
  for (const { number, cpu, specialRegisters } of processors) {
    const registers = cpu?.registers;
    if (!registers) continue;
    const tables = machine.pageTables(registers);
    // undefined if the input did not have the control registers.
    const root = machine.rootRegister(registers);
    if (root !== undefined && (!tables || !image.has(tables.root, tableSize(tables.mode, 0)))) {
      problems.push({
        code: 'special-registers',
        message: `processor ${number}: its page-table root is not in the dump, or paging is off`,
        virtual: specialRegisters,
        found: `${machine.words.root} ${hex(root)}`,
      });
    }
    const table = machine.interruptTable(registers);
    if (table && machine.interruptHandlers(table, (at, length) => space.read(at, length)).length === 0) {
      problems.push({
        code: 'interrupt-table',
        message: `processor ${number}: its interrupt table has no usable gates`,
        virtual: table.base,
      });
    }
  }
  return problems;
}

/** What of a plan to check. */
export interface CheckedPlan {
  plan: DumpPlan;
  contexts: Contexts;
  /** The KDBG is to be decoded, and registers are to be where the debugger looks for them. */
  patched: boolean;
}

/** Losses for what the dump's header and its memory, as planned, do not agree on. */
export function checkPlan(windows: Windows, { plan, contexts, patched }: CheckedPlan): Diagnostic[] {
  // A minidump has copies of structures, not memory to follow.
  if (plan.type === 'triage') return [];
  const { extents: runs, patches } = plan;
  const image = patchedImage(windows.image, { patches, runs, diagnostics: new Diagnostics() });
  const found = new Diagnostics();
  for (const { message, virtual } of structureProblems(windows, image)) {
    found.add('loss', 'structures-damaged', message, virtual === undefined ? undefined : { virtual: hex64(virtual) });
  }
  for (const message of contradictions(windows, { plan, contexts, patched }, image)) {
    found.add('loss', 'header-contradicted', message);
  }
  return [...found.list];
}

/** Debuggers walk the page tables of a 32-bit guest as header and KDBG both say. */
function* pagingContradictions(
  { pointerSize }: Machine,
  { PaeEnabled }: DumpHeader,
  fields: DebuggerFields,
): Generator<string> {
  const inKdbg = (fields.PaeEnabled ?? 0) & KDBG_PAE;
  if (pointerSize === 4 && inKdbg !== PaeEnabled) {
    yield `the header's PaeEnabled is ${PaeEnabled}, the KDBG's ${inKdbg}`;
  }
}

function* contradictions(
  { image: { machine }, kdbg, processors }: Windows,
  { plan, contexts, patched }: CheckedPlan,
  image: MemoryImage,
): Generator<string> {
  const header = machine.dumpHeader.decode(plan.prefix);
  const [mode] = machine.pagingModesOf(header);
  if (!mode) return;
  const space = new AddressSpace(image, pa(rootIn(mode, header.DirectoryTableBase)), mode);
  const block = space.read(header.KdDebuggerDataBlock, KDBG_MIN_SIZE);
  const fields = block && readDebuggerData(block, KDBG_MIN_SIZE, machine.pointerSize);
  if (!fields) {
    yield `the KDBG at ${hex64(header.KdDebuggerDataBlock)} is not there through the header's root ${hex(header.DirectoryTableBase)}`;
    return;
  }
  if (patched && fields.OwnerTag !== KDBG_TAG)
    yield `no KDBG is at ${hex64(header.KdDebuggerDataBlock)}, which the header names`;
  if (patched) yield* pagingContradictions(machine, header, fields);
  if (fields.OwnerTag === KDBG_TAG) {
    for (const [name, said] of [
      ['PsLoadedModuleList', header.PsLoadedModuleList],
      ['PsActiveProcessHead', header.PsActiveProcessHead],
      ['MmPfnDatabase', header.PfnDatabase],
    ] as const) {
      // What memory contradicts has been left out of the header, and reported.
      if (kdbg.fields[name] !== undefined && fields[name] !== said) {
        yield `the header's ${name} is ${hex64(said)}, the KDBG's ${hex64(fields[name] ?? 0n)}`;
      }
    }
  }
  if (processors.length > header.NumberProcessors) {
    yield `the header counts ${header.NumberProcessors} processors, ${processors.length} were found`;
  }
  if (!patched) return;
  for (const { processor, source, frame } of contexts.shown) {
    const { context, number } = processor;
    if (source === 'unknown' || context === undefined || context instanceof Reason) continue;
    if (!space.read(context, machine.contextSize)?.equals(frame)) {
      yield `processor ${number}: the dump does not have its registers at ${hex64(context)}, where its PRCB has them`;
    }
  }
}
