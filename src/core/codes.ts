/**
 * Every code of an error, a diagnostic and a finding: what it means and what to do about it. A code that
 * is not here does not compile, and neither does one with another kind. `docs/errors.md` is made from
 * these tables (`scripts/make-docs.ts`).
 */

/** What kind of failure: each kind has its own exit code, see `EXIT_CODES`. */
export type ErrorKind =
  /** Wrong arguments or options. */
  | 'usage'
  /** The input is sound, but not something that we convert (other format, other machine, not Windows). */
  | 'unsupported'
  /** The input is damaged or cut off beyond use. */
  | 'corrupt'
  /** I/O that fails again when tried again: missing, denied, exists already. */
  | 'io-permanent'
  /** I/O that may work later or elsewhere: disk full, EIO. */
  | 'io-transient'
  /** Losses, and the caller asked for none (`strict`). */
  | 'losses'
  /** The work was interrupted by the caller's signal. */
  | 'aborted';

/**
 * How bad a diagnostic is: `note` changes nothing, `warning` deserves a look but nothing is missing
 * from the output, `loss` means that the output lacks or does not assert something that it should.
 */
export type Severity = 'note' | 'warning' | 'loss';

interface Explained {
  /** One sentence: what happened. */
  means: string;
  /** What a user does about it; undefined where there is nothing to do. */
  todo?: string;
}

interface ErrorEntry extends Explained {
  /** Several where circumstances decide. */
  kind: ErrorKind | readonly ErrorKind[];
}

interface DiagnosticEntry extends Explained {
  severity: Severity | readonly Severity[];
}

interface FindingEntry extends Explained {
  severity: FindingSeverity | readonly FindingSeverity[];
}

/** `error`: the dump is not as it should be. `warning`: worth a look, but not a fault of the dump. */
export type FindingSeverity = 'error' | 'warning';

const DUMP_AGAIN = 'Make a new dump.';
const CUT_OFF = 'The dump was cut off or never finished: make a new one.';
const OTHER_MACHINE = 'elf2dmp converts dumps of 64-bit and 32-bit x86 and of 64-bit Arm guests only.';
const MEMORY_DAMAGED = 'The rest of the dump is usable. If you can, make a new dump.';
const TWICE = 'It is compressed twice: decompress it once by hand.';
const PIPE = 'Decompress it into elf2dmp: `PROGRAM -dc FILE | elf2dmp - OUTPUT`.';
const OWN_FILE = 'Name an OUTPUT: the dump then is a separate file.';

