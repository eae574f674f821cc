/** ELF64 core files of x86-64 guests, as QEMU's dump-guest-memory and libvirt's `virsh dump --memory-only` write them. */
import { Diagnostics, Elf2dmpError, type ErrorDetails } from '../core/errors.ts';
import { bytes, hex, MIB, PHYSICAL_ADDRESS_LIMIT, pa } from '../core/units.ts';
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
  PN_XNUM,
  PT_LOAD,
  PT_NOTE,
} from '../formats/elf.ts';
import { X64 } from '../machines/x64/index.ts';
import { MemoryImage, type PhysicalRun, type RunReader } from '../memory/image.ts';
import { type ByteSource, readUpTo } from '../source/source.ts';
import { interpretNotes, MAX_NOTE_BYTES, type RawNote, splitNotes } from './notes.ts';
import type { Reader } from './reader.ts';

/** 56 MiB of program headers; QEMU was seen to write 71,684 (paging mode). */
const MAX_PROGRAM_HEADERS = 1 << 20;

interface Segment {
  index: number;
  physical: number;
  fileOffset: number;
  fileSize: number;
  memorySize: number;
}

export const elfCore: Reader = {
  format: 'elf-core',
  probe: (head) => head.subarray(0, 4).equals(ELF_MAGIC),
  open(source) {
    try {
      return open(source);
    } catch (error) {
      source.close();
      throw error;
    }
  },
};

function open(source: ByteSource): MemoryImage {
  const diagnostics = new Diagnostics();
  const fail = (kind: 'unsupported' | 'corrupt', details: Omit<ErrorDetails, 'kind' | 'file'>) =>
    new Elf2dmpError({ kind, file: source.name, ...details });

  const header = readHeader(source, fail);
  const count = programHeaderCount(source, header, fail);
  const segments: Segment[] = [];
  const noteSegments: Segment[] = [];
  readProgramHeaders(source, header.phoff, count, fail, (segment, type) => {
    if (type === PT_LOAD) segments.push(segment);
    else if (type === PT_NOTE) noteSegments.push(segment);
  });

  const notes: RawNote[] = [];
  for (const { index, fileOffset, fileSize } of noteSegments) {
    if (fileOffset + fileSize > source.size) {
      diagnostics.add(
        'loss',
        'notes-truncated',
        `the notes (program header ${index}) should end at file offset ${hex(fileOffset + fileSize)}, but the file ends at ${hex(source.size)}`,
        { offset: hex(source.size) },
      );
    }
    if (fileSize > MAX_NOTE_BYTES) {
      diagnostics.add(
        'loss',
        'notes-too-large',
        `${bytes(fileSize)} of notes: only the first ${bytes(MAX_NOTE_BYTES)} were read`,
      );
    }
    notes.push(
      ...splitNotes(readUpTo(source, fileOffset, Math.min(fileSize, MAX_NOTE_BYTES)), fileOffset, diagnostics),
    );
  }
  const { cpus, notes: otherNotes } = interpretNotes(notes, X64, diagnostics);
  const runs = toRuns(segments, source, diagnostics);
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
  const reader: RunReader = {
    readSync: (run, offset, target) => source.readSync(run.fileOffset! + offset, target),
    read: (run, offset, target) => source.read(run.fileOffset! + offset, target),
  };
  return new MemoryImage({
    file: source.name,
    format: 'elf-core',
    machine: X64,
    runs,
    cpus,
    notes: otherNotes,
    diagnostics,
    reader,
    close: () => source.close(),
  });
}

type Fail = (kind: 'unsupported' | 'corrupt', details: Omit<ErrorDetails, 'kind' | 'file'>) => Elf2dmpError;

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
  const machine = head.readUInt16LE(0x12);
  const machineName = ELF_MACHINES[machine] ?? `machine ${machine}`;
  if (elfClass === ELFCLASS32) {
    throw fail('unsupported', {
      code: 'elf-32-bit',
      message: `a 32-bit core file (${machineName}): only 64-bit x86 guests are converted`,
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
  if (machine !== X64.elfMachine) {
    throw fail('unsupported', {
      code: 'elf-machine',
      message: `a core file of a ${machineName} machine: only 64-bit x86 guests are converted`,
      structure: 'Elf64_Ehdr',
      field: 'e_machine',
      offset: Elf64Header.offsetOf('e_machine'),
      expected: '62 (x86-64)',
      actual: `${machine} (${machineName})`,
      hint:
        machine === 3
          ? 'QEMU writes i386 when CPU 0 was not in 64-bit mode: a 32-bit guest, or a 64-bit one still in its boot loader'
          : undefined,
    });
  }
  return { ...header, phoff: Number(header.e_phoff) };
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

function readProgramHeaders(
  source: ByteSource,
  phoff: number,
  count: number,
  fail: Fail,
  take: (segment: Segment, type: number) => void,
): void {
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
      take(
        {
          index,
          physical: Number(p.p_paddr),
          fileOffset: Number(p.p_offset),
          fileSize,
          // More in memory than in the file: the rest is absent, not zero.
          memorySize: p.p_memsz > BigInt(Number.MAX_SAFE_INTEGER) ? fileSize : Number(p.p_memsz),
        },
        type,
      );
    }
  }
}

/**
 * Sorts segments into disjoint runs. Where headers overlap, the one that comes first in the file's
 * table wins; that costs nothing when both name the same bytes of the file, as in paging-mode dumps.
 */
function toRuns(segments: readonly Segment[], source: ByteSource, diagnostics: Diagnostics): PhysicalRun[] {
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
    diagnostics.add(
      'loss',
      'input-truncated',
      `the file ends at offset ${hex(source.size)}, ${bytes(cut)} short of what its program headers list: those pages are missing`,
      { offset: hex(source.size), missingBytes: hex(cut) },
    );
  }
  if (absent > 0) {
    diagnostics.add(
      'loss',
      'memory-absent',
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
  return resolveOverlaps(usable, diagnostics);
}

function resolveOverlaps(segments: Segment[], diagnostics: Diagnostics): PhysicalRun[] {
  segments.sort((a, b) => a.physical - b.physical || a.index - b.index);
  const runs: PhysicalRun[] = [];
  let conflicts = 0;
  let firstConflict = 0;
  for (const s of segments) {
    const last = runs.at(-1);
    const end = last ? last.start + last.size : 0;
    const skip = Math.max(0, end - s.physical);
    if (last && skip > 0) {
      const sameBytes = last.fileOffset! - last.start === s.fileOffset - s.physical;
      if (!sameBytes) {
        if (conflicts++ === 0) firstConflict = s.index;
      }
      if (skip >= s.fileSize) continue;
    }
    const start = s.physical + skip;
    const fileOffset = s.fileOffset + skip;
    const size = s.fileSize - skip;
    if (last && end === start && last.fileOffset! + last.size === fileOffset) last.size += size;
    else runs.push({ start: pa(start), size, fileOffset });
  }
  if (conflicts > 0) {
    diagnostics.add(
      'warning',
      'elf-overlap',
      `${conflicts} program headers (the first is number ${firstConflict}) claim memory that another one stores elsewhere in the file; the one with the lower address was used`,
    );
  }
  return runs;
}
