/** ELF64 core files, as QEMU's dump-guest-memory and libvirt's `virsh dump --memory-only` write them. */

import { type Fail as FailOf, failIn } from '../core/errors.ts';
import { firstIndex } from '../core/sorted.ts';
import { bytes, hex, MIB, PAGE_SIZE, PHYSICAL_ADDRESS_LIMIT, pa } from '../core/units.ts';
import {
  ELF_MACHINES,
  ELF_MAGIC,
  ELFCLASS32,
  ELFCLASS64,
  ELFDATA2LSB,
  ELFDATA2MSB,
  Elf64Header,
  Elf64ProgramHeader,
  Elf64SectionHeader,
  ET_CORE,
  NT_PRPSINFO,
  PN_XNUM,
  PROCESS_NOTES,
  Prpsinfo,
  PT_LOAD,
  PT_NOTE,
} from '../formats/elf.ts';
import { convertedMachines, machinesOf, marksOf } from '../machines/index.ts';
import type { MemoryImage } from '../memory/image.ts';
import { InputDiagnostics } from '../memory/input-diagnostics.ts';
import { append, endOf, type FileRun, firstWins } from '../memory/runs.ts';
import { type ByteSource, readUpTo } from '../source/source.ts';
import { imageOf } from './machine-images.ts';
import { interpretNotes, MAX_NOTE_BYTES, MAX_NOTES, type RawNote, splitNotes } from './notes.ts';
import { closing, type Reader } from './reader.ts';

/** 56 MiB of program headers; QEMU was seen to write 71,684 (paging mode). */
const MAX_PROGRAM_HEADERS = 1 << 20;

/** QEMU writes two section headers between the ELF header and the program headers. */
const QEMU_PHOFF = 0xc0;

/** A program header that has bytes in the file. */
interface Segment {
  /** PT_LOAD or PT_NOTE. */
  type: number;
  index: number;
  physical: number;
  fileOffset: number;
  fileSize: number;
  memorySize: number;
}

/** The reader of ELF core files. */
export const elfCore: Reader = {
  format: 'elf-core',
  headersFirst: true,
  probe: (head) => head.subarray(0, 4).equals(ELF_MAGIC),
  estimate(head) {
    if (head.length < Elf64Header.size) return undefined;
    const { e_phoff, e_phnum, e_phentsize } = Elf64Header.read(head);
    const end = Number(e_phoff) + e_phnum * Elf64ProgramHeader.size;
    if (e_phnum === PN_XNUM || e_phentsize !== Elf64ProgramHeader.size || end > head.length) return undefined;
    let [file, memory] = [end, 0];
    for (let at = Number(e_phoff); at < end; at += Elf64ProgramHeader.size) {
      const { p_type, p_offset, p_filesz } = Elf64ProgramHeader.read(head, at);
      if (p_type !== PT_LOAD || p_filesz === 0n) continue;
      file = Math.max(file, Number(p_offset + p_filesz));
      memory += Number(p_filesz);
    }
    return { file, memory };
  },
  open: (source) => closing(source, () => open(source)),
};

