/** Where a page-table root may be: candidates best first, none of them believed yet. */
import type { Diagnostics } from '../core/errors.ts';
import { hex, hex64, type PhysicalAddress, pa, type VirtualAddress } from '../core/units.ts';
import type { CpuState, PageTables } from '../machines/machine.ts';
import type { RootClue } from '../machines/page-search.ts';
import { entryAt, rootIn, tableSize } from '../machines/paging-mode.ts';
import { AddressSpace } from '../memory/address-space.ts';
import type { MemoryImage } from '../memory/image.ts';
import type { Crash } from '../windows/crash.ts';
import type { Evidence } from '../windows/evidence.ts';
import { findSystemRoot, type ProcessScene } from '../windows/process-roots.ts';
import { type Processor, savedRegisters } from '../windows/processors.ts';

/** Names this step in evidence. */
export const ROOT_STEP = 'page-table root';

/** A page-table root before it is believed. */
export interface RootCandidate {
  tables: PageTables;
  /** Where it is from, for evidence. */
  method: string;
}

/**
 * The root that goes into a dump's header. Of x64's tables the debugger walks four levels: given the root of
 * five, it resolves nothing; given the PML4 that the topmost PML5 entry leads to, all of the kernel that 48-bit
 * addresses reach (seen in the engine).
 */
export function headerRoot(space: AddressSpace, diagnostics: Diagnostics): PhysicalAddress {
  const { mode } = space;
  const { debuggerRoot } = mode;
  if (!debuggerRoot) return space.root;
  const root = debuggersTable(space);
  if (root === undefined) {
    diagnostics.add(
      'loss',
      'five-level-root',
      `the last entry of the ${mode.name} root at ${hex(space.root)} maps nothing: debuggers can't translate addresses`,
    );
    return space.root;
  }
  diagnostics.add(
    'loss',
    'five-level-paging',
    `the guest uses ${mode.name} page tables, which debuggers don't walk: the header's root is the ${debuggerRoot.table} at ${hex(root)}, through which ${debuggerRoot.maps} resolve, and user addresses and lower kernel ones do not`,
  );
  return root;
}

/** The table that the topmost entry of a root leads to. */
function debuggersTable({ image, mode, root }: AddressSpace): PhysicalAddress | undefined {
  const page = image.page(root);
  const entry = page && entryAt(mode, 0, page, tableSize(mode, 0) - mode.entrySize);
  return entry?.kind === 'table' ? pa(entry.physical) : undefined;
}

/**
 * The address space that the guest's CPUs see, where a crash dump's header names only the part that debuggers walk: by
 * the registers that the dump holds. Believed if that part belongs to it; `space` where there is none.
 */
export function seenByCpus(space: AddressSpace, processors: readonly Processor[]): AddressSpace {
  const { image } = space;
  if (!image.dumpHeader) return space;
  for (const { cpu } of processors) {
    const tables = cpu?.registers && image.machine.pageTables(cpu.registers);
    if (!tables?.mode.debuggerRoot || tables.mode === space.mode) continue;
    const whole = new AddressSpace(image, pa(tables.root), tables.mode);
    if (debuggersTable(whole) === space.root) return whole;
  }
  return space;
}

/**
 * The root for the dump's header, before `headerRoot`: that of the process in which the guest crashed, so that its user
 * memory resolves. By the registers of its CPU or, without them, by those that the bug check saved. Believed if it maps
 * kernel and SharedUserData to where `space` does. Where registers never name a root, that of System, which outlives all
 * others: debuggers take the user memory of each processor from its thread's process.
 */
export function rootForHeader(scene: ProcessScene, crash: Crash | undefined): AddressSpace {
  const { space } = scene;
  const { image } = space;
  if (!image.machine.systemRegisters && !image.dumpHeader) {
    const system = findSystemRoot(scene);
    return system === undefined ? space : new AddressSpace(image, system, space.mode);
  }
  return crashRoot(space, scene.kernel.base, crash);
}

function crashRoot(space: AddressSpace, kernelBase: VirtualAddress, crash: Crash | undefined): AddressSpace {
  const { image } = space;
  const processor = crash?.processor;
  // The root of a crash dump was chosen by who wrote it.
  if (!processor || image.dumpHeader) return space;
  const registers = processor.cpu?.registers ?? savedRegisters(space, processor);
  const tables = registers && image.machine.pageTables(registers);
  if (!tables || tables.mode !== space.mode) return space;
  const other = new AddressSpace(image, pa(tables.root), tables.mode);
  const same = (virtual: VirtualAddress) => other.translate(virtual) === space.translate(virtual);
  return same(kernelBase) && same(image.machine.sharedUserData) ? other : space;
}

/** A root that the caller names, in each paging mode that a CPU runs in (or that exists, if none is known). */
export function* givenRoot(image: MemoryImage, dtb: number): Generator<RootCandidate> {
  const { machine, cpus } = image;
  const running = cpus.flatMap((cpu) => (cpu.registers ? (machine.pageTables(cpu.registers)?.mode ?? []) : []));
  for (const mode of new Set(running.length > 0 ? running : machine.pagingModes)) {
    yield { tables: { root: rootIn(mode, BigInt(dtb)), mode }, method: 'the root given' };
  }
}