/** Errors: the command ends with the exit code of their kind, and writes no dump. */
export const ERRORS = {
  // Arguments
  usage: { kind: 'usage', means: 'The arguments or options are wrong.', todo: 'See `elf2dmp --help`.' },
  'option-unknown': {
    kind: 'usage',
    means: 'The command, or the function of the library, has no such option.',
    todo: 'See the hint, or docs/options.md.',
  },
  'argument-not-utf8': {
    kind: 'usage',
    means: 'A name on the command line has bytes that are not UTF-8.',
    todo: 'Rename the file.',
  },
  'option-value': {
    kind: 'usage',
    means: "An option's value is not of its type, or not one of its choices.",
    todo: 'The message says what it expects.',
  },
  'option-missing': { kind: 'usage', means: 'An option is missing that others need.', todo: 'Give it.' },
  'option-conflict': { kind: 'usage', means: 'Two options exclude each other.', todo: 'Leave out one of them.' },
  'stdin-is-terminal': {
    kind: 'usage',
    means: 'The input is `-`, but standard input is a terminal.',
    todo: 'Pipe a dump into it.',
  },
  'output-is-input': { kind: 'usage', means: 'The output is the input.', todo: 'Name another output.' },
  'output-twice': {
    kind: 'usage',
    means: 'Two outputs are one file, by name or through links.',
    todo: 'Name another file for one of them.',
  },
  'output-is-journal': {
    kind: 'usage',
    means: 'An output has the name of an undo journal (`.elf2dmp-undo`).',
    todo: 'Name another file.',
  },
  'runs-of-no-raw-memory': {
    kind: 'usage',
    means: '`--runs` was given for a dump whose header says where its memory is.',
    todo: 'Leave out `--runs`.',
  },
  'raw-runs': {
    kind: 'usage',
    means: 'The ranges of `--runs` overlap or do not add up to the size of the file.',
    todo: 'Give disjoint ranges that cover the file.',
  },
  'no-such-processor': {
    kind: 'usage',
    means: 'The guest has no processor of that number.',
    todo: 'The message lists its processors.',
  },
  'zstd-unavailable': {
    kind: 'usage',
    means: 'This Node.js cannot compress with zstd.',
    todo: 'Use `--compress=gzip`, or Node.js 22.15 or later.',
  },
  'batch-config': { kind: 'usage', means: "The batch's configuration file is wrong.", todo: 'Mend what it names.' },
  'batch-no-input': {
    kind: 'usage',
    means: 'A pattern for inputs matches nothing.',
    todo: 'Globs count from the directory in which they are given.',
  },
  'batch-glob': {
    kind: 'usage',
    means: 'A pattern for inputs is not a glob that elf2dmp knows.',
    todo: 'See the hint.',
  },
  'batch-template': {
    kind: 'usage',
    means: 'The template for output names does not give a file below the output directory.',
    todo: 'Use `{stem}`, `{name}`, `{dir}` and `{relative}`.',
  },
  'batch-two-for-one': {
    kind: 'usage',
    means: 'Two files of the batch would get the same name.',
    todo: 'Put more of the input into the template, as in `--name "{dir}/{name}.dmp"`.',
  },

  // Files that are not memory dumps, or none that is read
  'input-empty': { kind: 'corrupt', means: 'The file is empty.', todo: DUMP_AGAIN },
  'input-unknown': {
    kind: 'unsupported',
    means: 'The file is not a memory dump that elf2dmp knows.',
    todo: 'Make a dump with `virsh dump --memory-only`. For raw memory, give `--format raw`.',
  },
  'migration-stream-damaged': {
    kind: 'corrupt',
    means: 'A QEMU migration stream without memory that could be used.',
    todo: 'The message says where it stops making sense. Save the guest again.',
  },
  'migration-machine': {
    kind: 'unsupported',
    means: 'The migration stream is of a machine whose guests elf2dmp does not convert.',
    todo: OTHER_MACHINE,
  },
  'migration-ram-elsewhere': {
    kind: 'unsupported',
    means: "A migration stream without the guest's memory, which is in a file of its own (x-ignore-shared).",
    todo: 'Name that file with `--ram-file`; of several, convert them as raw memory.',
  },
  'ram-file-size': {
    kind: 'usage',
    means: 'The file of `--ram-file` has another size than the RAM block whose pages it should hold.',
    todo: "Name the file that backs the guest's memory.",
  },
  'ram-file-unneeded': {
    kind: 'usage',
    means: '`--ram-file` was given with an input that holds its memory itself.',
    todo: 'Leave out `--ram-file`.',
  },
  'libvirt-save-unfinished': {
    kind: 'unsupported',
    means: 'A libvirt save file that libvirt did not finish.',
    todo: 'Save the guest again.',
  },
  'already-dmp': {
    kind: 'unsupported',
    means: 'The file is a 64-bit Windows crash dump already, and is not asked for here (`--in-place`, `openGuest`).',
    todo: 'Open it in WinDbg, or name an OUTPUT for another type of dump.',
  },
  'already-dmp-32': {
    kind: 'unsupported',
    means: 'The file is a 32-bit Windows crash dump already.',
    todo: 'Open it in WinDbg.',
  },
  'in-place-begun': {
    kind: 'unsupported',
    means: 'An interrupted conversion in place left this file half converted.',
    todo: '`elf2dmp --undo FILE` restores the ELF file, `--in-place FILE` finishes the dump.',
  },
  minidump: { kind: 'unsupported', means: 'A user-mode minidump of one process.', todo: 'Open it in WinDbg.' },
  qcow2: {
    kind: 'unsupported',
    means: "A qcow2 disk image without a snapshot that has a VM's memory.",
    todo: "Dump the running guest's memory.",
  },
  'qcow2-damaged': { kind: 'corrupt', means: 'A qcow2 image whose tables can not be right.' },
  'qcow2-unreadable': {
    kind: 'unsupported',
    means: 'A qcow2 image that is encrypted or has its data elsewhere.',
    todo: 'Start the VM from the snapshot and dump its memory.',
  },
  'snapshot-needed': {
    kind: 'usage',
    means: "A qcow2 image with several snapshots that have a VM's memory.",
    todo: 'Say which with `--snapshot`; the message lists them.',
  },
  'snapshot-unknown': {
    kind: 'usage',
    means: 'No snapshot with VM state has the name that was given.',
    todo: 'The message lists those that there are.',
  },
  'snapshot-of-no-image': {
    kind: 'usage',
    means: '`--snapshot` was given with an input that is no qcow2 image.',
    todo: 'Leave out `--snapshot`.',
  },
  'disk-image': { kind: 'unsupported', means: 'A disk image.', todo: "Dump the running guest's memory." },
  'vmware-state': {
    kind: 'unsupported',
    means: "VMware's state of a VM, without its memory.",
    todo: 'Give the `.vmem` file beside it, or use `vmss2core -W8`.',
  },
  'vmware-state-with-memory': {
    kind: 'unsupported',
    means: "VMware's state of a VM, with its memory inside.",
    todo: '`vmss2core -W8 FILE` makes a crash dump of it.',
  },
  'virtualbox-state': {
    kind: 'unsupported',
    means: "VirtualBox's saved state of a VM.",
    todo: 'Start the VM, then use `VBoxManage debugvm VM dumpvmcore`.',
  },
  'proxmox-backup': {
    kind: 'unsupported',
    means: 'A Proxmox VE backup, without memory.',
    todo: 'Dump the running guest: `qm monitor ID`, then `dump-guest-memory FILE`.',
  },
  'process-core': {
    kind: 'unsupported',
    means: 'A core file of a process, also of QEMU itself, not of a guest.',
    todo: "Dump the running guest. For a core of QEMU, the message says where the guest's RAM may be.",
  },
  ewf: {
    kind: 'unsupported',
    means: 'An EWF (EnCase) image.',
    todo: '`ewfexport -t memory -f raw FILE`, then convert the raw memory.',
  },
  avml: { kind: 'unsupported', means: 'An AVML dump of a Linux system.', todo: 'Use Volatility.' },
  hpak: {
    kind: 'unsupported',
    means: "An HPAK archive of HBGary's FDPro.",
    todo: "Extract the memory with Volatility 2's `hpakextract`.",
  },
  'mach-o': {
    kind: 'unsupported',
    means: 'A Mach-O file, such as a core file of macOS.',
    todo: 'Dump the guest with its hypervisor.',
  },
  aff4: {
    kind: 'unsupported',
    means: 'An AFF4 volume, as winpmem writes it.',
    todo: 'Extract its stream PhysicalMemory, and give that with `--format raw`.',
  },
  'hyper-v-state': {
    kind: 'unsupported',
    means: 'A Hyper-V saved state or configuration.',
    todo: "Use WinDbg's `.opendump` or LiveKd on the Hyper-V host.",
  },
  lime: { kind: 'unsupported', means: 'A LiME dump of a Linux system.', todo: 'Use Volatility or drgn.' },
  'hibernation-file': {
    kind: 'unsupported',
    means: 'A Windows hibernation file.',
    todo: 'Use MemProcFS or Volatility.',
  },
  'xen-save': {
    kind: 'unsupported',
    means: 'A saved Xen domain.',
    todo: 'Restore it with `xl restore`, then use `xl dump-core`.',
  },
  'compressed-gzip': { kind: 'unsupported', means: 'A gzip file inside a compressed file.', todo: TWICE },
  'compressed-zstd': { kind: 'unsupported', means: 'A zstd file inside a compressed file.', todo: TWICE },
  'compressed-xz': { kind: 'unsupported', means: 'An xz file inside a compressed file.', todo: TWICE },
  'compressed-lz4': { kind: 'unsupported', means: 'An lz4 file.', todo: PIPE },
  'compressed-bzip2': { kind: 'unsupported', means: 'A bzip2 file inside a compressed file.', todo: TWICE },
  'compressed-7z': { kind: 'unsupported', means: 'A 7-Zip archive.', todo: '`7z x -so FILE | elf2dmp - OUTPUT`.' },
  'compressed-zip': { kind: 'unsupported', means: 'A zip archive.', todo: '`unzip -p FILE | elf2dmp - OUTPUT`.' },
  'compressed-lzop': { kind: 'unsupported', means: 'An lzop file inside a compressed file.', todo: TWICE },
  tar: { kind: 'unsupported', means: 'A tar archive.', todo: '`tar -xOf FILE NAME | elf2dmp - OUTPUT`.' },
  'zstd-window': {
    kind: 'unsupported',
    means: 'Decompressing the zstd file takes more memory than `--zstd-window` allows, or than this Node.js can give.',
    todo: 'Raise `--zstd-window`, or decompress it into elf2dmp: `zstd -dc --long=31 FILE | elf2dmp - OUTPUT`.',
  },
  'container-truncated': {
    kind: 'corrupt',
    means: 'The compressed file is cut off, and nothing usable comes out of it.',
    todo: 'Look for another copy of it.',
  },
  'container-damaged': {
    kind: 'corrupt',
    means: 'The compressed file is damaged, and nothing usable comes out of it.',
    todo: 'Look for another copy of it.',
  },

  // ELF core files
  'elf-truncated-header': { kind: 'corrupt', means: 'The file ends within its ELF header.', todo: CUT_OFF },
  'elf-big-endian': { kind: 'unsupported', means: 'A core file of a big-endian machine.', todo: OTHER_MACHINE },
  'elf-32-bit': { kind: 'unsupported', means: 'A 32-bit core file.', todo: OTHER_MACHINE },
  'elf-bad-header': { kind: 'corrupt', means: 'The ELF header is damaged.', todo: DUMP_AGAIN },
  'elf-not-core': {
    kind: 'unsupported',
    means: 'An ELF file, but not a core file.',
    todo: 'Make a dump with `virsh dump --memory-only`.',
  },
  'elf-machine': { kind: 'unsupported', means: 'A core file of another machine.', todo: OTHER_MACHINE },
  'elf-phentsize': { kind: 'corrupt', means: 'The size of program headers is impossible.', todo: DUMP_AGAIN },
  'elf-section-missing': {
    kind: 'corrupt',
    means: 'The section with the number of program headers is not in the file.',
    todo: CUT_OFF,
  },
  'elf-phnum': { kind: 'corrupt', means: 'The number of program headers is impossible.', todo: DUMP_AGAIN },
  'elf-truncated-phdrs': { kind: 'corrupt', means: 'The file ends within its program headers.', todo: CUT_OFF },
  'elf-phdr-range': { kind: 'corrupt', means: 'A value in a program header is impossible.', todo: DUMP_AGAIN },
  'elf-no-memory': {
    kind: ['corrupt', 'unsupported'],
    means: 'The core file lists no memory, or holds none of what it lists.',
    todo: CUT_OFF,
  },
  'xen-paravirtual': {
    kind: 'unsupported',
    means: 'A core file of a paravirtualised Xen guest, which cannot be Windows.',
  },
  'xen-pfn': { kind: 'corrupt', means: 'The list of page numbers in a Xen core file is damaged.', todo: DUMP_AGAIN },

  // kdump-compressed files
  'kdump-truncated-header': { kind: 'corrupt', means: 'The file ends within its headers.', todo: CUT_OFF },
  'kdump-signature': {
    kind: 'corrupt',
    means: 'A flattened file that does not contain a kdump-compressed dump.',
    todo: DUMP_AGAIN,
  },
  'kdump-big-endian': { kind: 'unsupported', means: 'A dump of a big-endian machine.', todo: OTHER_MACHINE },
  'kdump-version': { kind: 'unsupported', means: 'An unknown version of the kdump-compressed format.' },
  'kdump-32-bit': { kind: 'unsupported', means: 'A dump of a 32-bit machine.', todo: OTHER_MACHINE },
  'kdump-block-size': { kind: 'corrupt', means: 'The block size in the header is impossible.', todo: DUMP_AGAIN },
  'kdump-split': {
    kind: 'unsupported',
    means: 'One part of a dump that was split into several files.',
    todo: '`makedumpfile --reassemble PART... OUT`',
  },
  'kdump-machine': { kind: 'unsupported', means: 'A dump of another machine.', todo: OTHER_MACHINE },
  'kdump-bitmap-size': {
    kind: 'corrupt',
    means: "The size of the page bitmap does not fit the header's number of pages.",
    todo: DUMP_AGAIN,
  },
  'kdump-truncated-bitmap': { kind: 'corrupt', means: 'The page bitmap is not in the file.', todo: CUT_OFF },
  'kdump-fragmented': { kind: 'unsupported', means: 'The memory is in more pieces than elf2dmp keeps track of.' },
  'kdump-compression': {
    kind: 'unsupported',
    means: 'All pages are compressed by a method that elf2dmp does not know.',
    todo: 'Dump with zlib, LZO, snappy or no compression.',
  },
  'kdump-no-memory': { kind: 'corrupt', means: 'No page that the bitmap lists is in the file.', todo: CUT_OFF },
  'kdump-flattened-empty': { kind: 'corrupt', means: 'A flattened file without records.', todo: CUT_OFF },
  'kdump-flattened-truncated-header': {
    kind: 'corrupt',
    means: 'The file ends within the header of the flattened format.',
    todo: CUT_OFF,
  },
  'kdump-flattened-version': { kind: 'unsupported', means: 'An unknown version of the flattened format.' },
  'kdump-flattened-record': {
    kind: 'corrupt',
    means: 'A record of the flattened file is damaged; what follows cannot be found.',
    todo: 'Copy the file again, or make a new dump.',
  },
  'kdump-flattened-records': {
    kind: 'unsupported',
    means: 'The flattened file has more pieces than elf2dmp keeps in memory.',
    todo: '`makedumpfile -R OUT < FILE`',
  },

  // Crash dumps, as inputs of info, stack and verify
  'dmp-truncated-header': { kind: 'corrupt', means: "The file ends within the dump's header.", todo: CUT_OFF },
  'dmp-signature': { kind: 'corrupt', means: 'The file is not a Windows crash dump.' },
  'dmp-machine': {
    kind: ['unsupported', 'corrupt'],
    means: 'A crash dump of another machine, or whose header names none that exists.',
    todo: OTHER_MACHINE,
  },
  'dmp-type': {
    kind: ['unsupported', 'corrupt'],
    means: 'A crash dump that is neither full nor a bitmap dump, or whose header names no kind that exists.',
    todo: 'A triage or summary dump opens in WinDbg as it is.',
  },
  'not-a-crash-dump': {
    kind: 'unsupported',
    means: 'The file to verify is an input for a conversion, not a crash dump.',
    todo: 'Convert it. `elf2dmp info FILE` says what it is.',
  },
  'dmp-runs': { kind: 'corrupt', means: "The list of memory runs in the dump's header is damaged." },
  'dmp-bitmap': { kind: 'corrupt', means: 'What says which pages the dump has (page map, ranges) is damaged.' },
  'dmp-triage': {
    kind: 'corrupt',
    means: 'The parts that a triage dump lists are not in the file, or not complete.',
    todo: CUT_OFF,
  },
  'dmp-no-memory': { kind: 'corrupt', means: 'The dump holds none of the memory that it lists.', todo: CUT_OFF },
  'compressed-dump': {
    kind: 'unsupported',
    means: 'A dump that is compressed as a whole cannot be verified; one that `--compress` wrote can.',
    todo: 'Decompress it first.',
  },
  'patch-file': {
    kind: 'corrupt',
    means: 'The file given with `--patches` is not a list of patches.',
    todo: 'Name a file that a conversion with `--patches` wrote.',
  },

  // Locating Windows
  'windows-not-found': {
    kind: ['unsupported', 'corrupt'],
    means: 'No page tables of a Windows were found.',
    todo: 'If you know the page-table root, give `--dtb`.',
  },
  'linux-guest': { kind: 'unsupported', means: 'The guest runs Linux.', todo: 'Use crash or drgn.' },
  'kernel-not-found': {
    kind: 'corrupt',
    means: "Windows' page tables were found, but not its kernel.",
    todo: 'If you know where the kernel is, give `--kernel-base`.',
  },
  'windows-2000': {
    kind: 'unsupported',
    means:
      'The guest is Windows 2000 (NT 5.0): its debugger data block ends before what leads to processors and registers.',
    todo: 'Windows XP and later are converted.',
  },
  'kdbg-not-found': {
    kind: 'corrupt',
    means: 'The kernel was found, but not its debugger data block, which every debugger needs.',
    todo: 'If the dump is complete, please report it with `elf2dmp info --json`.',
  },
  'version-not-found': { kind: 'corrupt', means: 'The kernel was found, but nothing shows its build number.' },
  'layout-unknown': {
    kind: 'corrupt',
    means: 'In raw memory, nothing shows where the hole below 4 GiB is.',
    todo: 'Give the layout: `--runs 0+3G,4G` for 3 GiB below the hole.',
  },

  // Planning
  'no-pages': { kind: 'corrupt', means: 'No whole page of memory is left to write.' },
  'too-many-runs': {
    kind: 'unsupported',
    means: "The memory has more runs than a full dump's header can list.",
    todo: 'Use `--type bitmap`, or `--ram windows`.',
  },
  'ram-unknown': {
    kind: 'corrupt',
    means: '`--ram windows` was given, but what Windows counts as RAM is unknown.',
    todo: 'Convert without `--ram windows`.',
  },
  'triage-input': {
    kind: 'unsupported',
    means: 'A triage dump cannot become a dump of another type: it has no physical memory.',
  },
  'triage-no-processor': {
    kind: 'corrupt',
    means: 'A triage dump needs a processor, and the guest has none that was found.',
    todo: 'Use `--type full`.',
  },
  'strict-losses': {
    kind: 'losses',
    means: 'The dump would have losses, and `--strict` was given.',
    todo: 'Without `--strict` the dump is written, with exit code 3.',
  },
  'reflink-impossible': {
    kind: 'unsupported',
    means: "The dump cannot share the input's blocks, and `--reflink=always` was given.",
    todo: 'Use `--reflink=auto`, or put both files on one XFS or Btrfs.',
  },

  // PDBs, for names of functions
  'pdb-damaged': {
    kind: 'corrupt',
    means: 'A PDB is damaged or cut off.',
    todo: 'Copy it again from where it was built, or from the symbol server.',
  },
  'pdb-unknown': { kind: 'unsupported', means: 'Not a PDB.', todo: 'Name a PDB, or a directory of PDBs.' },
  'pdb-portable': {
    kind: 'unsupported',
    means: 'A portable PDB, of .NET code.',
    todo: 'Name the PDB of a native image.',
  },
  'pdb-msf-2': {
    kind: 'unsupported',
    means: 'A PDB of Visual C++ 6 or older: no 64-bit image has one.',
    todo: 'Name the PDB of a 64-bit image.',
  },
  'pdb-compressed': {
    kind: 'unsupported',
    means: 'A compressed PDB (`.pd_`).',
    todo: 'Expand it: `cabextract FILE.pd_`, on Windows `expand FILE.pd_ FILE.pdb`.',
  },
  'pdb-without-symbols': {
    kind: 'unsupported',
    means: 'A PDB of types only, as the compiler writes it.',
    todo: "Name the linker's PDB.",
  },

  // Files
  'io-not-a-file': { kind: 'io-permanent', means: 'Not a regular file.', todo: 'Name the dump file itself.' },
  'io-unknown': { kind: 'io-permanent', means: 'A system call failed without an error number.' },
  'input-locked': {
    kind: 'io-transient',
    means: 'Another elf2dmp is converting the input in place.',
    todo: 'Wait until it is done.',
  },
  'input-live': {
    kind: 'io-transient',
    means: "The raw memory is open for writing elsewhere, as a running guest's is, and may change while it is read.",
    todo: 'Stop or dump the guest; or give `--live-input`, which makes a change a loss.',
  },
  'input-changed': {
    kind: 'io-transient',
    means: 'The file was changed, replaced or shortened while it was read.',
    todo: 'Wait until the dump is complete, then convert again.',
  },
  'output-not-a-file': {
    kind: 'io-permanent',
    means: 'The output exists and is not a regular file.',
    todo: 'Name a new file.',
  },
  'output-exists': {
    kind: 'io-permanent',
    means: 'The output exists and was left as it is.',
    todo: 'Give `--force`, or name another file.',
  },
  'output-is-memory-dump': {
    kind: 'io-permanent',
    means: "The output exists and is a dump of a guest's memory, which even `--force` does not replace.",
    todo: 'Remove it first, if it is not needed any more.',
  },
  'out-of-memory': {
    kind: 'io-transient',
    means: 'The system, or a limit of the process, does not give the memory that is needed.',
    todo: 'Free memory or raise the limit (`ulimit -v`).',
  },
  'no-space': {
    kind: 'io-transient',
    means: 'The file system does not have enough room for the output.',
    todo: 'Free space, or name an output elsewhere.',
  },
  'clone-range-failed': {
    kind: 'io-transient',
    means: 'Sharing blocks failed with an unexpected error.',
    todo: 'Convert with `--reflink=never`.',
  },

  // In place
  'in-place-unavailable': {
    kind: 'unsupported',
    means: 'Converting in place needs calls of the C library that are not available here.',
    todo: OWN_FILE,
  },
  'in-place-impossible': {
    kind: 'unsupported',
    means: 'The pages in the file are not laid out as in a dump, or the file is incomplete.',
    todo: OWN_FILE,
  },
  'in-place-unsupported': {
    kind: 'unsupported',
    means: 'The file system cannot insert room at the front of a file.',
    todo: `ext4 and XFS can. ${OWN_FILE}`,
  },
  'in-place-done': {
    kind: 'unsupported',
    means: 'The file was converted in place already.',
    todo: 'Open it in WinDbg; `elf2dmp --undo FILE` restores the ELF file.',
  },
  'in-place-not-owner': {
    kind: 'io-permanent',
    means: 'Only the owner of the file and root can convert it in place.',
    todo: `Run as that user. ${OWN_FILE}`,
  },
  'in-place-hard-links': {
    kind: 'io-permanent',
    means: 'The file has several names (hard links).',
    todo: `Remove the others. ${OWN_FILE}`,
  },
  'in-place-busy': { kind: 'io-transient', means: 'Another elf2dmp is at work on the file.', todo: 'Wait.' },
  'in-place-open-elsewhere': {
    kind: 'io-transient',
    means: 'Another process has the file open for writing.',
    todo: 'Wait until the dump is complete.',
  },
  'in-place-stuck': {
    kind: 'io-transient',
    means: 'Converting in place failed, and so did going back. The undo journal holds what is missing.',
    todo: 'Remove the cause (often a full disk), then run `elf2dmp --undo FILE`.',
  },
  'in-place-unknown-state': {
    kind: 'corrupt',
    means: 'The file is neither the ELF file nor the dump that its undo journal describes.',
    todo: 'Was the file changed? It and the journal were left as they are.',
  },
  'journal-missing': {
    kind: 'io-permanent',
    means: 'There is no undo journal beside the file.',
    todo: 'If the file was renamed, rename its journal too.',
  },
  'journal-of-another-file': {
    kind: 'io-permanent',
    means: 'The undo journal belongs to another file.',
    todo: 'Move the journal to where its file is now.',
  },
  'journal-not-trusted': {
    kind: 'io-permanent',
    means: 'Others could have written the undo journal.',
    todo: 'Check who made it. If you did, set its owner, and its mode to 0600.',
  },
  'journal-damaged': {
    kind: 'corrupt',
    means: 'The undo journal is damaged; without it the ELF file cannot be restored.',
  },
  'journal-version': {
    kind: 'unsupported',
    means: 'Another version of elf2dmp wrote the undo journal.',
    todo: 'Use that version.',
  },

  // Batches
  'known-line': {
    kind: 'usage',
    means: 'A line of the list of known crashes does not begin with a signature.',
    todo: 'Begin it with the 12 hex digits of a signature, or with # if it is a comment.',
  },
  'output-elsewhere': {
    kind: 'io-permanent',
    means: 'A link below the output directory leads out of it.',
    todo: 'Remove the link, or name the outputs differently.',
  },
  'report-unknown': {
    kind: 'io-permanent',
    means: "The file for a batch's report has lines that no batch wrote. It was left as it is.",
    todo: 'Name another file.',
  },
  'batch-busy': {
    kind: 'io-transient',
    means: 'Another batch is at work on the output directory.',
    todo: 'Wait until it is done, or use shards.',
  },
  'sidecar-unknown': {
    kind: 'io-permanent',
    means: 'A file has the name that a batch needs for its record of a job.',
    todo: 'Name the outputs differently, or remove it.',
  },
  verification: {
    kind: 'io-permanent',
    means: "A batch's job wrote the dump, but `--verify` found it different from its input.",
    todo: 'Run `elf2dmp verify` on it for the details.',
  },
  crashed: {
    kind: 'aborted',
    means: "A batch's job ended without a report: it was killed, or has a bug.",
    todo: 'The record holds the end of its error output.',
  },

  // The run itself
  aborted: { kind: 'aborted', means: 'The run was interrupted; nothing was left behind.' },
  internal: {
    kind: 'aborted',
    means: 'A bug in elf2dmp.',
    todo: 'Please report it with the text of the message.',
  },
} as const satisfies Record<string, ErrorEntry>;