function open(source: ByteSource): MemoryImage {
  const diagnostics = new InputDiagnostics();
  const fail = failIn(source.name);

  const header = readHeader(source, fail);
  const count = programHeaderCount(source, header, fail);
  const segments: Segment[] = [];
  const noteSegments: Segment[] = [];
  for (const segment of programHeaders(source, header.phoff, count, fail)) {
    (segment.type === PT_LOAD ? segments : noteSegments).push(segment);
  }

  const notes: RawNote[] = [];
  let budget = MAX_NOTE_BYTES;
  for (const { index, fileOffset, fileSize } of noteSegments) {
    if (fileOffset + fileSize > source.size) {
      diagnostics.addCutOff(
        'notes',
        `the notes (program header ${index}) should end at file offset ${hex(fileOffset + fileSize)}, but the file ends at ${hex(source.size)}`,
        { offset: hex(source.size) },
      );
    }
    const length = Math.min(fileSize, budget);
    budget -= length;
    if (fileSize > length) {
      diagnostics.add(
        'loss',
        'notes-too-large',
        `program header ${index} has ${bytes(fileSize)} of notes; only the first ${bytes(MAX_NOTE_BYTES)} of all notes were read`,
      );
    }
    for (const note of splitNotes(readUpTo(source, fileOffset, length), fileOffset, diagnostics)) {
      if (notes.length === MAX_NOTES) {
        diagnostics.add('loss', 'notes-too-many', `only the first ${MAX_NOTES} notes were read`);
        break;
      }
      notes.push(note);
    }
  }
  const process = processOf(notes);
  if (process) throw processCore(process, segments, fail);
  const runs = toRuns(segments, source, qemuMemoryArea(source, header, noteSegments), diagnostics);
  if (runs.length === 0) {
    throw fail('corrupt', {
      code: 'elf-no-memory',
      message:
        segments.length === 0
          ? 'the core file lists no memory (no PT_LOAD)'
          : 'none of the memory that the headers list is in the file',
      hint: 'the dump was cut off, or never finished: make a new one',
    });
  }
  return imageOf(header.machines, diagnostics, (machine, own, alternatives) => ({
    file: source.name,
    format: 'elf-core',
    machine,
    contents: { kind: 'stored', runs, source },
    ...interpretNotes(notes, machine, own),
    diagnostics: own,
    missing: own.missing,
    alternatives,
  }));
}

/** The process whose core file this is; undefined for a guest's, which has none of these notes. */
function processOf(notes: readonly RawNote[]): { name: string | undefined } | undefined {
  const own = notes.filter(({ name, type }) => name === 'CORE' && PROCESS_NOTES.has(type));
  if (own.length === 0) return undefined;
  const info = own.find(({ type, desc }) => type === NT_PRPSINFO && desc.length === Prpsinfo.size);
  if (!info) return { name: undefined };
  const { pr_fname, pr_psargs } = Prpsinfo.read(info.desc);
  const text = (bytes: Buffer) => bytes.toString('latin1').replace(/\0.*$/s, '');
  // pr_fname has 15 characters of it.
  const program = text(pr_psargs).split(' ')[0]!.split('/').at(-1)!;
  return { name: program.startsWith(text(pr_fname)) ? program : text(pr_fname) };
}

function processCore({ name }: { name: string | undefined }, segments: readonly Segment[], fail: Fail) {
  const largest = segments.reduce<Segment | undefined>((a, b) => (a && a.fileSize >= b.fileSize ? a : b), undefined);
  const isQemu = name !== undefined && QEMU_PROGRAM.test(name);
  const inside =
    isQemu && largest
      ? `; if that is no longer possible: the largest mapping, ${bytes(largest.fileSize)} at file offset ${hex(largest.fileOffset)}, may be the guest's RAM: \`tail -c +${largest.fileOffset + 1} FILE | head -c ${largest.fileSize} > ram\`, then \`elf2dmp --format raw ram OUTPUT\``
      : '';
  return fail('unsupported', {
    code: 'process-core',
    message: `a core file of a process${name ? ` (${name})` : ''}, not of a guest`,
    structure: 'Elf64_Nhdr',
    hint: `while the guest runs: \`virsh dump --memory-only DOMAIN FILE\`, or \`dump-guest-memory FILE\` in QEMU's monitor${inside}`,
  });
}

/** As distributions call QEMU's program for x86 guests. */
const QEMU_PROGRAM = /^(qemu-(system|kvm)|kvm$)/;

/**
 * Where QEMU put memory: from the end of the notes to the section data at the very end. undefined for
 * other writers, whose files may have anything between.
 */
function qemuMemoryArea(source: ByteSource, header: ReturnType<typeof readHeader>, notes: readonly Segment[]) {
  const [note] = notes;
  if (header.e_shnum < 2 || header.phoff !== QEMU_PHOFF || notes.length !== 1 || !note) return undefined;
  const section = readUpTo(source, Number(header.e_shoff) + Elf64SectionHeader.size, Elf64SectionHeader.size);
  if (section.length < Elf64SectionHeader.size) return undefined;
  const end = Number(Elf64SectionHeader.read(section).sh_offset);
  const start = note.fileOffset + note.fileSize;
  return end > start ? { start, end: Math.min(end, source.size) } : undefined;
}

type Fail = FailOf<'unsupported' | 'corrupt'>;

