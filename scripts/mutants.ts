// Shows that the tests can fail: breaks the product in one place at a time, in a copy, and runs the tests that
// should notice. `npm run mutants -- [--workers N] [PART OF A FILE'S NAME OR OF A BREAK'S TEXT …]` prints a line per
// break and exits with 1 if one goes unnoticed.
import { spawn } from 'node:child_process';
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import picomatch from 'picomatch';
import { RING_FILES, RINGS } from '../test/rings.ts';

/** A break of the product. */
export interface Mutant {
  what: string;
  file: string;
  find: string;
  replace: string;
  /** Where only another room's tests can notice it. */
  tests?: string;
}

export const MUTANTS: readonly Mutant[] = [
  {
    what: 'of ranges that overlap, the one with the lowest address is found',
    file: 'core/ranges-found.ts',
    find: 'place.index < found.index)',
    replace: 'place.index > found.index)',
  },
  {
    what: 'a range that a shorter one follows is not found',
    file: 'core/ranges-found.ts',
    find: 'if (place.end > reach) reach = place.end;',
    replace: 'reach = place.end;',
  },
  {
    what: 'a patch that begins before a buffer is not in it',
    file: 'plan/patches.ts',
    find: 'patches[i]!.physical + patches[i]!.bytes.length > physical);',
    replace: 'patches[i]!.physical >= physical);',
    tests: 'test/plan/patches.test.ts',
  },
  {
    what: 'members beyond their structure are believed',
    file: 'symbols/structures.ts',
    find: 'if (offset + (member.size ?? 1) <= size && !members.has(name))',
    replace: 'if (!members.has(name))',
    tests: 'test/symbols/structures.test.ts',
  },
  {
    what: 'one of two structures of a name is taken',
    file: 'symbols/structures.ts',
    find: "definitions.set(definition.name, same ? (known ?? definition) : 'ambiguous');",
    replace: 'definitions.set(definition.name, definition);',
    tests: 'test/symbols/structures.test.ts',
  },
  {
    what: 'types that contradict the KDBG are used',
    file: 'windows/kernel-types.ts',
    find: 'if (member && inKdbg !== 0 && member.offset !== inKdbg) {',
    replace: 'if (member && inKdbg < 0) {',
    tests: 'test/report/activity.test.ts',
  },
  {
    what: 'a processor in a DPC over its idle thread idles',
    file: 'windows/activity.ts',
    find: "if (dpc.value) return known('dpc', dpc.from);",
    replace: '',
    tests: 'test/report/activity.test.ts',
  },
  {
    what: 'the DPC stack has no end',
    file: 'windows/thread-stack.ts',
    find: 'if (stackPointer > top || top - stackPointer > BigInt(space.image.machine.kernelStackSize))',
    replace: 'if (stackPointer > top)',
    tests: 'test/windows/thread-stack.test.ts',
  },
  {
    what: 'registers are said to be confirmed though they name nobody',
    file: 'windows/exchanged-processors.ts',
    find: 'const unconfirmed = running.list.filter((_, i) => owners[i] === undefined);',
    replace: 'const unconfirmed = running.list.filter(() => false);',
    tests: 'test/operations/exchanged-registers.test.ts',
  },
  {
    what: 'a DPC runs on no stack of its processor',
    file: 'windows/exchanged-processors.ts',
    find: 'return !isUser && processorStackTops',
    replace: 'return false && processorStackTops',
    tests: 'test/operations/exchanged-registers.test.ts',
  },
  {
    what: "a thread's id is the first of several places that fit",
    file: 'windows/thread-ids.ts',
    find: 'if (offset === undefined || offsets.length > 1) {',
    replace: 'if (offset === undefined) {',
    tests: 'test/report/activity.test.ts',
  },
  {
    what: 'a lock that is waited for is one that is owned',
    file: 'windows/activity.ts',
    find: "if (flags === LOCK_QUEUE_WAIT) return 'waits';",
    replace: "if (flags === LOCK_QUEUE_WAIT) return 'owns';",
    tests: 'test/report/activity.test.ts',
  },
  {
    what: "a running process's root is a fault of a header",
    file: 'plan/header-faults.ts',
    find: 'if (system === undefined || runs(windows, found)) return;',
    replace: 'if (system === undefined) return;',
    tests: 'test/operations/round-trips.test.ts',
  },
  {
    what: "a process's root in a header is never a fault",
    file: 'plan/header-faults.ts',
    find: 'if (system === undefined || runs(windows, found)) return;',
    replace: 'return;',
    tests: 'test/operations/round-trips.test.ts',
  },
  {
    what: 'the value of MmPfnDatabase is a fault of a header',
    file: 'plan/header-faults.ts',
    find: "if (field === 'PfnDatabase' && header[field] === database) continue;",
    replace: '',
    tests: 'test/operations/dump-input.test.ts',
  },
  {
    what: "a bug check's other form is a fault of a header",
    file: 'plan/header-faults.ts',
    find: 'const VARIANT = 0x1000_0000;',
    replace: 'const VARIANT = 0;',
    tests: 'test/operations/dump-input.test.ts',
  },
  {
    what: "a bug check that contradicts memory's is no fault",
    file: 'plan/header-faults.ts',
    find: 'if (!sameCode) {',
    replace: 'if (!sameCode && code < 0) {',
    tests: 'test/verify/contradictions.test.ts',
  },
  {
    what: 'clocks have to agree to 100 ns',
    file: 'plan/header-faults.ts',
    find: 'const CLOCK_TOLERANCE = 600_000_000n;',
    replace: 'const CLOCK_TOLERANCE = 0n;',
    tests: 'test/operations/dump-input.test.ts',
  },
  {
    what: 'times that nobody set are kept',
    file: 'plan/header-faults.ts',
    find: 'if (interruptTime && isUnset(header.SystemUpTime)) {',
    replace: 'if (interruptTime && header.SystemUpTime === 0n) {',
    tests: 'test/operations/dump-input.test.ts',
  },
  {
    what: 'header faults are reported and not repaired',
    file: 'plan/conversion.ts',
    find: '...faults.map(({ change }) => change), unspilled(image)',
    replace: 'unspilled(image)',
    tests: 'test/operations/dump-input.test.ts',
  },
  {
    what: 'runs in a context record are kept as registers',
    file: 'plan/conversion.ts',
    find: 'if (!dumpHeader || !listFaults.some(({ spilled }) => spilled)) return {};',
    replace: 'if (dumpHeader) return {};\n  if (!dumpHeader) return {};',
    tests: 'test/operations/dump-input.test.ts',
  },
  {
    what: 'registers move without their special registers',
    file: 'plan/repairs.ts',
    find: 'if (whole && from.specialRegisters !== undefined) {',
    replace: 'if (whole && from.specialRegisters === undefined) {',
    tests: 'test/operations/exchanged-registers.test.ts',
  },
  {
    what: 'two sets of registers may claim one processor',
    file: 'windows/exchanged-processors.ts',
    find: 'owned.get(owner)! > 1) claims.delete(processor);',
    replace: 'owned.get(owner)! > 9) claims.delete(processor);',
    tests: 'test/operations/exchanged-registers.test.ts',
  },
  {
    what: 'registers move though their special registers contradict them',
    file: 'windows/exchanged-processors.ts',
    find: 'return contradicted ? undefined : { ...special, whole: true };',
    replace: 'return { ...special, whole: contradicted || true };',
    tests: 'test/operations/exchanged-registers.test.ts',
  },
  {
    what: 'registers of the kernel may be the ones that are left',
    file: 'windows/exchanged-processors.ts',
    find: '|| !windows.image.machine.isUserMode(last.registers)) return;',
    replace: ') return;',
    tests: 'test/operations/exchanged-registers.test.ts',
  },
  {
    what: 'exchanged registers are shown without a word',
    file: 'plan/contexts.ts',
    find: '  yield* exchangesIn(windows);\n',
    replace: '',
    tests: 'test/operations/exchanged-registers.test.ts',
  },
  {
    what: 'a list of runs is mended of which nothing is right',
    file: 'readers/dump-runs.ts',
    find: 'if (NumberOfRuns === runs.length || NumberOfPages !== pages) return undefined;',
    replace: 'if (NumberOfRuns === runs.length) return undefined;',
    tests: 'test/operations/dump-input.test.ts',
  },
  {
    what: "runs that are not Windows' own are taken",
    file: 'locate/layouts.ts',
    find: 'if (isWindowsOwn(windows) && (',
    replace: 'if (windows && (',
    tests: 'test/operations/dump-input.test.ts',
  },
  {
    what: 'smaller dumps lack the tables that CPUs in user mode have loaded',
    file: 'windows/process-roots.ts',
    find: 'if (mapsInterrupts(scene, registers, tables.root)) roots.add(tables.root);',
    replace: '',
    tests: 'test/operations/round-trips.test.ts',
  },
  {
    what: '32-bit pointers of the KDBG are taken as they come',
    file: 'core/bits.ts',
    find: 'size === 8 ? value : BigInt.asUintN(64, BigInt.asIntN(32, value))',
    replace: 'value',
    tests: 'test/locate/x86.test.ts',
  },
  {
    what: 'PAE is read as two levels',
    file: 'machines/x86/index.ts',
    find: 'const mode = isPae(control) ? PAGING_PAE : PAGING_32_BIT;',
    replace: 'const mode = PAGING_32_BIT;',
    tests: 'test/machines/x86.test.ts',
  },
  {
    what: 'a 32-bit KPCR is looked for by FS alone',
    file: 'machines/x86/kpcr.ts',
    find: 'const bases = [descriptorBase(registers, KGDT_R0_PCR, read), ',
    replace: 'const bases = [',
    tests: 'test/machines/x86.test.ts',
  },
  {
    what: 'task gates are handlers',
    file: 'machines/x86/index.ts',
    find: ' || !GATE_TYPES.has(type & 0x1f)',
    replace: '',
    tests: 'test/machines/x86.test.ts',
  },
  {
    what: 'prototype entries without PAE lie elsewhere',
    file: 'machines/x86/paging.ts',
    find: '(((entry >>> 11) << 10) >>> 0)',
    replace: '(((entry >>> 11) << 9) >>> 0)',
    tests: 'test/machines/x86.test.ts',
  },
  {
    what: "a 32-bit header's PaeEnabled is left out",
    file: 'formats/dump-header.ts',
    find: 'PaeEnabled: v.pae ? 1 : 0,',
    replace: '',
    tests: 'test/machines/x86.test.ts',
  },
  {
    what: 'any four entries are a PDPT',
    file: 'machines/x86/page-clues.ts',
    find: 'return tables.size === PDPT / 8;',
    replace: 'return false;',
    tests: 'test/locate/x86.test.ts',
  },
  {
    what: 'the fields that the KDBG of XP lacks are not known',
    file: 'windows/kdbg.ts',
    find: '...debuggerDefaults,',
    replace: '',
    tests: 'test/locate/x86.test.ts',
  },
  {
    what: "frame pointers' frames are certain",
    file: 'windows/stacks.ts',
    find: "if (how === 'frame-pointer') certain = false;",
    replace: '',
    tests: 'test/operations/x86.test.ts',
  },
  {
    what: "the KDBG's PaeEnabled stays wrong",
    file: 'plan/repairs.ts',
    find: 'if (machine.pointerSize === 4 && wanted !== found) {',
    replace: 'if (machine.pointerSize === 8 && wanted !== found) {',
    tests: 'test/operations/x86.test.ts',
  },
  {
    what: 'user memory in a triage dump',
    file: 'plan/virtual-blocks.ts',
    find: 'if (!this.#limits.user) return false;',
    replace: '',
    tests: 'test/plan/triage.test.ts',
  },
  {
    what: 'a triage dump of any size',
    file: 'plan/triage.ts',
    find: 'return room >= 0;',
    replace: 'return true;',
    tests: 'test/plan/triage.test.ts',
  },
  {
    what: 'a triage dump shows registers without the conversion',
    file: 'plan/virtual-blocks.ts',
    find: 'of this.#patches.all(address, length)) {',
    replace: 'of this.#patches.all(address, 0)) {',
    tests: 'test/operations/triage.test.ts',
  },
  {
    what: 'blocks that overlap count twice',
    file: 'memory/triage-contents.ts',
    find: 'const covered = end > address ? Number(end - address) : 0;',
    replace: 'const covered = 0;',
    tests: 'test/readers/triage.test.ts',
  },
  {
    what: 'blocks outside a triage dump are believed',
    file: 'readers/triage.ts',
    find: 'if (!parts.has(fileOffset, size) ||',
    replace: 'if (',
    tests: 'test/readers/triage.test.ts',
  },
  {
    what: 'a PRCB of another number is believed',
    file: 'windows/processors.ts',
    find: 'if (checkNumber(space, fields, prcb, i) === undefined)',
    replace: 'if (space)',
    tests: 'test/readers/triage.test.ts',
  },
  {
    what: 'a triage dump opens on the processor of its header',
    file: 'plan/contexts.ts',
    find: 'processor.number === windows.image.triage?.current',
    replace: 'processor.number === undefined',
    tests: 'test/readers/triage.test.ts',
  },
  {
    what: "verify leaves a triage dump's modules unchecked",
    file: 'verify/check-triage.ts',
    find: 'if (differing.length === 0) continue;',
    replace: 'if (differing.length < 4) continue;',
    tests: 'test/operations/triage.test.ts',
  },
  {
    what: "a migration stream's first version of a page counts",
    file: 'readers/qevm/ram.ts',
    find: "store.set(page, 'raw', cursor.at - PAGE_SIZE);",
    replace: "if (store.get(page).kind === 'absent') store.set(page, 'raw', cursor.at - PAGE_SIZE);",
    tests: 'test/readers/qevm/qevm.test.ts',
  },
  {
    what: 'stale bytes of mapped RAM count',
    file: 'readers/qevm/pages.ts',
    find: 'return set === 1 ?',
    replace: 'return set >= 0 ?',
    tests: 'test/readers/qevm/qevm.test.ts',
  },
  {
    what: 'differences to pages are left out',
    file: 'readers/qevm/pages.ts',
    find: 'return deltas.reverse().every(',
    replace: 'return deltas.slice(1).every(',
    tests: 'test/readers/qevm/qevm.test.ts',
  },
  {
    what: "a migration stream's hole below 4 GiB is not looked for",
    file: 'readers/qevm/layout.ts',
    find: 'start: 4 * GIB + at + below - low',
    replace: 'start: at + below',
    tests: 'test/readers/qevm/qevm.test.ts',
  },
  {
    what: 'another bug check than the hypervisor was told of is no doubt',
    file: 'windows/host-witness.ts',
    find: 'if (agrees) {',
    replace: 'if (agrees || bugCheck) {',
    tests: 'test/readers/qevm/qevm.test.ts',
  },
  {
    what: 'another build than the hypervisor was told of is no doubt',
    file: 'windows/host-witness.ts',
    find: 'told === (build & 0xffff)',
    replace: 'told > 0',
    tests: 'test/readers/qevm/qevm.test.ts',
  },
  {
    what: "bzip2's checksums are not compared",
    file: 'source/bzip2.ts',
    find: 'if (crc32(contents) !== checksum)',
    replace: 'if (crc32(contents) < 0)',
    tests: 'test/readers/input.test.ts',
  },
  {
    what: "lzop's checksums are not compared",
    file: 'source/lzop.ts',
    find: 'adler === undefined || adler32(contents) === adler',
    replace: 'adler === undefined || adler32(contents) !== 0',
    tests: 'test/readers/input.test.ts',
  },
  {
    what: 'x87 registers by their physical numbers',
    file: 'machines/x64/migration.ts',
    find: '((top + i) & 7)',
    replace: 'i',
    tests: 'test/readers/qevm/qevm.test.ts',
  },

  {
    what: 'p_vaddr instead of p_paddr',
    file: 'readers/elf-core.ts',
    find: 'Number(p.p_paddr)',
    replace: 'Number(p.p_vaddr)',
    tests: 'test/readers/elf-core.test.ts',
  },
  {
    what: 'absent memory counts as stored',
    file: 'readers/elf-core.ts',
    find: 'cut += fileSize - available;',
    replace: '',
    tests: 'test/readers/elf-core.test.ts',
  },
  {
    what: 'PN_XNUM ignored',
    file: 'readers/elf-core.ts',
    find: 'if (count === PN_XNUM)',
    replace: 'if (count < 0)',
    tests: 'test/readers/elf-core.test.ts',
  },
  {
    what: 'kernel_gs_base always read',
    file: 'machines/x64/qemu-note.ts',
    find: 'size < QEMU_CPU_STATE_MIN + 8 ? undefined',
    replace: 'size < 8 ? undefined',
    tests: 'test/readers/elf-core.test.ts',
  },
  {
    what: 'the page map ends at the last page',
    file: 'plan/bitmap.ts',
    find: 'alignUp(end / PAGE_SIZE, WORD_BITS)',
    replace: 'alignUp(end / PAGE_SIZE, 8)',
    tests: 'test/plan/other-readers.test.ts',
  },
  {
    what: 'the page map has the signature that radare2 refuses',
    file: 'plan/bitmap.ts',
    find: 'Signature: BITMAP_SIGNATURE_KERNEL',
    replace: "Signature: Buffer.from('FDMP')",
    tests: 'test/plan/other-readers.test.ts',
  },
  {
    what: 'unaligned pages are not warned of',
    file: 'plan/plan.ts',
    find: 'firstPage % PAGE_SIZE !== 0',
    replace: 'firstPage < 0',
    tests: 'test/plan/other-readers.test.ts',
  },
  {
    what: 'a dump of a kind that is not read is called unsound',
    file: 'verify/verify-dump.ts',
    find: "!expected && error instanceof Elf2dmpError && error.kind === 'unsupported'",
    replace: 'false',
    tests: 'test/verify/verify.test.ts',
  },
  {
    what: 'kinds of dumps that do not exist are called not read',
    file: 'readers/win-dump.ts',
    find: "kind ? 'unsupported' : 'corrupt'",
    replace: "'unsupported'",
    tests: 'test/verify/verify.test.ts',
  },
  {
    what: 'raw memory of odd size is called cut off',
    file: 'readers/raw.ts',
    find: "diagnostics.add(\n      'warning',\n      'raw-odd-size',",
    replace: "diagnostics.addCutOff(\n      'memory',",
    tests: 'test/readers/input.test.ts',
  },
  {
    what: "a process's core file is taken for a guest's",
    file: 'readers/elf-core.ts',
    find: 'if (process) throw processCore',
    replace: 'if (false) throw processCore',
    tests: 'test/readers/elf-core.test.ts',
  },
  {
    what: 'an AFF4 volume is taken for any zip archive',
    file: 'readers/neighbours.ts',
    find: '(only?.(head) ?? true)',
    replace: 'only === undefined',
    tests: 'test/readers/input.test.ts',
  },
  {
    what: 'RAM that the file lacks is not missed',
    file: 'locate/locator.ts',
    find: "if (missing !== undefined) diagnostics.add('loss', 'ram-missing'",
    replace: "if (false) diagnostics.add('loss', 'ram-missing'",
    tests: 'test/operations/convert.test.ts',
  },
  {
    what: 'the first of several systems in memory wins',
    file: 'locate/place.ts',
    find: '.sort((a, b) => Number(time(b) - time(a)))',
    replace: '',
    tests: 'test/locate/rivals.test.ts',
  },
  {
    what: "a Linux kernel's text outweighs what is Windows' own",
    file: 'locate/failures.ts',
    find: 'other.certain || processors + kdbgs === 0',
    replace: 'true',
    tests: 'test/locate/rivals.test.ts',
  },
  {
    what: 'i386 in the header of a 64-bit guest is believed',
    file: 'machines/index.ts',
    find: '...MACHINES.filter(({ takenFor }) => takenFor === named.name)',
    replace: '',
    tests: 'test/locate/rivals.test.ts',
  },
  {
    what: "zstd's checksum not given to the decoder",
    file: 'source/zstd.ts',
    find: 'checksum ? [start, block, checksum] :',
    replace: 'checksum ? [start, block, Buffer.alloc(4)] :',
    tests: 'test/readers/input.test.ts',
  },
  {
    what: 'the layout whose size fits wins, whatever is reached through it',
    file: 'locate/layouts.ts',
    find: 'b.contents - a.contents || a.misfit - b.misfit',
    replace: 'b.misfit - a.misfit',
    tests: 'test/locate/layouts.test.ts',
  },
  {
    what: "Windows' list of its RAM leads to no layout",
    file: 'locate/layouts.ts',
    find: 'sum(ram) === size && ram.length > 1',
    replace: 'false',
    tests: 'test/locate/layouts.test.ts',
  },
  {
    what: 'shifted self-map entries are not looked for',
    file: 'locate/layouts.ts',
    find: 'if (this.#found.length === 0 && first?.arrange)',
    replace: 'if (false && first?.arrange)',
    tests: 'test/locate/layouts.test.ts',
  },
  {
    what: 'the VMCOREINFO note is not compared',
    file: 'locate/locator.ts',
    find: 'if (note) compareNote',
    replace: 'if (false) compareNote',
    tests: 'test/locate/windows-note.test.ts',
  },
  {
    what: "a note's address of the KDBG is believed",
    file: 'locate/windows-note.ts',
    find: 'return plainBlockAt(space, va(copy));',
    replace:
      'const b = plainBlockAt(space, va(copy)); return b instanceof Reason ? b : { ...b, address: va(note!.KdDebuggerDataBlock), encoded: true };',
    tests: 'test/locate/windows-note.test.ts',
  },
  {
    what: "a note's runs are believed, whatever Windows uses",
    file: 'locate/windows-note.ts',
    find: 'if (outside !== undefined)',
    replace: 'if (false)',
    tests: 'test/locate/windows-note.test.ts',
  },
  {
    what: 'a field of the KDBG outside the kernel is believed',
    file: 'windows/kdbg-fields.ts',
    find: "return 'that is not in the kernel';",
    replace: 'return undefined;',
    tests: 'test/windows/kdbg-fields.test.ts',
  },
  {
    what: 'a head that no list links to is believed',
    file: 'windows/kdbg-fields.ts',
    find: "? undefined : 'no list begins there'",
    replace: '? undefined : undefined',
    tests: 'test/windows/kdbg-fields.test.ts',
  },
  {
    what: 'two variables at one address are believed',
    file: 'windows/kdbg-fields.ts',
    find: 'if (same) return',
    replace: 'if (false) return',
    tests: 'test/windows/kdbg-fields.test.ts',
  },
  {
    what: 'special registers anywhere in the PRCB are believed',
    file: 'windows/kdbg-fields.ts',
    find: 'if (isState) return [];',
    replace: 'return [];',
    tests: 'test/windows/kdbg-fields.test.ts',
  },
  {
    what: 'a CONTEXT offset of 0 means the frame in the PRCB',
    file: 'windows/processors.ts',
    find: 'if (pointerAt === 0 ||',
    replace: 'if (',
    tests: 'test/windows/processors.test.ts',
  },
  {
    what: 'a module list that comes back to its head is whole',
    file: 'windows/modules.ts',
    find: 'if (before === previous) return',
    replace: 'if (before === previous || link === head) return',
    tests: 'test/windows/modules.test.ts',
  },
  {
    what: 'a module list has no cap',
    file: 'windows/modules.ts',
    find: 'link !== head && seen.size > MAX_MODULES',
    replace: 'false',
    tests: 'test/windows/modules.test.ts',
  },
  {
    what: 'sizes of modules are not compared with their headers',
    file: 'windows/modules.ts',
    find: '&& image.size !== size',
    replace: '&& false',
    tests: 'test/windows/modules.test.ts',
  },
  {
    what: 'the list of KDBGs does not decide',
    file: 'locate/kdbg.ts',
    find: '    score += 4;\n',
    replace: '    score += 0;\n',
    tests: 'test/locate/contradictions.test.ts',
  },
  {
    what: 'of equal KDBGs the first is sure',
    file: 'locate/kdbg.ts',
    find: 'if (equals.length > 1)',
    replace: 'if (false)',
    tests: 'test/locate/contradictions.test.ts',
  },
  {
    what: 'two sources of the build number do not outvote one',
    file: 'windows/version.ts',
    find: 'outvoted(first[1], known) ?? first[1]',
    replace: 'first[1]',
    tests: 'test/locate/contradictions.test.ts',
  },
  {
    what: 'bug check data of all ones is believed',
    file: 'windows/crash.ts',
    find: 'if (isErased ||',
    replace: 'if (',
    tests: 'test/locate/contradictions.test.ts',
  },
  {
    what: 'a QEMU note of any version is believed',
    file: 'machines/x64/qemu-note.ts',
    find: 'version > NEWEST_VERSION ||',
    replace: 'false ||',
    tests: 'test/locate/contradictions.test.ts',
  },
  {
    what: 'a plan is not held against the memory that it has',
    file: 'plan/check-plan.ts',
    find: "if (plan.type === 'triage') return [];",
    replace: 'if (plan) return [];',
    tests: 'test/plan/check-plan.test.ts',
  },
  {
    what: 'a plan is held against the input, not the dump',
    file: 'plan/patched-image.ts',
    find: 'applyPatches(patches, start + offset, target);',
    replace: 'void [patches, start, offset, target];',
    tests: 'test/plan/check-plan.test.ts',
  },
  {
    what: 'frames may be where no CONTEXT is',
    file: 'windows/context-frames.ts',
    find: "if (!isUnused) return doubt('what is there looks like no CONTEXT');",
    replace: 'if (!isUnused) return undefined;',
  },
  {
    what: 'zeros are a frame, wherever other processors have theirs',
    file: 'windows/context-frames.ts',
    find: 'others.inPage.get(own) === 1 && place',
    replace: 'others.inPage.get(own) === 0 && place',
  },
  {
    what: 'two processors may have one frame',
    file: 'windows/context-frames.ts',
    find: 'if (sharing) return doubt(',
    replace: 'if (sharing && false) return doubt(',
  },
  {
    what: 'frames may lie on a stack that a processor uses',
    file: 'windows/context-frames.ts',
    find: 'if (stack) taken.push(',
    replace: 'if (stack && false) taken.push(',
  },
  {
    what: 'frames may lie in SharedUserData',
    file: 'windows/context-frames.ts',
    find: 'from: machine.sharedUserData, size: PAGE_SIZE',
    replace: 'from: 0n, size: 0',
    tests: 'test/windows/crash.test.ts',
  },
  {
    what: 'CPUs belong to processors by their order',
    file: 'windows/cpu-matching.ts',
    find: '.map((address) => byKpcr.get(address))',
    replace: '.map(() => processors[cpu.index])',
    tests: 'test/windows/processors.test.ts',
  },
  {
    what: "a program's GS base is believed",
    file: 'machines/x64/kpcr.ts',
    find: '? [kernelGsBase] :',
    replace: '? [gs.base, kernelGsBase] :',
    tests: 'test/windows/processors.test.ts',
  },
  {
    what: 'the first of two claims to a KPCR wins',
    file: 'windows/cpu-matching.ts',
    find: 'byProcessor.get(processor) === 1',
    replace: 'true',
    tests: 'test/windows/processors.test.ts',
  },
  {
    what: "another processor's descriptor tables do not matter",
    file: 'windows/cpu-matching.ts',
    find: '=== true);\n}',
    replace: '=== true && false);\n}',
    tests: 'test/windows/processors.test.ts',
  },
  {
    what: 'a contested processor is given to the last CPU',
    file: 'windows/cpu-matching.ts',
    find: 'filter(({ claimants }) => claimants === undefined)',
    replace: 'slice()',
    tests: 'test/windows/processors.test.ts',
  },
  {
    what: 'large pages not known',
    file: 'machines/x64/paging.ts',
    find: '!levels[at]!.large || (low & LARGE) === 0',
    replace: 'true',
    tests: 'test/memory/walk-recipes.test.ts',
  },
  {
    what: 'NX bit taken for address',
    file: 'machines/x64/paging.ts',
    find: 'const physical = (high & HIGH_ADDRESS) * 2 ** 32',
    replace: 'const physical = high * 2 ** 32',
    tests: 'test/memory/walk-recipes.test.ts',
  },
  {
    what: 'KDBG rotated the wrong way',
    file: 'locate/kdbg.ts',
    find: 'anchor, rotation))',
    replace: 'anchor, 64 - rotation))',
    tests: 'test/locate/kdbg-search.test.ts',
  },
  {
    what: 'one missing page hides the piece that it is in',
    file: 'memory/image.ts',
    find: 'append(parts, { start: pa(from), size: to - from });',
    replace: 'if (from === address && to === address + length) append(parts, { start: pa(from), size: to - from });',
    tests: 'test/operations/absent-pages.test.ts',
  },
  {
    what: 'zeros that say something are dropped',
    file: 'plan/zero-pages.ts',
    find: 'zero && !needed.has(address)',
    replace: 'zero',
    tests: 'test/operations/absent-pages.test.ts',
  },
  {
    what: 'any missing page passes for a dropped one',
    file: 'verify/plan-again.ts',
    find: 'without(extents, present).length + without(present, extents).length === 0 ? extents',
    replace: 'dump.size > 0 ? present',
    tests: 'test/operations/absent-pages.test.ts',
  },
  {
    what: 'the first KDBG wins, not the best',
    file: 'locate/kdbg.ts',
    find: 'ranked.sort((a, b) => b.score - a.score);',
    replace: '',
    tests: 'test/locate/place.test.ts',
  },
  {
    what: 'stale KDBG copies believed',
    file: 'locate/kdbg.ts',
    find: 'if (score === 1) return',
    replace: 'if (score === 0) return',
    tests: 'test/operations/convert.test.ts',
  },
  {
    what: 'fields beyond the KDBG read',
    file: 'locate/kdbg.ts',
    find: 'const fields = debuggerFields(block, candidate.size, space.image.machine);',
    replace: 'const fields = debuggerFields(space.read(at, 0x400)!, 0x400, space.image.machine);',
    tests: 'test/locate/place.test.ts',
  },
  {
    what: 'KVA shadow not looked through',
    file: 'locate/place.ts',
    find: 'yield* shadowedRoots(image, evidence);',
    replace: '',
    tests: 'test/locate/place.test.ts',
  },
  {
    what: 'context flags claim everything',
    file: 'machines/x64/context.ts',
    find: 'CONTEXT_AMD64 | 0x7',
    replace: 'CONTEXT_AMD64 | 0x1f',
    tests: 'test/machines/x64.test.ts',
  },
  {
    what: 'GDTR not set',
    file: 'machines/x64/context.ts',
    find: 'GdtrBase: tables.gdt.base,',
    replace: '',
    tests: 'test/machines/x64.test.ts',
  },
  {
    what: 'captured frame overwritten',
    file: 'plan/contexts.ts',
    find: 'if (wanted && captured.doubt === undefined) {',
    replace: 'if (wanted && captured.doubt === null) {',
    tests: 'test/plan/contexts.test.ts',
  },
  {
    what: 'the debugger opens on the first processor',
    file: 'plan/contexts.ts',
    find: 'known.find(({ processor }) => processor === crash?.processor) ??',
    replace: '',
    tests: 'test/plan/contexts.test.ts',
  },
  {
    what: "the page shows the auto choice's registers",
    file: 'operations/convert.ts',
    find: 'describePage(conversion.windows, conversion.contexts, {',
    replace:
      "describePage(conversion.windows, (await import('../plan/contexts.ts')).chooseContexts(conversion.windows, 'auto'), {",
    tests: 'test/plan/contexts.test.ts',
  },
  {
    what: "the header's root taken for the one that was found",
    file: 'report/windows.ts',
    find: 'directoryTableBase: hex(w.root),',
    replace: 'directoryTableBase: hex(w.headerRoot),',
    tests: 'test/report/windows.test.ts',
  },
  {
    what: 'bug check always 0x161',
    file: 'windows/crash.ts',
    find: "if (code === 0) return 'none';",
    replace: "return 'none';",
    tests: 'test/windows/crash.test.ts',
  },
  {
    what: 'losses do not count',
    file: 'core/errors.ts',
    find: "return this.losses.length > 0 ? 'losses' : 'good';",
    replace: "return 'good';",
    tests: 'test/operations/convert.test.ts',
  },
  {
    what: '43 runs in a full dump',
    file: 'formats/win-dump.ts',
    find: 'MAX_HEADER_RUNS = 42',
    replace: 'MAX_HEADER_RUNS = 43',
    tests: 'test/plan/plan.test.ts',
  },
  {
    what: 'a file without a name gets one though its output is refused',
    file: 'files/temporary.ts',
    find: 'if (libc.errno() === EEXIST) throw outputExists(name);',
    replace: 'if (libc.errno() === EEXIST) return false;',
    tests: 'test/files/temporary.test.ts',
  },
  {
    what: 'a failed write leaves its file',
    file: 'files/temporary.ts',
    find: 'if (this.#name !== undefined) await removeFile(this.#name);',
    replace: '',
    tests: 'test/files/temporary.test.ts',
  },
  {
    what: 'patches left out',
    file: 'write/batches.ts',
    find: 'applyPatches(patches, from, read);',
    replace: '',
    tests: 'test/plan/plan.test.ts',
  },
  {
    what: 'pieces of a batch not told apart',
    file: 'write/batches.ts',
    find: 'physical - from, physical - from + size',
    replace: '0, size',
    tests: 'test/operations/smaller-dumps.test.ts',
  },
  {
    what: 'the self-map followed',
    file: 'memory/table-walk.ts',
    find: 'level !== this.#mode.selfMapLevel || !this.#selfMapped.has(entry.physical)',
    replace: 'true',
    tests: 'test/memory/table-walk.test.ts',
  },
  {
    what: 'tables read again and again',
    file: 'memory/table-walk.ts',
    find: 'if ((this.#map.bits[index]! & visited) !== 0) return;',
    replace: '',
    tests: 'test/memory/table-walk.test.ts',
  },
  {
    what: 'swizzled entries taken as they are',
    file: 'memory/address-space.ts',
    find: 'return unswizzle(entry, this.#swizzledBit);',
    replace: 'return entry;',
    tests: 'test/memory/swizzle.test.ts',
  },
  {
    what: 'any common bit is cleared though memory is missing',
    file: 'memory/swizzle.ts',
    find: 'beyondMemory || samples.length >= MANY_SAMPLES ? bit : undefined',
    replace: 'beyondMemory || samples.length > 0 ? bit : undefined',
    tests: 'test/memory/swizzle.test.ts',
  },
  {
    what: 'pointers taken for entries in transition',
    file: 'machines/software-entries.ts',
    find: 'high >>> POINTER_SHIFT === POINTER_BITS && (low & 0xf) === 0',
    replace: 'low === 0',
    tests: 'test/memory/swizzle.test.ts',
  },
  {
    what: 'only KPCRs that begin a page are looked for',
    file: 'machines/x64/page-clues.ts',
    find: 'offset < PAGE_SIZE; offset += KPCR_ALIGNMENT',
    replace: 'offset < KPCR_ALIGNMENT; offset += KPCR_ALIGNMENT',
    tests: 'test/machines/page-clues.test.ts',
  },
  {
    what: 'the scan passes over KPCRs within a page',
    file: 'machines/page-scan.ts',
    find: '...kpcr(WORD), ...op.i32Or',
    replace: '...op.i32(0), ...op.i32Or',
    tests: 'test/locate/memory-search.test.ts',
  },
  {
    what: 'the search for return addresses leaves the stack',
    file: 'windows/stacks.ts',
    find: 'at + size > bounds.base',
    replace: 'at < bounds.limit',
    tests: 'test/windows/thread-stack.test.ts',
  },
  {
    what: "images are read in the kernel's address space only",
    file: 'windows/image-spaces.ts',
    find: 'if (own || space.image.triage || space.translate(base) !== undefined) return own;',
    replace: 'return own;',
    tests: 'test/windows/image-spaces.test.ts',
  },
  {
    what: "another processor's descriptor tables are right",
    file: 'windows/exchanged-processors.ts',
    find: 'runs(processor) === false ?',
    replace: 'runs(processor) === undefined ?',
    tests: 'test/verify/contradictions.test.ts',
  },
  {
    what: "another processor's stack is right",
    file: 'windows/exchanged-processors.ts',
    find: 'const byStack = strayed(windows, processor)',
    replace: 'const byStack = !strayed(windows, processor)',
    tests: 'test/verify/contradictions.test.ts',
  },
  {
    what: 'tables without end',
    file: 'memory/table-walk.ts',
    find: 'this.#tables >= this.#map.pages',
    replace: 'false',
    tests: 'test/memory/table-walk.test.ts',
  },
  {
    what: 'a page frame database believed unchecked',
    file: 'windows/page-states.ts',
    find: 'active >= mapped.length * NEEDED',
    replace: 'active >= 0',
    tests: 'test/operations/smaller-dumps.test.ts',
  },
  {
    what: 'the page frame database read as Vista has it only',
    file: 'machines/x64/index.ts',
    find: 'stateAt: 0x22,',
    replace: 'stateAt: 0x1a,',
    tests: 'test/windows/page-states.test.ts',
  },
  {
    what: 'pages within a large free one count as bad',
    file: 'windows/page-states.ts',
    find: 'location !== PageLocation.bad || !resident',
    replace: 'location >= 0 || !resident',
    tests: 'test/windows/page-states.test.ts',
  },
  {
    what: "private pages on standby left out, files' kept",
    file: 'windows/page-states.ts',
    find: '& OF_FILE) === 0',
    replace: '& OF_FILE) !== 0',
    tests: 'test/operations/smaller-dumps.test.ts',
  },
  {
    what: 'an unbelieved page frame database is no loss',
    file: 'plan/select-pages.ts',
    find: "'loss',\n      'page-states-unknown'",
    replace: "'warning',\n      'page-states-unknown'",
    tests: 'test/operations/smaller-dumps.test.ts',
  },
  {
    what: 'a mapped page left out by its state',
    file: 'plan/select-pages.ts',
    find: "return type === 'active' && (bits & MAPPED) === 0 && kind !== 'notRam';",
    replace: "return type === 'active' && kind !== 'notRam';",
    tests: 'test/operations/smaller-dumps.test.ts',
  },
  {
    what: "processes' own roots left out",
    file: 'windows/process-roots.ts',
    find: 'if (leads) roots.add(root);',
    replace: '',
    tests: 'test/operations/smaller-dumps.test.ts',
  },
  {
    what: 'zero pages kept, others dropped',
    file: 'plan/zero-pages.ts',
    find: 'zero && !needed.has(address)',
    replace: '!zero && !needed.has(address)',
    tests: 'test/operations/smaller-dumps.test.ts',
  },
  {
    what: 'a large allocation in the unscaled form scaled',
    file: 'machines/x64/unwind.ts',
    find: 'detail === 0 ? operand * 8 : operand',
    replace: 'operand * 8',
    tests: 'test/machines/unwind.test.ts',
  },
  {
    what: "a frame pointer's offset forgotten",
    file: 'machines/x64/unwind.ts',
    find: '- BigInt(each.frameOffset)',
    replace: '- 0n',
    tests: 'test/machines/unwind.test.ts',
  },
  {
    what: "the prologue of a chained part's parent never run",
    file: 'machines/x64/unwind.ts',
    find: ': 2 ** 32',
    replace: ': 0',
    tests: 'test/machines/unwind.test.ts',
  },
  {
    what: 'volatile registers known in the caller',
    file: 'machines/x64/unwind.ts',
    find: 'for (const register of VOLATILE) integers[register] = undefined;',
    replace: '',
    tests: 'test/machines/unwind.test.ts',
  },
  {
    what: 'stacks without end',
    file: 'windows/stacks.ts',
    find: 'if (seen.has(place)) return',
    replace: 'if (false) return',
    tests: 'test/operations/stack.test.ts',
  },
  {
    what: "guesses that don't say so",
    file: 'windows/stacks.ts',
    find: "how = 'guess';\n      certain = false;",
    replace: "how = 'guess';",
    tests: 'test/operations/stack.test.ts',
  },
  {
    what: 'any word a return address',
    file: 'windows/stacks.ts',
    find: '!bytes || !machine.endsWithCall(bytes)',
    replace: '!bytes',
    tests: 'test/operations/stack.test.ts',
  },
  {
    what: 'a crash dump gives pages one too far',
    file: 'readers/dump-runs.ts',
    find: 'let fileOffset = Number(firstPage);',
    replace: 'let fileOffset = Number(firstPage) + 4096;',
    tests: 'test/readers/win-dump.test.ts',
  },
  {
    what: 'overlapping runs of a crash dump taken',
    file: 'readers/dump-runs.ts',
    find: 'if (overlap) throw overlapping',
    replace: 'if (overlap && overlap.before.start < 0) throw overlapping',
    tests: 'test/readers/win-dump.test.ts',
  },
  {
    what: 'the next export named, not the nearest below',
    file: 'windows/pe-image.ts',
    find: '(i) => entries[i]!.rva > rva) - 1]',
    replace: '(i) => entries[i]!.rva > rva)]',
    tests: 'test/windows/pe-image.test.ts',
  },
  {
    what: 'process IDs not checked',
    file: 'windows/processes.ts',
    find: 'pid >= 2n ** 32n || seen.has(pid)',
    replace: 'pid >= 2n ** 32n',
    tests: 'test/operations/info.test.ts',
  },
  {
    what: 'the first offset that fits a process taken',
    file: 'windows/processes.ts',
    find: 'isMost(links.filter((link) => isProcess(link - BigInt(offset))).length, links)',
    replace: 'isProcess(links[0]! - BigInt(offset))',
    tests: 'test/operations/info.test.ts',
  },
  {
    what: 'unloaded modules from the oldest on',
    file: 'windows/unloaded-modules.ts',
    find: '(count - i + MAX_UNLOADED_DRIVERS)',
    replace: '(count + i)',
    tests: 'test/windows/kernel-facts.test.ts',
  },
  {
    what: 'unused header bytes not verified',
    file: 'verify/compare-header.ts',
    find: 'if (offset > end) yield unused(end, offset);',
    replace: '',
    tests: 'test/verify/verify.test.ts',
  },
  {
    what: 'a page that differs not reported',
    file: 'verify/compare-pages.ts',
    find: 'findings.addDifference(pageFinding(physical + page, a, b, patches));',
    replace: '',
    tests: 'test/verify/verify.test.ts',
  },
  {
    what: 'missing pages not reported',
    file: 'verify/compare-pages.ts',
    find: "report('pages-missing', 'of the input are not in the dump', without(extents, present));",
    replace: '',
    tests: 'test/verify/verify.test.ts',
  },
  {
    what: 'patches verified against the dump only',
    file: 'verify/plan-again.ts',
    find: 'image.readSync(physical, bytes) && bytes.equals(original)',
    replace: 'image.readSync(physical, bytes)',
    tests: 'test/verify/verify.test.ts',
  },
  {
    what: 'outputs: inputs by another name are not recognised',
    file: 'files/publish.ts',
    find: 'if (inputFiles.has(identityOf(existing))) {',
    replace: 'if (inputFiles.size > 1000) {',
    tests: 'test/files/publish.test.ts',
  },
  {
    what: "outputs: --force replaces a guest's memory",
    file: 'files/publish.ts',
    find: 'const kind = await memoryDumpKind(head);',
    replace: 'const kind = undefined as string | undefined;',
    tests: 'test/files/publish.test.ts',
  },
  {
    what: 'outputs: undo journals lose their names',
    file: 'files/publish.ts',
    find: 'if (path.endsWith(UNDO_SUFFIX) ||',
    replace: 'if (path === UNDO_SUFFIX ||',
    tests: 'test/files/publish.test.ts',
  },
  {
    what: 'outputs: one file for two outputs',
    file: 'files/publish.ts',
    find: 'if (other !== undefined) throw twice(other, output);',
    replace: '',
    tests: 'test/files/publish.test.ts',
  },
  {
    what: 'outputs: what was published stays when the next fails',
    file: 'files/publish.ts',
    find: 'for (const undo of back.reverse()) await undo();',
    replace: '',
    tests: 'test/files/publish.test.ts',
  },
  {
    what: "the input's time is not compared",
    file: 'files/input-watch.ts',
    find: "return now.mtimeNs === mtimeNs ? undefined : 'it was written to';",
    replace: 'return undefined;',
    tests: 'test/operations/changing-input.test.ts',
  },
  {
    what: "the input's inode is not compared",
    file: 'files/input-watch.ts',
    find: 'if (now?.ino !== ino || now.dev !== dev)',
    replace: 'if (now === undefined)',
    tests: 'test/operations/changing-input.test.ts',
  },
  {
    what: 'inputs are not locked',
    file: 'files/input-watch.ts',
    find: "if ((await tryLock(fd, 'shared')) !== 'busy') return;",
    replace: 'return;',
    tests: 'test/operations/changing-input.test.ts',
  },
  {
    what: "a running guest's memory is read without a word",
    file: 'readers/input.ts',
    find: 'if (isRaw && !liveInput) {',
    replace: 'if (isRaw && !isRaw) {',
    tests: 'test/operations/changing-input.test.ts',
  },
  {
    what: 'zstd takes any memory',
    file: 'source/zstd.ts',
    find: 'if (needed > limit) {',
    replace: 'if (needed < 0) {',
    tests: 'test/readers/input.test.ts',
  },
  {
    what: 'gzip: other bytes behind its end are lost sight of',
    file: 'source/gzip.ts',
    find: 'if (ended) input.unread(',
    replace: 'if (fed < 0) input.unread(',
    tests: 'test/readers/input.test.ts',
  },
  {
    what: "gzip's checksum not compared",
    file: 'source/gzip.ts',
    find: 'trailer.readUInt32LE(0) !== checksum',
    replace: 'trailer.readUInt32LE(0) < 0',
    tests: 'test/readers/input.test.ts',
  },
  {
    what: 'JSON shows what guests wrote',
    file: 'core/json.ts',
    find: "c === '\\n' ? c : escaped(c)",
    replace: 'c',
    tests: 'test/core/json.test.ts',
  },
  {
    what: 'any JSON is a sidecar',
    file: 'batch/sidecar.ts',
    find: 'if (!sidecarSchema.safeParse(value).success) return undefined;',
    replace: '',
    tests: 'test/batch/records.test.ts',
  },
  {
    what: 'a sidecar vouches for any dump',
    file: 'batch/sidecar.ts',
    find: 'if (found !== header && found !== former) return null;',
    replace: '',
    tests: 'test/batch/records.test.ts',
  },
  {
    what: 'any file is a report',
    file: 'batch/report.ts',
    find: 'refuseForeign(file, content);',
    replace: 'void refuseForeign;',
    tests: 'test/batch/records.test.ts',
  },
  {
    what: 'two batches at once',
    file: 'files/directory-lock.ts',
    find: "if ((await tryLock(file.fd, how)) === 'busy') {",
    replace: "if ((await tryLock(file.fd, how)) === 'unavailable') {",
    tests: 'test/batch/records.test.ts',
  },
  {
    what: 'batches: the old dump is not vouched for while the new one comes',
    file: 'batch/run.ts',
    find: 'formerHeaderSha256: former',
    replace: 'formerHeaderSha256: null',
    tests: 'test/batch/run.test.ts',
  },
  {
    what: 'templates reach into objects',
    file: 'batch/plan.ts',
    find: 'Object.hasOwn(values, key) ? values[key] : undefined',
    replace: 'values[key]',
    tests: 'test/batch/plan.test.ts',
  },
  {
    what: 'ARM64: the read-only bit taken for a block',
    file: 'machines/arm64/paging.ts',
    find: 'const leads = (low & TABLE) !== 0;',
    replace: 'const leads = (low & 0x80) === 0;',
    tests: 'test/memory/arm64-walk.test.ts',
  },
  {
    what: 'ARM64: vector registers claimed that are not known',
    file: 'machines/arm64/context.ts',
    find: '(vectors ? CONTEXT_FLOATING_POINT : 0)',
    replace: 'CONTEXT_FLOATING_POINT',
    tests: 'test/machines/arm64.test.ts',
  },
  {
    what: 'ARM64: a hypervisor taken for the kernel',
    file: 'machines/arm64/registers.ts',
    find: 'return mode >> 2;',
    replace: 'return Math.min(1, mode >> 2);',
    tests: 'test/machines/arm64.test.ts',
  },
  {
    what: 'ARM64: KPCRs not seen at the first look',
    file: 'machines/arm64/page-clues.ts',
    find: '...ttbr1(from), ...op.i64Equal]',
    replace: '...ttbr0(from), ...op.i64Equal]',
    tests: 'test/machines/arm64-clues.test.ts',
  },
  {
    what: 'ARM64: roots of processes before that of KPCRs',
    file: 'machines/arm64/page-clues.ts',
    find: "how: 'use by a KPCR', rank: 0",
    replace: "how: 'use by a KPCR', rank: 2",
    tests: 'test/machines/arm64-clues.test.ts',
  },
  {
    what: "a header without System's root where registers never name one",
    file: 'locate/roots.ts',
    find: '!image.machine.systemRegisters && !image.dumpHeader',
    replace: 'image.machine.systemRegisters && !image.dumpHeader',
    tests: 'test/operations/arm64.test.ts',
  },
  {
    what: "a PRCB's missing pointer to its frame left as it is",
    file: 'plan/contexts.ts',
    find: 'if (missingPointer === undefined) return;',
    replace: 'if (number >= 0) return;',
    tests: 'test/operations/arm64.test.ts',
  },
  {
    what: 'the kernel not looked for among the images',
    file: 'locate/place.ts',
    find: 'yield* kernelsAmongImages(space);',
    replace: '',
    tests: 'test/operations/arm64.test.ts',
  },
  {
    what: "another machine's SharedUserData believed",
    file: 'windows/shared-user-data.ts',
    find: 'data.ImageNumberLow !== imageFileMachine && ',
    replace: 'data.ImageNumberLow === imageFileMachine && ',
    tests: 'test/operations/arm64.test.ts',
  },
  {
    what: 'ARM64: prologues taken for bodies',
    file: 'machines/arm64/unwind.ts',
    find: 'at < prologue ? without(body, prologue - at) : body',
    replace: 'body',
    tests: 'test/machines/arm64-unwind.test.ts',
  },
  {
    what: 'ARM64: epilogues taken for bodies',
    file: 'machines/arm64/unwind.ts',
    find: 'at >= start && at <= start + size',
    replace: 'at > start + size',
    tests: 'test/machines/arm64-unwind.test.ts',
  },
  {
    what: 'ARM64: a call at the end of a function taken for the next one',
    file: 'machines/arm64/unwind.ts',
    find: '(from.afterCall ? INSTRUCTION : 0)',
    replace: '0',
    tests: 'test/machines/arm64-unwind.test.ts',
  },
  {
    what: 'ARM64: signatures of return addresses kept',
    file: 'machines/arm64/registers.ts',
    find: '? pointer & ~SIGNATURE : pointer | SIGNATURE',
    replace: '? pointer : pointer',
    tests: 'test/machines/arm64.test.ts',
  },
  {
    what: 'TOML: large integers wrap',
    file: 'cli/config.ts',
    find: 'refuseLargeIntegers(file, source);',
    replace: 'void refuseLargeIntegers;',
    tests: 'test/cli/config.test.ts',
  },
  {
    what: 'globs: the last star is not tried again',
    file: 'batch/glob.ts',
    find: 'many >= 0 && accepts(many, resume)',
    replace: 'many > 1000',
    tests: 'test/batch/glob.test.ts',
  },
  {
    what: 'empty bug check data means that nothing crashed',
    file: 'windows/crash.ts',
    find: 'if (trace !== undefined) {',
    replace: "if (trace === '') {",
    tests: 'test/windows/crash.test.ts',
  },
  {
    what: 'any bug check is believed, whatever KeBugCheckEx was called with',
    file: 'windows/crash.ts',
    find: 'if (!isSaved || isSame) continue;',
    replace: 'if (isSaved || isSame) continue;',
    tests: 'test/windows/crash.test.ts',
  },
  {
    what: "the kernel's exports do not contradict the KDBG",
    file: 'windows/kdbg-fields.ts',
    find: 'exported !== undefined && exported !== address',
    replace: 'exported !== undefined && exported === 0n',
    tests: 'test/windows/kdbg-fields.test.ts',
  },
  {
    what: 'a KDBG of any size is believed',
    file: 'windows/kdbg-fields.ts',
    find: 'if (size > LARGEST_SIZE) return',
    replace: 'if (size < 0) return',
    tests: 'test/windows/kdbg-fields.test.ts',
  },
  {
    what: 'modules that changed places',
    file: 'windows/modules.ts',
    find: 'exportNames.get(own) === name.toLowerCase()',
    replace: 'exportNames.get(own) === undefined && own === name',
    tests: 'test/windows/modules.test.ts',
  },
  {
    what: 'the selection of pages hears no signal',
    file: 'plan/select-pages.ts',
    find: 'if (isTime(run.pages)) await pulse.beat();\n    const bits',
    replace: 'const bits',
    tests: 'test/plan/select-pages.test.ts',
  },
  {
    what: 'the walk of page tables hears no signal',
    file: 'memory/table-walk.ts',
    find: 'await pulse.beat();',
    replace: 'void pulse;',
    tests: 'test/memory/table-walk.test.ts',
  },
  {
    what: 'a batch vouches for a dump that somebody wrote to',
    file: 'batch/sidecar.ts',
    find: 'if (record?.bytes && size < record.bytes) return false;',
    replace: 'if (record?.bytes) return false;',
    tests: 'test/batch/records.test.ts',
  },
];