/** Diagnostics: the command went on. Losses make the outcome `losses`, with exit code 3. */
export const DIAGNOSTICS = {
  // The input
  'taken-as-raw': {
    severity: 'note',
    means: 'The file has no known header and was read as raw memory.',
    todo: 'If it is not raw memory, find out what it is.',
  },
  'raw-odd-size': {
    severity: 'warning',
    means: 'Raw memory whose size is not a whole number of pages: it was cut off, or is something else.',
    todo: 'Compare its size with what was copied.',
  },
  'input-changed': {
    severity: 'loss',
    means: 'With `--live-input`: the memory changed, or could have changed, while it was read.',
    todo: 'Stop the guest, or dump it with QEMU.',
  },
  'machine-doubtful': {
    severity: 'note',
    means: 'The input says i386, which QEMU also writes for a 64-bit guest whose CPU 0 is not in 64-bit mode.',
  },
  'input-truncated': {
    severity: 'loss',
    means: 'The file ends before the memory that it lists: pages are missing.',
    todo: CUT_OFF,
  },
  'migration-stream-cut': {
    severity: 'loss',
    means: 'The migration stream ends or is damaged before its end: pages or CPU states are missing.',
    todo: CUT_OFF,
  },
  'migration-ram-unplaced': {
    severity: 'loss',
    means: 'The address of some memory in the migration stream is not known, so it was left out.',
  },
  'migration-layout': {
    severity: 'note',
    means: "Where the guest's memory is was taken from its machine type: the stream has no CMOS.",
  },
  'host-contradicts': {
    severity: 'warning',
    means: 'The hypervisor recorded another bug check or build than memory has. Memory was believed.',
    todo: 'Look at both: `info` shows them.',
  },
  'migration-run-state': { severity: 'note', means: 'The state that the guest was in when it was saved.' },
  'container-truncated': {
    severity: 'loss',
    means: 'The compressed file is cut off; what could be decompressed was used.',
    todo: 'Look for another copy of it.',
  },
  'container-damaged': {
    severity: 'loss',
    means:
      'The compressed file is damaged. What came out was used, and any of it may be wrong; but where the message names the damaged part, only that is lost.',
    todo: 'Look for another copy of it.',
  },
  'memory-absent': {
    severity: 'loss',
    means: 'Headers list memory that the file does not store.',
    todo: MEMORY_DAMAGED,
  },
  'memory-unlisted': {
    severity: 'note',
    means: 'RAM that no program header lists (a paging-mode dump) was recovered.',
    todo: 'Dump without `-p` next time.',
  },
  'memory-unaddressed': {
    severity: 'loss',
    means: 'The file holds memory whose address is unknown; it was left out.',
    todo: 'Dump without `-p` next time.',
  },
  'address-beyond-52-bits': {
    severity: 'loss',
    means: 'Memory at impossible physical addresses was left out.',
    todo: 'The headers are damaged: make a new dump.',
  },
  'elf-overlap': { severity: 'warning', means: 'Program headers overlap; the one that begins lower was used.' },
  'xen-overlap': { severity: 'warning', means: 'Pages are listed more than once; the first copy was used.' },
  'notes-truncated': {
    severity: 'loss',
    means: 'The file ends before its notes: CPU states are missing.',
    todo: CUT_OFF,
  },
  'notes-too-large': { severity: 'loss', means: 'The notes are larger than what is read of them.' },
  'notes-too-many': { severity: 'loss', means: 'There are more notes than are read.' },
  'notes-damaged': { severity: 'loss', means: 'A note is damaged; it and all later ones were not read.' },
  'cpu-note-short': { severity: 'loss', means: "A CPU's note does not hold its state." },
  'cpu-note-doubtful': {
    severity: 'loss',
    means: "A CPU's note says of itself what it cannot be: its registers may be others.",
  },
  'cpu-notes-missing': { severity: 'loss', means: 'Some CPUs have no note with their control registers.' },
  'cpu-state-truncated': { severity: 'loss', means: "The file ends within a CPU's state.", todo: CUT_OFF },
  'page-damaged': {
    severity: 'loss',
    means: 'A page does not decompress; it is zeros in the dump.',
    todo: MEMORY_DAMAGED,
  },
  'pages-damaged': { severity: 'loss', means: 'More pages do not decompress than are listed.', todo: MEMORY_DAMAGED },
  'page-descriptors-damaged': {
    severity: 'loss',
    means: 'Page descriptors are damaged; their pages are missing.',
    todo: MEMORY_DAMAGED,
  },
  'page-compression-unknown': {
    severity: 'loss',
    means: 'Pages are compressed by an unknown method; they are missing.',
  },
  'kdump-flattened-overlap': {
    severity: 'note',
    means: 'Records of a flattened file overwrite earlier ones, as they may.',
  },
  'kdump-no-end-mark': {
    severity: 'warning',
    means: 'The flattened file has no end mark, but all pages are there.',
  },

  // What was found of Windows
  'five-level-root': { severity: 'loss', means: "The dump's header cannot name the root of 5-level page tables." },
  'five-level-paging': { severity: 'loss', means: 'The guest uses 5-level paging, which dump headers cannot express.' },
  'dump-list-wrong': {
    severity: 'warning',
    means:
      "A number in a crash dump's list of its pages is wrong; the size of the file, or Windows' own list, proves what it should be.",
    todo: 'Convert the dump: the new one lists its pages right.',
  },
  'layout-doubtful': {
    severity: 'warning',
    means: 'In raw memory, two layouts fit what Windows says of its RAM equally well.',
    todo: 'If you know the layout, give it with `--runs`.',
  },
  'rival-windows': {
    severity: 'warning',
    means: 'Memory holds what an earlier boot of Windows left. The one with the newest time was taken.',
  },
  'vmcoreinfo-disagrees': {
    severity: 'warning',
    means: "The guest's VMCOREINFO note and its memory disagree; memory was used.",
  },
  'kdbg-copy-used': {
    severity: 'warning',
    means: "The kernel's debugger data block (KDBG) is lost; a copy elsewhere in memory serves.",
  },
  'kdbg-field-damaged': {
    severity: 'loss',
    means: 'Memory contradicts a field of the debugger data block (KDBG): the field was not used.',
    todo: MEMORY_DAMAGED,
  },
  'kdbg-size-doubtful': {
    severity: 'warning',
    means: 'The debugger data block (KDBG) has not the size that it has in this build of Windows.',
  },
  'kernel-header-missing': {
    severity: 'loss',
    means: "The kernel image's header is not in memory; the kernel was found by its contents.",
  },
  'build-disagrees': { severity: 'warning', means: 'Sources of the build number disagree.' },
  'modules-broken': {
    severity: 'loss',
    means: 'The list of loaded modules is damaged; some modules cannot be reached.',
    todo: MEMORY_DAMAGED,
  },
  'modules-doubtful': {
    severity: 'warning',
    means: "The list of loaded modules says other than the modules' own headers.",
  },
  'kdbg-ambiguous': {
    severity: 'loss',
    means: 'Several places hold the debugger data block (KDBG), and nothing says which is the one that is used.',
  },
  'bug-check-unreadable': {
    severity: 'loss',
    means: 'The bug check data is not present: whether the guest crashed is unknown.',
  },
  'bug-check-implausible': {
    severity: 'loss',
    means: 'The bug check data is damaged: whether the guest crashed is unknown.',
  },
  'bug-check-missing': {
    severity: 'loss',
    means:
      'The bug check data is empty, but registers, stacks or the input show a crash: whether the guest crashed is unknown.',
  },
  'bug-check-unconfirmed': {
    severity: 'warning',
    means: 'The bug check data has a bug check, but the processor was not in KeBugCheckEx: it may not have crashed.',
  },
  'shared-data-unset': {
    severity: 'loss',
    means: "Windows' shared data has no version: the guest was stopped early in boot, or the page is damaged.",
  },
  'crashing-processor-unknown': { severity: 'warning', means: 'Which processor crashed is unknown.' },
  'no-cpu-states': {
    severity: ['loss', 'warning'],
    means: 'The input holds no CPU states; at most the registers that Windows captured at a crash are known.',
    todo: 'Raw memory never has them. `virsh dump --memory-only` writes them.',
  },
  'no-processors': { severity: 'loss', means: "Windows' processors were not found." },
  'processor-damaged': { severity: 'loss', means: "A processor's control block is damaged." },
  'processor-contested': {
    severity: 'loss',
    means:
      "Several CPUs name one processor as theirs, or one CPU names several: that processor's registers are unknown.",
  },
  'processor-without-state': {
    severity: 'loss',
    means: 'No CPU state belongs to a processor: its registers are unknown.',
  },
  'prcb-damaged': { severity: 'loss', means: 'A processor has no usable control block (PRCB).' },
  'cpu-without-processor': { severity: 'loss', means: 'A CPU state belongs to no processor of Windows.' },

  // Symbols
  'symbols-mismatched': {
    severity: 'warning',
    means: 'A PDB has the right name, but is of another build: its GUID or age differs.',
    todo: 'Find the PDB of this build. `info --symbols-needed` says which it is.',
  },
  'symbols-unusable': {
    severity: 'warning',
    means: 'A PDB is compressed, damaged or of another format.',
    todo: 'The message says which; expand it or copy it again.',
  },

  // The plan of the dump
  'captured-frame-doubtful': {
    severity: 'warning',
    means: "The registers that Windows captured at the bug check are implausible; the CPU's own are shown.",
  },
  'processor-exchanged': {
    severity: 'loss',
    means:
      "A processor of a crash dump shows the registers of another one, by its KPCR, its descriptor tables or its thread's stack.",
    todo: 'Convert the dump: registers go to their processors where memory proves whose they are.',
  },
  'registers-unconfirmed': {
    severity: 'warning',
    means:
      'Nothing in a crash dump shows that registers are those of the processor that has them: no KPCR, no descriptor table, no stack.',
    todo: 'Compare stacks and threads (!thread) before you rely on which processor did what.',
  },
  'processor-entry-mended': {
    severity: 'warning',
    means:
      "KiProcessorBlock did not have a processor's PRCB, without which the debugger does not know the processor: the dump has it there.",
  },
  'context-pointer-mended': {
    severity: 'warning',
    means:
      'A PRCB did not point to its frame of registers, without which the debugger shows neither registers nor memory (ARM64): the dump points to it.',
  },
  'no-context-frame': {
    severity: 'loss',
    means: "There is no place for a processor's registers: the debugger does not show them.",
  },
  'no-special-registers': {
    severity: 'loss',
    means: "There is no place for a processor's special registers: the debugger does not show them.",
  },
  'header-contradicted': {
    severity: 'loss',
    means: "The dump's own memory contradicts its header, or lacks what the header leads to.",
  },
  'structures-damaged': {
    severity: 'loss',
    means: 'Page tables, interrupt tables or the list of processes are damaged, or not in the dump.',
    todo: MEMORY_DAMAGED,
  },
  'time-unknown': { severity: 'loss', means: "A time in Windows' shared data is damaged; the header says 0." },
  'product-type-damaged': { severity: 'loss', means: 'The product type is damaged; the header says 0.' },
  'patch-impossible': {
    severity: 'loss',
    means: 'Memory that a debugger needs changed could not be changed in the dump.',
  },
  'patch-left-out': { severity: 'loss', means: 'A change is in a page that the dump leaves out.' },
  'input-is-smaller-dump': {
    severity: 'loss',
    means: 'A kernel dump, or one of active memory, was converted to a type that should hold more than it has.',
    todo: 'Leave out `--type`: the dump then is of the same kind as the input.',
  },
  'ram-left-out': { severity: 'note', means: 'Memory that Windows does not count as RAM was left out.' },
  'ram-missing': {
    severity: 'loss',
    means: 'Memory that Windows counts as RAM is not in the file. The message has the ranges.',
    todo: 'Was the file filtered, cut or made of only some of the memory? Make a new dump.',
  },
  'partial-pages': { severity: 'loss', means: 'Pages that are present only in part were left out.' },
  'extents-too-far': {
    severity: 'loss',
    means: 'Memory at an address too high for a page map of reasonable size was left out.',
  },
  'triage-names': { severity: 'loss', means: 'A triage dump names modules outside of it.' },
  'triage-part-missing': {
    severity: 'loss',
    means: 'Part of the PRCB, thread or process of a triage dump is not in the input: it is zeros there.',
  },
  'triage-thread-unknown': {
    severity: 'warning',
    means:
      'The thread that runs on the crashing processor was not found: a triage dump has neither it nor its process.',
  },
  'triage-too-large': { severity: 'loss', means: 'Not all modules fit in a triage dump.' },
  'triage-cut': {
    severity: 'warning',
    means: 'Memory around stacks and registers was left out, for a triage dump has at most 2 MiB.',
  },
  'large-bitmap': {
    severity: 'warning',
    means: 'The page map is so large that LeechCore and MemProcFS refuse the dump. WinDbg reads it.',
  },
  'unaligned-pages': {
    severity: 'warning',
    means: 'The pages stayed where the input has them, so LeechCore and MemProcFS refuse the dump. WinDbg reads it.',
    todo: 'For those, convert without `--reflink`; after `--in-place`, use `--undo` first.',
  },
  'zero-pages-dropped': {
    severity: 'loss',
    means: 'Pages of zeros were left out, as `--drop-zero-pages` asks; a debugger cannot tell them from missing ones.',
  },
  'processes-gone': {
    severity: 'note',
    means: 'Processes that were swapped out, that exited, or that keep their memory from Windows have no page tables.',
  },
  'processes-unknown': {
    severity: ['loss', 'warning'],
    means: 'Not all processes are known: pages that only they use may be left out.',
  },
  'page-tables-damaged': { severity: 'loss', means: 'The page tables are damaged; some were not followed.' },
  'page-tables-missing': {
    severity: 'warning',
    means: 'Page tables are not in the input; what they map was not found.',
  },
  'page-states-unknown': {
    severity: 'loss',
    means: 'The page frame database was not readable: pages in use that no process maps are left out.',
  },
  copied: { severity: 'warning', means: "The dump could not share the input's blocks and was copied." },
  'in-place-resumed': { severity: 'warning', means: 'An interrupted conversion in place was undone first.' },
  'in-place-unseen': {
    severity: 'warning',
    means: "Other users' processes could not be examined; one might have the file open for writing.",
  },
} as const satisfies Record<string, DiagnosticEntry>;