/** The root that a crash dump's header names, in each paging mode: it need not tell which, or tell the right one. */
export function* dumpHeaderRoot({ dumpHeader, machine }: MemoryImage): Generator<RootCandidate> {
  if (!dumpHeader) return;
  for (const mode of machine.pagingModesOf(dumpHeader)) {
    yield { tables: { root: rootIn(mode, dumpHeader.DirectoryTableBase), mode }, method: "the dump header's root" };
  }
}

/** The root that each CPU has loaded. */
export function* loadedRoots(image: MemoryImage, evidence: Evidence): Generator<RootCandidate> {
  const seen = new Set<number>();
  if (image.cpus.length === 0) evidence.reject(ROOT_STEP, 'CPU states', 'the input holds none');
  else if (!image.machine.systemRegisters) {
    evidence.reject(ROOT_STEP, 'CPU states', `they never have ${image.machine.words.root}`);
    return;
  }
  for (const cpu of image.cpus) {
    const method = `${image.machine.words.root} of CPU ${cpu.index}`;
    if (!cpu.registers) {
      evidence.reject(ROOT_STEP, method, 'its state is unknown');
      continue;
    }
    const tables = image.machine.pageTables(cpu.registers);
    if (!tables) {
      evidence.reject(
        ROOT_STEP,
        method,
        image.machine.neverStarted(cpu.registers)
          ? `${image.machine.words.notStarted}: the CPU was never started`
          : 'the input lacks its control registers',
      );
      continue;
    }
    if (seen.has(tables.root)) continue;
    seen.add(tables.root);
    yield { tables, method };
  }
}

/**
 * KPRCB.KernelDirectoryTableBase was seen here (from the KPCR): Windows 10 1809 and 1903, 20H2, Windows 11; the last
 * one is what 11 24H2 may have. Only the order of trying depends on it.
 */
const KNOWN_OFFSETS = [0x7000, 0x9000, 0xa000, 0xb000];

/** KPCR with its PRCB: no build's is larger. */
const KPCR_REACH = 0x10000;

/**
 * With KVA shadow, a CPU in user mode has tables loaded that lack most of the kernel; the kernel's root
 * is in its PRCB, at an offset that differs between builds and is found by what it leads to. Of the KPCR
 * the loaded tables map only the page with that word.
 */
export function* shadowedRoots(image: MemoryImage, evidence: Evidence): Generator<RootCandidate> {
  for (const cpu of image.cpus) {
    const tables = cpu.registers && image.machine.pageTables(cpu.registers);
    if (!cpu.registers || !tables) continue;
    const space = new AddressSpace(image, pa(tables.root), tables.mode);
    for (const kpcr of image.machine.kpcrCandidates(cpu.registers, space.reader)) {
      yield* rootsInKpcr(space, cpu, kpcr, evidence);
    }
  }
}

function* rootsInKpcr(
  space: AddressSpace,
  cpu: CpuState,
  kpcr: VirtualAddress,
  evidence: Evidence,
): Generator<RootCandidate> {
  const method = `KPCR of CPU ${cpu.index} at ${hex64(kpcr)}`;
  const { machine } = space.image;
  const tried = new Set<number>([space.root]);
  const { pointerSize } = machine;
  const offsets = [...KNOWN_OFFSETS, ...Array.from({ length: KPCR_REACH / pointerSize }, (_, i) => pointerSize * i)];
  let mapping = 0;
  for (const offset of offsets) {
    const value = space.readPointer(kpcr + BigInt(offset));
    if (value === undefined || (value & space.mode.root.reserved) !== 0n) continue;
    const root = rootIn(space.mode, value);
    if (root === 0 || tried.has(root)) continue;
    tried.add(root);
    // The kernel's tables map the word's page to the same memory, and a KPCR that names itself.
    const candidate = new AddressSpace(space.image, pa(root), space.mode);
    if (candidate.translate(kpcr + BigInt(offset)) !== space.translate(kpcr + BigInt(offset))) continue;
    if (machine.kpcrDoubt(candidate.reader, kpcr) !== undefined) continue;
    mapping++;
    yield {
      tables: { root, mode: space.mode },
      method: `${method}, the word at +${hex(offset)}`,
    };
  }
  evidence.reject(ROOT_STEP, method, `${tried.size - 1} of its words could be a root, ${mapping} of them map it`);
}

/** Roots that a search of memory found, in every paging mode: it does not tell which. */
export function* foundRoots(image: MemoryImage, clues: readonly RootClue[]): Generator<RootCandidate> {
  const seen = new Set<number>();
  const ordered = [...clues].sort((a, b) => a.rank - b.rank);
  for (const { root, how } of ordered) {
    if (seen.has(root)) continue;
    seen.add(root);
    for (const mode of image.machine.pagingModes) yield { tables: { root, mode }, method: `found by its ${how}` };
  }
}
