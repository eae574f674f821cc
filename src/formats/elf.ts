/**
 * ELF64 core files, as QEMU's dump-guest-memory writes them. Layouts from the System V ABI (gABI
 * chapters 4 and 5); what QEMU fills in differently was checked on files of QEMU 7.2 and 10.0.
 */
import { raw, struct, u16, u32, u64 } from '../core/struct.ts';

/** e_ident[EI_MAG0..3]. */
export const ELF_MAGIC = Buffer.from('\x7fELF', 'latin1');

/** e_ident[EI_CLASS] of a 32-bit file. */
export const ELFCLASS32 = 1;

/** e_ident[EI_CLASS] of a 64-bit file. */
export const ELFCLASS64 = 2;

/** e_ident[EI_DATA] of a little-endian file. */
export const ELFDATA2LSB = 1;

/** e_ident[EI_DATA] of a big-endian file. */
export const ELFDATA2MSB = 2;

/** e_type of a core file. */
export const ET_CORE = 4;

/** p_type of memory. */
export const PT_LOAD = 1;

/** p_type of notes. */
export const PT_NOTE = 4;

/** Of a note "CORE": general registers of a CPU. */
export const NT_PRSTATUS = 1;

/** Of a note "CORE": the process. */
export const NT_PRPSINFO = 3;

/** Types of notes "CORE" that Linux writes for a process and nobody for a guest: NT_PRPSINFO, NT_AUXV, NT_FILE (elf.h). */
export const PROCESS_NOTES: ReadonlySet<number> = new Set([NT_PRPSINFO, 6, 0x46494c45]);

/** elf_prpsinfo of 64-bit Linux (linux/elfcore.h): pr_fname has the first 15 characters of the program's name. */
export const Prpsinfo = struct({
  name: 'elf_prpsinfo',
  size: 136,
  fields: { pr_fname: raw(40, 16), pr_psargs: raw(56, 80) },
});

/** e_phnum when the real count is in section 0's sh_info (gABI, "Extended numbering"). */
export const PN_XNUM = 0xffff;

/** e_machine of 32-bit x86. */
export const EM_386 = 3;

/** e_machine of 64-bit x86. */
export const EM_X86_64 = 62;

/** Names of e_machine values, for messages. */
export const ELF_MACHINES: Record<number, string> = {
  2: 'SPARC',
  3: 'i386',
  8: 'MIPS',
  20: 'PowerPC',
  21: 'PowerPC64',
  22: 's390x',
  40: '32-bit Arm',
  43: 'SPARC64',
  62: 'x86-64',
  183: 'AArch64',
  243: 'RISC-V',
  258: 'LoongArch',
};

/** Elf64_Ehdr (elf.h). */
export const Elf64Header = struct({
  name: 'Elf64_Ehdr',
  size: 64,
  fields: {
    e_ident: raw(0, 16),
    e_type: u16(0x10),
    e_machine: u16(0x12),
    e_version: u32(0x14),
    e_entry: u64(0x18),
    e_phoff: u64(0x20),
    e_shoff: u64(0x28),
    e_flags: u32(0x30),
    /** QEMU writes 8 here (a pointer's size): not to be validated. */
    e_ehsize: u16(0x34),
    e_phentsize: u16(0x36),
    e_phnum: u16(0x38),
    e_shentsize: u16(0x3a),
    e_shnum: u16(0x3c),
    e_shstrndx: u16(0x3e),
  },
});

/** Elf64_Phdr (elf.h). */
export const Elf64ProgramHeader = struct({
  name: 'Elf64_Phdr',
  size: 56,
  fields: {
    p_type: u32(0),
    p_flags: u32(4),
    p_offset: u64(8),
    p_vaddr: u64(0x10),
    p_paddr: u64(0x18),
    p_filesz: u64(0x20),
    p_memsz: u64(0x28),
    p_align: u64(0x30),
  },
});

/** Elf64_Shdr (elf.h); only section 0 is read, for PN_XNUM. */
export const Elf64SectionHeader = struct({
  name: 'Elf64_Shdr',
  size: 64,
  fields: {
    sh_name: u32(0),
    sh_type: u32(4),
    sh_flags: u64(8),
    sh_addr: u64(0x10),
    sh_offset: u64(0x18),
    sh_size: u64(0x20),
    sh_link: u32(0x28),
    /** In section 0: the real number of program headers when e_phnum is PN_XNUM. */
    sh_info: u32(0x2c),
    sh_addralign: u64(0x30),
    sh_entsize: u64(0x38),
  },
});

/** Precedes each note; name and desc follow, each padded to 4 bytes. */
export const ElfNoteHeader = struct({
  name: 'Elf64_Nhdr',
  size: 12,
  fields: { n_namesz: u32(0), n_descsz: u32(4), n_type: u32(8) },
});