/** What the tests and the build need. */
const COPIED = [
  ...['bin', 'docs', 'samples', 'schema', 'scripts', 'src', 'test'],
  ...['package.json', 'package-lock.json', 'README.md', 'tsconfig.json', 'tsconfig.build.json', 'vitest.config.ts'],
];
const ROOT = fileURLToPath(new URL('..', import.meta.url));
/** ms. Only a break that lets the product loop gets there, however busy the machine is: seconds are usual. */
const LONGEST = 15 * 60_000;

const isCliTest = picomatch([...RING_FILES.cli]);
const ringOf = (tests: string): string => (isCliTest(tests) ? 'cli' : 'unit');

/** A room's own tests, unless the list names others. */
export const testsOf = ({ file, tests }: Mutant): string => tests ?? `test/${file.slice(0, file.indexOf('/'))}/`;

/** What a run of tests came to. Tests that cannot even be loaded notice nothing. */
type Outcome = { kind: 'passed' } | { kind: 'failed'; by: string } | { kind: 'not run'; why: string };

/** The part of vitest's JSON report that is used. */
interface Report {
  testResults: {
    name: string;
    message: string;
    assertionResults: { status: string; fullName: string; failureMessages: string[] }[];
  }[];
}

function outcomeOf({ testResults }: Report, dir: string): Outcome {
  for (const { name, message, assertionResults } of testResults) {
    const failed = assertionResults.find(({ status }) => status === 'failed');
    const [error = ''] = failed?.failureMessages ?? [message];
    // The break is no program: it says nothing about the tests.
    if (/^(Reference|Syntax)Error|Transform failed/.test(error)) return { kind: 'not run', why: error };
    if (failed) return { kind: 'failed', by: `${relative(dir, name)}: ${failed.fullName}` };
    if (message) return { kind: 'not run', why: message };
  }
  return testResults.length > 0 ? { kind: 'passed' } : { kind: 'not run', why: 'no tests' };
}