/** Findings of `verify`, besides the errors and losses above that it meets in the dump. */
export const FINDINGS = {
  'header-context': { severity: 'error', means: "The header's context is not the crashed processor's." },
  'header-field': { severity: 'error', means: 'A field of the header is not what memory or the input make it.' },
  'triage-stack': {
    severity: 'error',
    means: "The stack of a triage dump does not begin at its processor's stack pointer.",
  },
  'triage-module': {
    severity: 'error',
    means: "The list of modules in a triage dump contradicts a module's header.",
  },
  'triage-differs': { severity: 'error', means: 'A triage dump differs from the one that the input makes.' },
  'file-size': {
    severity: ['error', 'warning'],
    means: 'The file is shorter or longer than the pages that it lists.',
  },
  'kdbg-encoded': {
    severity: ['error', 'warning'],
    means: 'The debugger data block is still encoded: a debugger shows no processors.',
  },
  'processes-broken': { severity: ['error', 'warning'], means: 'The list of processes is damaged.' },
  'special-registers': { severity: ['error', 'warning'], means: "A processor's page-table root is not in the dump." },
  'interrupt-table': { severity: ['error', 'warning'], means: "A processor's interrupt table is not usable." },
  'pages-missing': { severity: 'error', means: 'Pages of the input are not in the dump.' },
  'pages-added': { severity: 'error', means: 'The dump has pages that it should not have.' },
  'page-differs': { severity: 'error', means: "A page is not the input's." },
  'change-differs': { severity: 'error', means: 'A change that the conversion makes is not as it should be.' },
  'patch-original': {
    severity: 'error',
    means: 'The input does not hold the bytes that the list of patches says it replaced.',
  },
} as const satisfies Record<string, FindingEntry>;