const elfMachineName = (machine: number): string => ELF_MACHINES[machine] ?? `machine ${machine}`;

function readHeader(source: ByteSource, fail: Fail) {
  const head = readUpTo(source, 0, Elf64Header.size);
  if (head.length < 20) {
    throw fail('corrupt', {
      code: 'elf-truncated-header',
      message: 'the file ends within its ELF header',
      structure: 'Elf64_Ehdr',
      offset: head.length,
      expected: `${Elf64Header.size} bytes`,
      actual: `${head.length}`,
      hint: 'the dump was cut off at once: make a new one',
    });
  }
  const [elfClass, data] = [head.readUInt8(4), head.readUInt8(5)];
  if (data === ELFDATA2MSB) {
    throw fail('unsupported', {
      code: 'elf-big-endian',
      message: 'a core file of a big-endian machine, which Windows does not run on',
      structure: 'Elf64_Ehdr',
      field: 'e_ident[EI_DATA]',
      offset: 5,
      expected: '1 (little-endian)',
      actual: '2',
    });
  }
  const elfMachine = head.readUInt16LE(0x12);
  const machineName = elfMachineName(elfMachine);
  if (elfClass === ELFCLASS32) {
    throw fail('unsupported', {
      code: 'elf-32-bit',
      message: `a 32-bit core file (${machineName}): only ${convertedMachines()} guests are converted`,
      structure: 'Elf32_Ehdr',
      field: 'e_ident[EI_CLASS]',
      offset: 4,
      expected: '2 (64-bit)',
      actual: '1',
    });
  }
  if (elfClass !== ELFCLASS64 || data !== ELFDATA2LSB || head.length < Elf64Header.size) {
    throw fail('corrupt', {
      code: 'elf-bad-header',
      message: 'not a whole ELF header',
      structure: 'Elf64_Ehdr',
      field: 'e_ident',
      offset: 4,
      expected: 'class 2, data 1',
      actual: `class ${elfClass}, data ${data}, ${head.length} bytes`,
    });
  }
  const header = Elf64Header.read(head);
  if (header.e_type !== ET_CORE) {
    throw fail('unsupported', {
      code: 'elf-not-core',
      message: 'an ELF file, but not a memory dump',
      structure: 'Elf64_Ehdr',
      field: 'e_type',
      offset: Elf64Header.offsetOf('e_type'),
      expected: `${ET_CORE} (core)`,
      actual: `${header.e_type}`,
      hint: "make one with `virsh dump --memory-only DOMAIN FILE` or QEMU's `dump-guest-memory FILE`",
    });
  }
  const machines = machinesOf({ elfMachine });
  if (machines.length === 0) {
    throw fail('unsupported', {
      code: 'elf-machine',
      message: `a core file of another machine (${machineName}): only ${convertedMachines()} guests are converted`,
      structure: 'Elf64_Ehdr',
      field: 'e_machine',
      offset: Elf64Header.offsetOf('e_machine'),
      expected: marksOf(({ elfMachine: own }) => `${own} (${elfMachineName(own)})`),
      actual: `${elfMachine} (${machineName})`,
    });
  }
  return { ...header, machines, phoff: Number(header.e_phoff) };
}