/** Runs tests of one ring in a copy of the project, by one start of vitest. */
function run(dir: string, tests: readonly string[], workers = 1): Promise<Outcome> {
  const report = join(dir, 'report.json');
  const args = [
    ...['run', '--project', ringOf(tests[0]!), '--bail', '1', '--maxWorkers', String(workers)],
    ...['--reporter', 'json', '--outputFile', report],
    // Of two runs only one file differs.
    ...['--experimental.fsModuleCache', '--experimental.fsModuleCachePath', join(dir, 'module-cache')],
  ];
  rmSync(report, { force: true });
  const child = spawn(process.execPath, [join(ROOT, 'node_modules', 'vitest', 'vitest.mjs'), ...args, ...tests], {
    cwd: dir,
    stdio: ['ignore', 'ignore', 'pipe'],
    timeout: LONGEST,
    killSignal: 'SIGKILL',
  });
  let said = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    said += text;
  });
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (_, signal) => {
      if (signal) resolve({ kind: 'failed', by: 'a run without end' });
      // The build failed.
      else if (!existsSync(report)) resolve({ kind: 'not run', why: said });
      else resolve(outcomeOf(JSON.parse(readFileSync(report, 'utf8')) as Report, dir));
    });
  });
}

/** A copy of the project that may be broken. */
function copyProject(): string {
  const dir = mkdtempSync(join(tmpdir(), 'elf2dmp-mutants-'));
  for (const name of COPIED) cpSync(join(ROOT, name), join(dir, name), { recursive: true });
  symlinkSync(join(ROOT, 'node_modules'), join(dir, 'node_modules'));
  return dir;
}