type OneOf<T> = T extends readonly (infer E)[] ? E : T;

/** A failed system call: its errno in lower case, `io-enoent`. */
export type IoErrorCode = `io-e${string}`;

/** A code of `ERRORS`, or a failed system call's. */
export type ErrorCode = keyof typeof ERRORS | IoErrorCode;
/** The kinds that a code can have. */
export type KindOf<C extends ErrorCode> = C extends keyof typeof ERRORS
  ? OneOf<(typeof ERRORS)[C]['kind']>
  : 'io-permanent' | 'io-transient';
/** The codes that go with a kind. */
export type ErrorCodeOf<K extends ErrorKind> =
  | { [C in keyof typeof ERRORS]: K extends KindOf<C> ? C : never }[keyof typeof ERRORS]
  | (K extends 'io-permanent' | 'io-transient' ? IoErrorCode : never);

/** A code of `DIAGNOSTICS`. */
export type DiagnosticCode = keyof typeof DIAGNOSTICS;
/** The severities that a diagnostic can have. */
export type SeverityOf<C extends DiagnosticCode> = OneOf<(typeof DIAGNOSTICS)[C]['severity']>;

/** A code of `FINDINGS`; `verify` also passes on errors and losses that it meets. */
export type FindingCode = keyof typeof FINDINGS | DiagnosticCode | ErrorCodeOf<'corrupt' | 'unsupported'>;
