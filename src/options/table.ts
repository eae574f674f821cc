/**
 * Every option, declared once. The command line, its help, the manual page, shell completion, the tables in README
 * and docs, the schema of a batch's configuration, and the library's types and run-time checks derive from these rows.
 *
 * It lies below everything but `core`, because the library checks its callers with it; it imports nothing, so that
 * the command starts fast. A new option is a row here, and the code where it takes effect.
 *
 * Doc comments are the library's: an option's type carries them.
 */
import type { OptionRow } from './row.ts';

/** Commands that read an input, locate Windows, or do both. */
const READING = ['convert', 'batch', 'info', 'verify', 'stack'] as const;
const LOCATING = ['convert', 'in-place', 'batch', 'info', 'verify', 'stack'] as const;
const READING_CALLS = ['convert', 'inspect', 'stacks', 'verify', 'openGuest', 'open'] as const;
const LOCATING_CALLS = ['convert', 'convertInPlace', 'inspect', 'stacks', 'verify', 'openGuest', 'locate'] as const;

const SYSTEM_SPOOL =
  "directory for the temporary file that compressed or piped input needs (default: the system's temporary directory)";

/** The rows, in the order in which the help lists them. */
export const OPTIONS = {
  'in-place': {
    kind: 'file',
    help: 'turn this ELF file into the dump without copying it (ext4, XFS); takes the place of INPUT and OUTPUT',
    group: 'Output',
    commands: ['convert', 'in-place'],
    calls: [],
    conflicts: [{ with: 'type', values: ['full', 'kernel', 'active', 'triage'] }],
  },
  undo: {
    kind: 'file',
    help: 'restore a file converted in place',
    group: 'Output',
    commands: ['convert', 'undo'],
    calls: [],
  },
  out: {
    kind: 'directory',
    help: 'directory for the dumps',
    group: 'Batch',
    commands: ['batch'],
    calls: [],
    toml: 'batch',
  },
  /** A dump's name below `out`, from its input's {stem}, {name}, {dir} and {relative}. Default `{dir}/{stem}.dmp`. */
  name: {
    kind: 'text',
    metavar: 'TEMPLATE',
    help: "a dump's name below --out, from its input's {stem}, {name}, {dir} and {relative} (default: {dir}/{stem}.dmp)",
    group: 'Batch',
    commands: ['batch'],
    calls: ['batch'],
    toml: 'batch',
  },
  manifest: {
    kind: 'file',
    stream: 'input',
    help: 'file that lists one input per line, - for standard input',
    group: 'Batch',
    commands: ['batch'],
    calls: [],
    toml: 'batch',
  },
  /** Conversions to run at a time. Default: one per CPU, at most 4. */
  jobs: {
    kind: 'count',
    least: 1,
    most: 100_000,
    help: 'conversions to run at a time (default: one per CPU, at most 4)',
    group: 'Batch',
    commands: ['batch'],
    calls: ['batch'],
    toml: 'batch',
  },
  /** false: stop at the first failure. */
  'keep-going': {
    kind: 'flag',
    help: 'continue after failures (the default)',
    group: 'Batch',
    commands: ['batch'],
    calls: ['batch'],
    toml: 'batch',
  },
  'fail-fast': {
    kind: 'flag',
    help: 'stop at the first failure',
    group: 'Batch',
    commands: ['batch'],
    calls: [],
    conflicts: [{ with: 'keep-going' }],
  },
  /** Times to retry transient failures such as a full disk. Default 2. */
  retries: {
    kind: 'count',
    least: 0,
    most: 100_000,
    help: 'times to retry transient failures such as a full disk (default: 2)',
    group: 'Batch',
    commands: ['batch'],
    calls: ['batch'],
    toml: 'batch',
  },
  /** Read existing dumps instead of trusting their sizes. */
  recheck: {
    kind: 'flag',
    help: 'read existing dumps instead of trusting their sizes',
    group: 'Batch',
    commands: ['batch'],
    calls: ['batch'],
  },
  /** Also retry permanent failures such as a corrupt input. */
  'retry-failed': {
    kind: 'flag',
    help: 'also retry permanent failures such as a corrupt input',
    group: 'Batch',
    commands: ['batch'],
    calls: ['batch'],
  },
  shard: {
    kind: 'text',
    metavar: 'I/N',
    help: 'convert only this part of the inputs, counted from 0 (default: taken from Kubernetes or Slurm)',
    group: 'Batch',
    commands: ['batch'],
    calls: [],
  },
  'dry-run': {
    kind: 'flag',
    help: 'print what would be done',
    group: 'Batch',
    commands: ['batch'],
    calls: [],
  },
  /** false: start even if the disk looks too small. */
  'space-check': {
    kind: 'flag',
    default: true,
    help: 'start even if the disk looks too small',
    group: 'Batch',
    commands: ['batch'],
    calls: ['batch'],
  },
  /** Replace an existing output, and the file for the patches. */
  force: {
    kind: 'flag',
    default: false,
    alias: 'f',
    help: 'replace OUTPUT if it exists',
    helpFor: { info: "replace the report's file if it exists", batch: 'replace dumps that no batch made' },
    group: 'Output',
    commands: ['convert', 'info', 'batch'],
    calls: ['convert', 'batch'],
    toml: 'batch',
  },
  /** Fail, and write nothing, if anything would be lost. */
  strict: {
    kind: 'flag',
    default: false,
    help: 'write nothing if anything would be lost (exit code 5)',
    group: 'Output',
    commands: ['convert', 'in-place', 'batch'],
    calls: ['convert', 'convertInPlace'],
    toml: 'options',
  },
  /** false: leave the guest's memory as it is, so without decoded KDBG and without registers in the PRCBs. */
  patch: {
    kind: 'flag',
    default: true,
    help: "leave the guest's memory as it is: no decoded KDBG, no registers",
    group: 'Output',
    commands: ['convert', 'in-place', 'batch'],
    calls: ['convert', 'convertInPlace'],
    toml: 'options',
  },
  /**
   * `auto`: full up to 42 runs (32-bit guests: 86), all that a full dump's header holds, else bitmap. `kernel`: only what the
   * kernel's half of the address spaces maps; `active`: only pages in use. `triage`: a kernel minidump of at most 2 MiB.
   */
  type: {
    kind: 'choice',
    choices: ['auto', 'full', 'bitmap', 'kernel', 'active', 'triage'],
    default: 'auto',
    help: 'full and bitmap dumps hold everything; kernel: only what the kernel maps; active: only pages in use; triage: a minidump of at most 2 MiB with registers and stacks; auto: full, or bitmap if there are more than 42 runs (32-bit guests: 86); of a kernel or active dump its own type',
    group: 'Output',
    commands: ['convert', 'in-place', 'batch'],
    calls: ['convert'],
    toml: 'options',
  },
  /** Whose stacks a triage dump has: those of the processor that the debugger opens on, or of all. */
  'triage-cpus': {
    kind: 'choice',
    choices: ['crashing', 'all'],
    default: 'crashing',
    help: 'stacks in a triage dump: of the crashing processor, or of all; registers are always those of all',
    group: 'Output',
    commands: ['convert', 'batch'],
    calls: ['convert'],
    toml: 'options',
    needs: 'type',
    conflicts: [{ with: 'type', values: ['full', 'bitmap', 'kernel', 'active'] }],
  },
  /** Put user-mode stacks in a triage dump too. Default false: it holds no memory of user mode. */
  'triage-user-stacks': {
    kind: 'flag',
    default: false,
    help: 'put user-mode stacks in a triage dump too (they can hold secrets)',
    group: 'Output',
    commands: ['convert', 'batch'],
    calls: ['convert'],
    toml: 'options',
    needs: 'type',
    conflicts: [{ with: 'type', values: ['full', 'bitmap', 'kernel', 'active'] }],
  },
  /** Leave out pages of zeros: a bitmap dump, and a loss, since a dropped page looks like a missing one. */
  'drop-zero-pages': {
    kind: 'flag',
    default: false,
    help: 'leave out pages of zeros (makes a bitmap dump); counts as a loss, because a debugger takes them for missing',
    group: 'Output',
    commands: ['convert', 'batch'],
    calls: ['convert'],
    toml: 'options',
    conflicts: [{ with: 'type', values: ['full', 'triage'] }],
  },
  /** Compress the dump while it is written. */
  compress: {
    kind: 'choice',
    choices: ['gzip', 'zstd'],
    bare: 'gzip',
    help: 'compress the dump while writing it, with gzip unless zstd is named (needs Node.js 22.15); OUTPUT keeps its name',
    group: 'Output',
    commands: ['convert', 'batch'],
    calls: ['convert'],
    toml: 'options',
    conflicts: [{ with: 'reflink' }, { with: 'sparse', values: ['always'] }, { with: 'verify' }],
  },
  /** Holes in a copied dump, as `cp --sparse` has them. Default `auto`: those of the input. */
  sparse: {
    kind: 'choice',
    choices: ['auto', 'always', 'never'],
    default: 'auto',
    help: "holes in OUTPUT: auto keeps the input's, always also makes holes of long runs of zeros, never writes everything",
    group: 'Output',
    commands: ['convert', 'batch'],
    calls: ['convert'],
    toml: 'options',
  },
  /**
   * Share the input's blocks instead of copying them, on XFS and Btrfs: a bitmap dump, made in no time.
   * `auto` copies where that is impossible, and says why; `always` fails. Default `never`.
   */
  reflink: {
    kind: 'choice',
    choices: ['never', 'auto', 'always'],
    default: 'never',
    help: "share the input's blocks instead of copying them (XFS, Btrfs), which makes a bitmap dump; auto copies if it must and says why",
    group: 'Output',
    commands: ['convert', 'batch'],
    calls: ['convert'],
    toml: 'options',
    conflicts: [{ with: 'type', values: ['triage'] }],
  },
  /** `all`: everything in the input; `windows`: only what Windows counts as RAM. */
  ram: {
    kind: 'choice',
    choices: ['all', 'windows'],
    default: 'all',
    help: 'keep all memory in the input, or only what Windows counts as RAM (no video memory, no firmware)',
    group: 'Output',
    commands: ['convert', 'batch'],
    calls: ['convert'],
    toml: 'options',
    conflicts: [{ with: 'type', values: ['triage'] }],
  },
  /**
   * Whose registers a crashed guest shows: `auto` the frame that Windows captured at the bug check for the crashing
   * processor and the CPUs' own for the others, `cpu` the CPUs' own, `captured` the captured frames wherever they
   * are plausible. A guest that did not crash always shows the CPUs' own.
   */
  context: {
    kind: 'choice',
    choices: ['auto', 'cpu', 'captured'],
    default: 'auto',
    help: "registers of a crashed guest: cpu: the CPUs' own; captured: those that Windows saved; auto: captured on the crashing processor, cpu on the others",
    group: 'Windows',
    commands: ['convert', 'in-place', 'batch', 'stack', 'info'],
    calls: ['convert', 'convertInPlace', 'stacks', 'inspect'],
    toml: 'options',
  },
  /** Use this page-table root (physical address) instead of searching for one. */
  dtb: {
    kind: 'physical',
    help: 'use this page-table root (physical address, hex) instead of searching',
    group: 'Windows',
    commands: LOCATING,
    calls: LOCATING_CALLS,
    toml: 'options',
  },
  /** The kernel's image begins at this virtual address. */
  'kernel-base': {
    kind: 'virtual',
    help: "use this address of the kernel's image (virtual, hex) instead of searching",
    group: 'Windows',
    commands: LOCATING,
    calls: LOCATING_CALLS,
    toml: 'options',
  },
  /** Only the stack of this processor, by Windows' number. */
  cpu: {
    kind: 'count',
    least: 0,
    most: 99_999,
    library: 'processor',
    help: "show only this processor, by Windows' number",
    group: 'Windows',
    commands: ['stack'],
    calls: ['stacks'],
  },
  /**
   * Where PDBs are searched for, in the debugger's syntax: directories, symbol stores and single files, `;` between
   * them. Servers are left out: nothing is fetched.
   */
  symbols: {
    kind: 'text',
    metavar: 'PATH[;PATH]',
    completes: 'file',
    help: 'name code by the PDBs in these directories, symbol stores (also as srv*DIR) and files (default: ELF2DMP_SYMBOL_PATH, or _NT_SYMBOL_PATH, without servers: nothing is fetched)',
    group: 'Windows',
    commands: ['convert', 'in-place', 'batch', 'info', 'stack'],
    calls: ['convert', 'convertInPlace', 'inspect', 'stacks'],
    toml: 'options',
  },
  'symbols-needed': {
    kind: 'flag',
    default: false,
    help: 'print only where a symbol store would have the PDBs that --symbols lacks, one a line',
    group: 'Windows',
    commands: ['info'],
    calls: [],
    conflicts: [{ with: 'json' }, { with: 'report' }],
  },
  /** `raw`: physical memory without any header, whatever it looks like. Default `auto`. */
  format: {
    kind: 'choice',
    choices: ['auto', 'raw'],
    default: 'auto',
    help: 'raw: read the input as physical memory without a header, whatever it looks like',
    group: 'Input',
    commands: READING,
    calls: READING_CALLS,
    toml: 'options',
  },
  /** Addresses of raw memory, in the file's order. */
  runs: {
    kind: 'ranges',
    help: 'START+SIZE of each range of raw memory, in file order, such as 0+3G,4G (default: found by its contents)',
    group: 'Input',
    commands: READING,
    calls: READING_CALLS,
    toml: 'options',
  },
  /** Of a qcow2 image: the snapshot whose memory is meant, by name or ID. */
  snapshot: {
    kind: 'text',
    metavar: 'NAME',
    help: 'the snapshot of a qcow2 image whose memory is meant, by name or ID',
    group: 'Input',
    commands: READING,
    calls: READING_CALLS,
    toml: 'options',
  },
  /** Of a migration stream without memory (x-ignore-shared): the file that backs the guest's memory. */
  'ram-file': {
    kind: 'file',
    help: "the file that backs the guest's memory, for a stream made with x-ignore-shared, which holds none",
    group: 'Input',
    commands: READING.filter((command) => command !== 'batch'),
    calls: READING_CALLS,
  },
  /** Where a stream or a decompressed file is kept while it is used. */
  spool: {
    kind: 'directory',
    library: 'spoolDirectory',
    help: "directory for the temporary file that compressed or piped input needs (default: OUTPUT's)",
    helpFor: { info: SYSTEM_SPOOL, verify: SYSTEM_SPOOL, stack: SYSTEM_SPOOL },
    group: 'Input',
    commands: READING,
    calls: READING_CALLS,
    toml: 'options',
  },
  /** MiB of memory that a zstd file made with `--long` may take while it is decompressed. Default 128, as zstd's own. */
  'zstd-window': {
    kind: 'count',
    least: 1,
    most: 2048,
    help: 'MiB of memory that decompressing a zstd file may take, for files made with zstd --long (default: 128)',
    group: 'Input',
    commands: READING,
    calls: READING_CALLS,
    toml: 'options',
  },
  /**
   * Read raw memory that a running guest may change meanwhile: a change is a loss then. Default false: that is an error.
   */
  'live-input': {
    kind: 'flag',
    default: false,
    help: 'read raw memory that a running guest may change meanwhile; a change counts as a loss, not as an error',
    group: 'Input',
    commands: READING,
    calls: READING_CALLS,
    toml: 'options',
  },
  /** Open Windows crash dumps too. Default false: they are refused. Conversions by path take them. */
  'crash-dumps': {
    kind: 'flag',
    default: false,
    help: 'open Windows crash dumps too',
    group: 'Input',
    commands: [],
    calls: ['openGuest', 'open'],
  },
  /** The input that the dump was made from. */
  against: {
    kind: 'file',
    stream: 'input',
    help: 'compare every page with the input that the dump was made from',
    group: 'Checks and reports',
    commands: ['verify'],
    calls: ['verify'],
  },
  /** Read the finished dump back and compare it with the input: `verification` in the report. */
  verify: {
    kind: 'flag',
    default: false,
    help: 'read the finished dump back and compare it with the input (exit code 8 if they do not match)',
    group: 'Checks and reports',
    commands: ['convert', 'batch'],
    calls: ['convert'],
    toml: 'options',
  },
  /** Put the SHA-256 of the files in the report. */
  hash: {
    kind: 'flag',
    default: false,
    help: 'put the SHA-256 of input and output in the report',
    helpFor: {
      batch: 'record the SHA-256 of all inputs and dumps',
      verify: 'put the SHA-256 of the files in the report',
    },
    group: 'Checks and reports',
    commands: ['convert', 'batch', 'verify'],
    calls: ['convert', 'verify', 'batch'],
    toml: 'batch',
  },
  /** `convert` saves what it changes, with the original bytes, as JSON in this file; `verify` reads them from it. */
  patches: {
    kind: 'file',
    stream: 'output',
    streamFor: { verify: 'input' },
    help: 'save all changes to memory, with the original bytes, in this file (JSON)',
    helpFor: { verify: "the conversion's changes, as --patches saved them (default: work them out again)" },
    group: 'Checks and reports',
    commands: ['convert', 'verify'],
    calls: ['convert', 'verify'],
    needs: 'against',
    conflicts: [{ with: 'type', values: ['triage'] }],
  },
  report: {
    kind: 'file',
    stream: 'output',
    help: 'write an HTML report with stacks and a picture of memory to this file, - for standard output',
    group: 'Checks and reports',
    commands: ['convert', 'in-place', 'info'],
    calls: [],
  },
  jsonl: {
    kind: 'file',
    stream: 'output',
    former: 'report',
    help: 'append one line of JSON for each dump to this file, or to a file per shard in this directory; - for standard output',
    group: 'Checks and reports',
    commands: ['batch'],
    calls: [],
    toml: 'batch',
  },
  html: {
    kind: 'flag',
    help: 'write an HTML report beside each dump (OUTPUT.html), and an index of them in --out',
    group: 'Checks and reports',
    commands: ['batch'],
    calls: [],
    toml: 'batch',
  },
  junit: {
    kind: 'file',
    stream: 'output',
    help: 'write the results to this file as JUnit XML, - for standard output',
    group: 'Checks and reports',
    commands: ['batch'],
    calls: [],
    toml: 'batch',
  },
  known: {
    kind: 'file',
    stream: 'input',
    help: 'file that lists the signatures of known crashes, one a line',
    group: 'Checks and reports',
    commands: ['batch'],
    calls: [],
    toml: 'batch',
  },
  'fail-on-new': {
    kind: 'flag',
    help: 'exit with 9 if a guest crashed in a way that --known does not list',
    group: 'Checks and reports',
    commands: ['batch'],
    calls: [],
    toml: 'batch',
  },
  json: {
    kind: 'flag',
    default: false,
    help: 'print the report as JSON',
    helpFor: { stack: 'print the stacks as JSON', batch: 'print the summary as JSON' },
    group: 'Messages',
    commands: ['convert', 'in-place', 'undo', 'batch', 'info', 'verify', 'stack', 'doctor'],
    calls: [],
  },
  progress: {
    kind: 'choice',
    choices: ['line', 'json'],
    default: 'line',
    help: 'json: print progress to standard error as JSON, one object a line, for programs; line: for people, on terminals only',
    helpFor: {
      batch: 'json: print progress to standard error as JSON, one object a line, for programs; line: for people',
    },
    group: 'Messages',
    commands: ['convert', 'in-place', 'batch', 'info', 'verify', 'stack'],
    calls: [],
  },
  quiet: {
    kind: 'flag',
    default: false,
    alias: 'q',
    help: 'print only errors and losses',
    helpFor: {
      verify: 'print only errors',
      batch: 'print only failures and losses',
      info: 'print no messages besides the description, but losses',
      stack: 'print no messages besides the stacks, but losses',
    },
    group: 'Messages',
    commands: ['convert', 'in-place', 'undo', 'batch', 'info', 'verify', 'stack'],
    calls: [],
  },
  verbose: {
    kind: 'flag',
    default: false,
    alias: 'v',
    help: 'also print what was tried and what was changed',
    helpFor: {
      info: 'also print notes',
      batch: 'list every dump at the end',
      stack: 'also print why frames are guesses',
      verify: 'print all findings, and what was checked',
    },
    group: 'Messages',
    commands: ['convert', 'in-place', 'undo', 'batch', 'info', 'verify', 'stack'],
    calls: [],
  },
} as const satisfies Record<string, OptionRow>;

/** An option's name on the command line, without dashes; a batch's configuration has the same. */
export type OptionName = keyof typeof OPTIONS;

/** All options with their names. */
export const ROWS: readonly (readonly [OptionName, OptionRow])[] = Object.entries(OPTIONS) as [OptionName, OptionRow][];

/** A command's options. */
export const rowsOf = (command: OptionRow['commands'][number]): readonly (readonly [OptionName, OptionRow])[] =>
  ROWS.filter(([, row]) => row.commands.includes(command));