function programHeaderCount(source: ByteSource, header: ReturnType<typeof readHeader>, fail: Fail): number {
  if (header.e_phentsize !== Elf64ProgramHeader.size) {
    throw fail('corrupt', {
      code: 'elf-phentsize',
      message: 'the ELF header gives an impossible program header size',
      structure: 'Elf64_Ehdr',
      field: 'e_phentsize',
      offset: Elf64Header.offsetOf('e_phentsize'),
      expected: `${Elf64ProgramHeader.size}`,
      actual: `${header.e_phentsize}`,
    });
  }
  let count = header.e_phnum;
  let where = { structure: 'Elf64_Ehdr', field: 'e_phnum', offset: Elf64Header.offsetOf('e_phnum') };
  if (count === PN_XNUM) {
    const shoff = Number(header.e_shoff);
    const section = readUpTo(source, shoff, Elf64SectionHeader.size);
    where = { structure: 'Elf64_Shdr[0]', field: 'sh_info', offset: shoff + Elf64SectionHeader.offsetOf('sh_info') };
    if (section.length < Elf64SectionHeader.size) {
      throw fail('corrupt', {
        code: 'elf-section-missing',
        message: 'section 0, which holds the number of program headers, is not in the file',
        ...where,
        expected: `${hex(shoff + Elf64SectionHeader.size)} bytes`,
        actual: `a file of ${hex(source.size)}`,
      });
    }
    count = Elf64SectionHeader.read(section).sh_info;
  }
  if (count === 0 || count > MAX_PROGRAM_HEADERS) {
    throw fail('corrupt', {
      code: 'elf-phnum',
      message:
        count === 0
          ? 'the core file has no program headers, so no memory'
          : 'the ELF header gives an impossible number of program headers',
      ...where,
      expected: `1 to ${MAX_PROGRAM_HEADERS}`,
      actual: `${count}`,
    });
  }
  if (header.phoff + count * Elf64ProgramHeader.size > source.size) {
    throw fail('corrupt', {
      code: 'elf-truncated-phdrs',
      message: 'the file ends before its program headers do',
      structure: `Elf64_Phdr[${count}]`,
      offset: header.phoff,
      expected: `${hex(header.phoff + count * Elf64ProgramHeader.size)} bytes`,
      actual: `a file of ${hex(source.size)}`,
      hint: 'the dump was cut off before any memory was written: make a new one',
    });
  }
  return count;
}

/** The program headers of memory and of notes that have bytes in the file. */
function* programHeaders(source: ByteSource, phoff: number, count: number, fail: Fail): Generator<Segment> {
  const perRead = Math.floor(MIB / Elf64ProgramHeader.size);
  for (let first = 0; first < count; first += perRead) {
    const many = Math.min(perRead, count - first);
    const chunk = readUpTo(source, phoff + first * Elf64ProgramHeader.size, many * Elf64ProgramHeader.size);
    for (let i = 0; i < many; i++) {
      const at = i * Elf64ProgramHeader.size;
      const type = Elf64ProgramHeader.fields.p_type.read(chunk, at);
      if (type !== PT_LOAD && type !== PT_NOTE) continue;
      const p = Elf64ProgramHeader.read(chunk, at);
      const index = first + i;
      // QEMU gives a mapping of an address outside RAM the offset -1 and no bytes.
      if (p.p_filesz === 0n) continue;
      for (const field of ['p_offset', 'p_paddr', 'p_filesz'] as const) {
        if (p[field] > BigInt(Number.MAX_SAFE_INTEGER)) {
          throw fail('corrupt', {
            code: 'elf-phdr-range',
            message: 'a program header is damaged: one of its values is impossibly large',
            structure: `Elf64_Phdr[${index}]`,
            field,
            offset: phoff + index * Elf64ProgramHeader.size + Elf64ProgramHeader.offsetOf(field),
            expected: `at most ${hex(Number.MAX_SAFE_INTEGER)}`,
            actual: hex(p[field]),
          });
        }
      }
      const fileSize = Number(p.p_filesz);
      yield {
        type,
        index,
        physical: Number(p.p_paddr),
        fileOffset: Number(p.p_offset),
        fileSize,
        // More in memory than in the file: the rest is absent, not zero.
        memorySize: p.p_memsz > BigInt(Number.MAX_SAFE_INTEGER) ? fileSize : Number(p.p_memsz),
      };
    }
  }
}

