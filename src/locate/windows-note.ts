/**
 * The VMCOREINFO note of a guest with virtio-win's fwcfg driver: a crash dump header, as the kernel filled
 * it when the driver started, with the address of a decoded copy of the KDBG in BugCheckParameter1
 * (fwcfg/device.c of the driver). It is the guest's word like the rest: used where memory bears it out.
 */

import { isKernelAddress } from '../core/bits.ts';
import { because, Reason } from '../core/reason.ts';
import { hex, hex64, PHYSICAL_ADDRESS_LIMIT, pa, type VirtualAddress, va } from '../core/units.ts';
import type { DumpHeader, DumpHeaderForm } from '../formats/dump-header.ts';
import { DUMP_SIGNATURE } from '../formats/win-dump.ts';
import { KDBG_MAX_SIZE, KDBG_MIN_SIZE, KDBG_TAG, readDebuggerData } from '../formats/win-kernel.ts';
import { rootIn } from '../machines/paging-mode.ts';
import { AddressSpace } from '../memory/address-space.ts';
import type { MemoryImage } from '../memory/image.ts';
import type { Evidence } from '../windows/evidence.ts';
import { debuggerFields, type Kdbg } from '../windows/kdbg.ts';
import { type RamRange, ramRanges } from '../windows/physical-memory.ts';
import { baseBuild } from '../windows/releases.ts';
import type { Windows } from '../windows/windows.ts';
import type { CodeAddress } from './kernel.ts';
import type { RootCandidate } from './roots.ts';

/** Names this step in evidence. */
export const NOTE_STEP = 'VMCOREINFO note';

/** The crash dump header that the note holds. */
export type WindowsNote = DumpHeader;

/** undefined when the input has no such note of Windows'. */
export function readWindowsNote(image: MemoryImage, evidence: Evidence): WindowsNote | undefined {
  const note = image.notes.find(({ name }) => name === 'VMCOREINFO');
  if (!note?.head.subarray(0, 4).equals(DUMP_SIGNATURE.subarray(0, 4))) return undefined;
  const { signature, size, title, decode } = image.machine.dumpHeader;
  if (note.head.length < size || !note.head.subarray(0, signature.length).equals(signature)) {
    evidence.reject(NOTE_STEP, `${hex(note.size)} bytes`, `not a whole ${title} crash dump header`);
    return undefined;
  }
  const header = decode(note.head);
  if (header.MachineImageType !== image.machine.imageFileMachine) {
    evidence.reject(NOTE_STEP, 'crash dump header', `of another machine (${hex(header.MachineImageType)})`);
    return undefined;
  }
  evidence.accept(NOTE_STEP, 'crash dump header', `of build ${header.MinorVersion}`);
  return header;
}

/** The root that the header names, in every paging mode: it need not tell which. */
export function* notedRoots(image: MemoryImage, note: WindowsNote | undefined): Generator<RootCandidate> {
  if (!note || note.DirectoryTableBase >= BigInt(PHYSICAL_ADDRESS_LIMIT)) return;
  for (const mode of image.machine.pagingModesOf(note))
    yield {
      tables: { root: rootIn(mode, note.DirectoryTableBase), mode },
      method: `${NOTE_STEP}'s DirectoryTableBase`,
    };
}

/**
 * The driver's decoded copy of the KDBG, where it is. The address that the header gives for the KDBG itself is only
 * compared: if no block is there, what is there is not known to be one.
 */
export function notedKdbg(space: AddressSpace, note: WindowsNote | undefined): Kdbg | Reason {
  const copy = note?.BugCheckParameters[0];
  if (copy === undefined || !isKernelAddress(copy)) return because('it names no copy of the KDBG');
  return plainBlockAt(space, va(copy));
}

/** The decoded KDBG at an address, of which nothing but its head is checked. */
export function plainBlockAt(space: AddressSpace, address: VirtualAddress): Kdbg | Reason {
  const { pointerSize } = space.image.machine;
  const head = space.read(address, KDBG_MIN_SIZE);
  if (!head) return because(`what should be a KDBG at ${hex64(address)} is not present`);
  const { OwnerTag, Size } = readDebuggerData(head, KDBG_MIN_SIZE, pointerSize);
  if (OwnerTag !== KDBG_TAG || Size === undefined || Size < KDBG_MIN_SIZE || Size > KDBG_MAX_SIZE || Size % 8 !== 0) {
    return because(`no KDBG is at ${hex64(address)}, where one should be`);
  }
  const block = space.read(address, Size);
  if (!block) return because(`the KDBG at ${hex64(address)} is not present as a whole`);
  return { address, size: Size, encoded: false, block, fields: debuggerFields(block, Size, space.image.machine) };
}

