/**
 * Core files of `xl dump-core` (and of libvirt's dump of a Xen guest): no program headers; memory is in
 * section .xen_pages, a page for each entry of .xen_pfn, and the CPUs are in .xen_prstatus (Xen's
 * docs/misc/dump-core-format.txt). No file of a real Xen was at hand to check it on.
 */
import { type Fail, failIn } from '../core/errors.ts';
import { bytes, hex, MIB, PAGE_SIZE, PHYSICAL_ADDRESS_LIMIT, pa } from '../core/units.ts';
import { ELF_MAGIC, Elf64Header, Elf64SectionHeader, ET_CORE } from '../formats/elf.ts';
import { machineOf } from '../machines/index.ts';
import type { CpuState, Machine } from '../machines/machine.ts';
import { MemoryImage } from '../memory/image.ts';
import { InputDiagnostics } from '../memory/input-diagnostics.ts';
import { append, type FileRun, firstWins } from '../memory/runs.ts';
import { type ByteSource, readUpTo } from '../source/source.ts';
import { closing, type Reader } from './reader.ts';

const MAX_SECTIONS = 64;
const MAX_NAMES = 4096;
const MAX_CPUS = 4096;

/** A run costs about 100 bytes. */
const MAX_RUNS = 1 << 20;

/** Of a page that was not there (~0 in Xen's words). */
const INVALID_PFN_WORD = 0xffff_ffff;

interface Section {
  offset: number;
  size: number;
}

/** The reader of Xen core files. */
export const xenCore: Reader = {
  format: 'xen-core',
  probe(head) {
    if (head.length < Elf64Header.size || !head.subarray(0, 4).equals(ELF_MAGIC)) return false;
    const { e_type, e_phnum, e_shnum } = Elf64Header.read(head);
    return e_type === ET_CORE && xenMachine(head) !== undefined && e_phnum === 0 && e_shnum > 0;
  },
  // Its sections may lie anywhere.
  estimate: () => undefined,
  open: (source) => closing(source, () => open(source)),
};

/** The machine, if Xen runs Windows on it. */
function xenMachine(head: Buffer): XenMachine | undefined {
  const machine = machineOf({ elfMachine: Elf64Header.fields.e_machine.read(head, Elf64Header.offsetOf('e_machine')) });
  return machine?.xenVcpu && { machine, vcpu: machine.xenVcpu };
}

interface XenMachine {
  machine: Machine;
  vcpu: NonNullable<Machine['xenVcpu']>;
}

function open(source: ByteSource): MemoryImage {
  const diagnostics = new InputDiagnostics();
  const fail = failIn(source.name);
  const { machine, vcpu } = xenMachine(readUpTo(source, 0, Elf64Header.size))!;
  const sections = readSections(source);
  const [pages, pfns] = [sections.get('.xen_pages'), sections.get('.xen_pfn')];
  if (!pages || !pfns) {
    throw fail('unsupported', {
      code: sections.has('.xen_p2m') ? 'xen-paravirtual' : 'elf-no-memory',
      message: sections.has('.xen_p2m')
        ? 'a core file of a paravirtualised Xen guest, which Windows is not'
        : 'the core file has no program headers, and no memory of a Xen guest either',
      structure: 'Elf64_Shdr',
      expected: 'sections .xen_pages and .xen_pfn',
      actual: [...sections.keys()].join(', ') || 'none',
    });
  }
  const runs = readRuns(source, { pages, pfns }, diagnostics, fail);
  if (runs.length === 0) {
    throw fail('corrupt', {
      code: 'elf-no-memory',
      message: 'none of the memory that the headers list is in the file',
      hint: 'the dump was cut off, or never finished: make a new one',
    });
  }
  return new MemoryImage({
    file: source.name,
    format: 'xen-core',
    machine,
    contents: { kind: 'stored', runs, source },
    cpus: readCpus(source, vcpu, sections.get('.xen_prstatus'), diagnostics),
    notes: [],
    diagnostics,
    missing: diagnostics.missing,
  });
}