/** Disjoint, sorted runs of what the file holds. */
function toRuns(
  segments: readonly Segment[],
  source: ByteSource,
  memory: { start: number; end: number } | undefined,
  diagnostics: InputDiagnostics,
): FileRun[] {
  let cut = 0;
  let absent = 0;
  let beyond = 0;
  const usable: Segment[] = [];
  for (const segment of segments) {
    let { physical, fileOffset, fileSize } = segment;
    absent += Math.max(0, segment.memorySize - fileSize);
    const available = Math.max(0, Math.min(fileSize, source.size - fileOffset));
    cut += fileSize - available;
    fileSize = available;
    const limit = Math.max(0, PHYSICAL_ADDRESS_LIMIT - physical);
    if (fileSize > limit) {
      beyond += fileSize - limit;
      fileSize = limit;
    }
    if (fileSize > 0) usable.push({ ...segment, physical, fileOffset, fileSize });
  }
  if (cut > 0) {
    diagnostics.addCutOff(
      'memory',
      `the file ends at offset ${hex(source.size)}, ${bytes(cut)} short of what its program headers list: those pages are missing`,
      { offset: hex(source.size), missingBytes: hex(cut) },
    );
  }
  if (absent > 0) {
    diagnostics.addNeverStored(
      `${bytes(absent)} of guest memory are listed by the headers but not stored in the file (p_filesz < p_memsz)`,
      {
        missingBytes: hex(absent),
      },
    );
  }
  if (beyond > 0) {
    diagnostics.add(
      'loss',
      'address-beyond-52-bits',
      `${bytes(beyond)} lie at physical addresses beyond 52 bits and were left out`,
      {
        missingBytes: hex(beyond),
      },
    );
  }
  const runs = resolveOverlaps(usable, diagnostics);
  return memory ? recoverUnlisted(runs, memory, diagnostics) : runs;
}

/** A header that begins lower wins where two overlap, and of two that begin together the earlier in the table. */
function resolveOverlaps(segments: Segment[], diagnostics: InputDiagnostics): FileRun[] {
  segments.sort((a, b) => a.physical - b.physical || a.index - b.index);
  let conflicts = 0;
  let firstConflict = 0;
  const claims = segments.map(({ index, physical, fileSize, fileOffset }) => ({
    index,
    start: pa(physical),
    size: fileSize,
    fileOffset,
  }));
  const runs = firstWins(claims, (kept, claim) => {
    // The same bytes of the file under two headers, as in paging-mode dumps, do not conflict.
    if (kept.fileOffset - kept.start === claim.fileOffset - claim.start) return;
    if (conflicts++ === 0) firstConflict = claim.index;
  });
  if (conflicts > 0) {
    diagnostics.add(
      'warning',
      'elf-overlap',
      `${conflicts} program headers (the first is number ${firstConflict}) claim memory that another one stores elsewhere in the file; the one that begins lower was used`,
    );
  }
  return runs;
}

/**
 * A paging-mode dump (`dump-guest-memory -p`) stores all RAM but lists only what some CPU maps. Within
 * one RAM block the file offset minus the address is constant, so bytes between two headers with equal
 * difference, and from the start of memory to a first header that fits address 0, are RAM after all.
 */
function recoverUnlisted(
  runs: readonly FileRun[],
  memory: { start: number; end: number },
  diagnostics: InputDiagnostics,
): FileRun[] {
  const inFile = [...runs].sort((a, b) => a.fileOffset - b.fileOffset);
  const gaps: { from: number; to: number }[] = [];
  let next = memory.start;
  for (const run of inFile) {
    if (run.fileOffset > next) gaps.push({ from: next, to: run.fileOffset });
    next = Math.max(next, run.fileOffset + run.size);
  }
  if (memory.end > next) gaps.push({ from: next, to: memory.end });
  if (gaps.length === 0) return [...runs];

  const isGap = (from: number, to: number): boolean => {
    const gap = gaps[firstIndex(gaps.length, (i) => gaps[i]!.to >= to)];
    return gap !== undefined && gap.from <= from && to <= gap.to;
  };
  const result: FileRun[] = [];
  let recovered = 0;
  // The first RAM block is at address 0.
  let end = 0;
  let delta = memory.start;
  for (const run of runs) {
    if (run.start > end && run.fileOffset - run.start === delta && isGap(end + delta, run.fileOffset)) {
      append(result, { start: pa(end), size: run.start - end, fileOffset: end + delta });
      recovered += run.start - end;
    }
    append(result, { ...run });
    end = endOf(run);
    delta = run.fileOffset - run.start;
  }
  if (recovered > 0) {
    diagnostics.add(
      'note',
      'memory-unlisted',
      `${bytes(recovered)} of RAM that no program header lists (a paging-mode dump) were recovered from the file`,
    );
  }
  const unknown = gaps.reduce((total, gap) => total + gap.to - gap.from, 0) - recovered;
  if (unknown >= PAGE_SIZE) {
    diagnostics.add(
      'loss',
      'memory-unaddressed',
      `${bytes(unknown)} in the file belong to no program header, so their address is unknown: they were left out`,
    );
  }
  return result;
}