/** Where that copy says that the kernel begins. */
export function* addressesFromNote(space: AddressSpace, note: WindowsNote | undefined): Generator<CodeAddress> {
  const kdbg = notedKdbg(space, note);
  if (kdbg instanceof Reason || kdbg.fields.KernBase === undefined || !isKernelAddress(kdbg.fields.KernBase)) return;
  yield { address: va(kdbg.fields.KernBase), why: `KernBase of the KDBG that the ${NOTE_STEP} names` };
}

/**
 * What Windows counted as RAM when the driver started, or the reason why it can't be had or believed.
 *
 * @param form of the header
 * @param used physical addresses that Windows uses as RAM
 * @param total pages of RAM by SharedUserData; 0 where it does not say
 */
export function notedRam(
  note: WindowsNote | undefined,
  { form, used, total }: { form: DumpHeaderForm; used: readonly number[]; total: number },
): RamRange[] | Reason {
  if (!note) return because(`there is no ${NOTE_STEP} of Windows`);
  if (note.NumberOfRuns === 0 || note.NumberOfRuns > form.maxRuns)
    return because(`it claims ${note.NumberOfRuns} runs`);
  const runs = Array.from({ length: note.NumberOfRuns }, (_, i) => form.runAt(note, i));
  const ranges = ramRanges(runs, note.NumberOfPages, 'its header');
  if (ranges instanceof Reason) return ranges;
  const outside = used.find((at) => !ranges.some(({ start, size }) => at >= start && at < start + size));
  if (outside !== undefined) return because(`its runs lack physical ${hex(outside)}, which Windows uses`);
  // Memory can have been added or removed since.
  const pages = Number(note.NumberOfPages);
  if (total !== 0 && Math.abs(pages - total) > total / 16)
    return because(`its runs have ${pages} pages, SharedUserData says ${total}`);
  return ranges;
}

/** Values that Windows writes in more than one form: any is right. */
function isOtherForm(name: string, noted: bigint, { space, kdbg, version }: Omit<Windows, 'evidence'>): boolean {
  if (name === 'build') return baseBuild(Number(noted)) === baseBuild(version.build);
  const { MmPfnDatabase: variable } = kdbg.fields;
  // The variable's address in some builds' headers, its value in others' (17763).
  return (
    name === 'PfnDatabase' &&
    variable !== undefined &&
    isKernelAddress(variable) &&
    space.readPointer(variable) === noted
  );
}

/** Reports where note and memory differ; memory is newer and wins. */
export function compareNote(note: WindowsNote, windows: Omit<Windows, 'evidence'>, evidence: Evidence): void {
  const { kdbg, version, processors, space, image } = windows;
  const pairs: [string, bigint, bigint | undefined][] = [
    ['build', BigInt(note.MinorVersion), BigInt(version.build)],
    // Where the block itself is lost, the copy that the note names was used.
    ...(kdbg.address === note.BugCheckParameters[0]
      ? []
      : [['KdDebuggerDataBlock', note.KdDebuggerDataBlock, kdbg.address] as [string, bigint, bigint]]),
    ['PfnDatabase', note.PfnDatabase, kdbg.fields.MmPfnDatabase],
    ['PsLoadedModuleList', note.PsLoadedModuleList, kdbg.fields.PsLoadedModuleList],
    ['PsActiveProcessHead', note.PsActiveProcessHead, kdbg.fields.PsActiveProcessHead],
    ['NumberProcessors', BigInt(note.NumberProcessors), BigInt(processors.length)],
  ];
  const differing = pairs
    .filter(([name, noted, found]) => noted !== found && !isOtherForm(name, noted, windows))
    .map(
      ([name, noted, found]) =>
        `${name} ${hex(noted)} there, ${found === undefined ? 'nothing' : hex(found)} in memory`,
    );
  // Each process has its own root; all map the kernel alike.
  const [candidate] = [...notedRoots(image, note)].filter(({ tables }) => tables.mode === space.mode);
  const other = candidate && new AddressSpace(image, pa(candidate.tables.root), space.mode);
  if (other?.translate(kdbg.address) !== space.translate(kdbg.address)) {
    differing.push(
      `DirectoryTableBase ${hex(note.DirectoryTableBase)} there maps the KDBG elsewhere than ${hex(space.root)}`,
    );
  }
  if (differing.length === 0) {
    evidence.accept(NOTE_STEP, 'comparison with memory', 'build, lists, KDBG, processors and page tables agree');
    return;
  }
  const text = differing.join('; ');
  evidence.reject(NOTE_STEP, 'comparison with memory', text);
  image.diagnostics.add(
    'warning',
    'vmcoreinfo-disagrees',
    `the ${NOTE_STEP} differs from what memory shows, which was used: ${text}`,
  );
}