/** By name; of a name that comes twice, the first. */
function readSections(source: ByteSource): Map<string, Section> {
  const { e_shoff, e_shnum, e_shstrndx } = Elf64Header.read(readUpTo(source, 0, Elf64Header.size));
  const count = Math.min(e_shnum, MAX_SECTIONS);
  const table = readUpTo(source, Number(e_shoff), count * Elf64SectionHeader.size);
  const headers = Array.from({ length: Math.floor(table.length / Elf64SectionHeader.size) }, (_, i) =>
    Elf64SectionHeader.read(table, i * Elf64SectionHeader.size),
  );
  const strings = headers[e_shstrndx];
  const names = strings
    ? readUpTo(source, Number(strings.sh_offset), Math.min(MAX_NAMES, Number(strings.sh_size))).toString('latin1')
    : '';
  const sections = new Map<string, Section>();
  for (const { sh_name, sh_offset, sh_size } of headers) {
    const name = /^[^\0]*/.exec(names.slice(sh_name))![0];
    if (sh_name < names.length && name !== '' && !sections.has(name)) {
      sections.set(name, { offset: Number(sh_offset), size: Number(sh_size) });
    }
  }
  return sections;
}

/** One run for pages that follow each other both in memory and in the file. */
function readRuns(
  source: ByteSource,
  { pages, pfns }: { pages: Section; pfns: Section },
  diagnostics: InputDiagnostics,
  fail: Fail<'corrupt'>,
): FileRun[] {
  const listed = Math.floor(Math.min(pfns.size, Math.max(0, source.size - pfns.offset)) / 8);
  const stored = Math.floor(Math.min(pages.size, Math.max(0, source.size - pages.offset)) / PAGE_SIZE);
  const runs: FileRun[] = [];
  for (let first = 0; first < Math.min(listed, stored); first += MIB / 8) {
    const many = Math.min(MIB / 8, listed - first, stored - first);
    const words = readUpTo(source, pfns.offset + 8 * first, 8 * many);
    for (let i = 0; i < many; i++) {
      const [low, high] = [words.readUInt32LE(8 * i), words.readUInt32LE(8 * i + 4)];
      const start = (high * 2 ** 32 + low) * PAGE_SIZE;
      if (high === INVALID_PFN_WORD || start >= PHYSICAL_ADDRESS_LIMIT) continue;
      const fileOffset = pages.offset + (first + i) * PAGE_SIZE;
      append(runs, { start: pa(start), size: PAGE_SIZE, fileOffset });
      if (runs.length > MAX_RUNS) {
        throw fail('corrupt', {
          code: 'xen-pfn',
          message: 'the list of pages jumps about more than memory ever does',
          structure: '.xen_pfn',
          offset: pfns.offset,
          expected: `at most ${MAX_RUNS} runs`,
          actual: 'more',
        });
      }
    }
  }
  runs.sort((a, b) => a.start - b.start);
  const missing = pages.size - stored * PAGE_SIZE + Math.max(0, pfns.size / 8 - listed) * PAGE_SIZE;
  if (missing >= PAGE_SIZE || listed !== stored) {
    diagnostics.addCutOff(
      'memory',
      `the file ends at offset ${hex(source.size)}, ${bytes(missing)} short of what its sections list (${listed} page numbers and ${stored} pages are there)`,
      { offset: hex(source.size) },
    );
  }
  return disjoint(runs, diagnostics);
}

/** Keeps the first copy of a page that is listed twice. */
function disjoint(runs: readonly FileRun[], diagnostics: InputDiagnostics): FileRun[] {
  let doubled = 0;
  const result = firstWins(runs, (_kept, _run, size) => {
    doubled += size;
  });
  if (doubled > 0) {
    diagnostics.add('warning', 'xen-overlap', `${bytes(doubled)} are listed more than once; the first was used`);
  }
  return result;
}

function readCpus(
  source: ByteSource,
  { size, parse }: XenMachine['vcpu'],
  section: Section | undefined,
  diagnostics: InputDiagnostics,
): CpuState[] {
  if (!section) return [];
  const cpus: CpuState[] = [];
  for (let index = 0; index < Math.min(MAX_CPUS, section.size / size); index++) {
    const offset = section.offset + index * size;
    const entry = readUpTo(source, offset, size);
    const state = entry.length === size ? parse(entry) : undefined;
    if (entry.length < size) {
      diagnostics.add('loss', 'cpu-state-truncated', `CPU ${index}: the file ends before its state does`);
    }
    cpus.push({
      index,
      registers: state?.registers,
      crashed: undefined,
      origin: `.xen_prstatus entry at file offset ${hex(offset)}`,
    });
  }
  return cpus;
}