/** Breaks the copy, runs the tests that should notice, and mends it again. The line that says how it went. */
async function tryMutant(dir: string, mutant: Mutant): Promise<{ noticed: boolean; line: string }> {
  const { what, file, find, replace } = mutant;
  const path = join(dir, 'src', file);
  const source = readFileSync(path, 'utf8');
  if (!source.includes(find)) {
    return { noticed: false, line: `GONE       ${what}: ${file} has no "${find}": mend this list` };
  }
  writeFileSync(
    path,
    source.replace(find, () => replace),
  );
  const outcome = await run(dir, [testsOf(mutant)]);
  writeFileSync(path, source);
  if (outcome.kind === 'failed') return { noticed: true, line: `noticed    ${what} (${outcome.by})` };
  if (outcome.kind === 'passed') return { noticed: false, line: `UNNOTICED  ${what} (${testsOf(mutant)})` };
  return { noticed: false, line: `NOT RUN    ${what} (${testsOf(mutant)}): ${outcome.why}` };
}

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    options: { workers: { type: 'string', default: String(availableParallelism()) } },
    allowPositionals: true,
  });
  const isWanted = ({ file, what }: Mutant) => positionals.some((part) => file.includes(part) || what.includes(part));
  const wanted = positionals.length > 0 ? MUTANTS.filter(isWanted) : MUTANTS;
  const dirs = Array.from({ length: Number(values.workers) }, copyProject);
  const started = process.hrtime.bigint();
  let unnoticed = 0;
  try {
    // A test that fails anyhow, or is not there, would notice everything.
    const named = [...new Set(wanted.map(testsOf))];
    for (const ring of RINGS) {
      const tests = named.filter((name) => ringOf(name) === ring);
      if (tests.length === 0) continue;
      const outcome = await run(dirs[0]!, tests, dirs.length);
      if (outcome.kind !== 'passed') throw new Error(`fails without any break: ${JSON.stringify(outcome)}`);
    }
    const queue = wanted.values();
    const work = async (dir: string): Promise<void> => {
      for (const mutant of queue) {
        const { noticed, line } = await tryMutant(dir, mutant);
        if (!noticed) unnoticed++;
        console.log(line);
      }
    };
    await Promise.all(dirs.map(work));
  } finally {
    for (const dir of dirs) rmSync(dir, { recursive: true, force: true });
  }
  const minutes = Math.round(Number(process.hrtime.bigint() - started) / 60e9);
  console.log(`${wanted.length} breaks, ${unnoticed} unnoticed, in ${minutes} minutes`);
  process.exitCode = unnoticed > 0 ? 1 : 0;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await main();
