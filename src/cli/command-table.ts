/** Every command, declared once: arguments, help and examples. The options are in src/options/table.ts. */
import type { Command } from '../options/row.ts';

/** Shells that `elf2dmp completion` writes for. */
export const SHELLS = ['bash', 'zsh', 'fish'] as const;

/** Commands with a word of their own, and the conversion, which needs none. */
export type CommandName = Exclude<Command, 'in-place' | 'undo'>;

/** An argument without a name, such as INPUT. */
export interface ArgumentDeclaration {
  /** As in the usage line: `INPUT`. */
  name: string;
  help: string;
  /** `file`: a path or `-`; `paths`: any number of them. */
  kind: 'file' | 'directory' | 'paths' | 'choice';
  optional?: true;
  choices?: readonly string[];
}

/** A command without its options. */
export interface CommandDeclaration {
  /** Ways to call it, without `elf2dmp`. */
  usage: readonly string[];
  /** One sentence. */
  summary: string;
  arguments: readonly ArgumentDeclaration[];
  /** Command lines, each with what it does. */
  examples: readonly (readonly [line: string, meaning: string])[];
}

/** All commands, in the order of the help. */
export const COMMANDS: Readonly<Record<CommandName, CommandDeclaration>> = {
  convert: {
    usage: ['INPUT OUTPUT [OPTION]...', '--in-place FILE [OPTION]...', '--undo FILE'],
    summary: "Turns a Windows guest's memory, as QEMU or libvirt dumped it to a file, into a crash dump for WinDbg.",
    arguments: [
      {
        name: 'INPUT',
        kind: 'file',
        help: 'dump made by `virsh dump --memory-only` or `dump-guest-memory`, also compressed (.gz, .zst, .xz); - for standard input; only read',
      },
      { name: 'OUTPUT', kind: 'file', help: 'crash dump (.dmp) to write' },
    ],
    examples: [
      ['elf2dmp vm.elf vm.dmp', 'convert a dump'],
      ['zstdcat vm.elf.zst | elf2dmp - vm.dmp', 'convert from a pipe'],
      ['elf2dmp vm.elf vm.dmp --verify --report vm.html', 'check the result and write a report'],
      ['elf2dmp vm.elf vm.dmp --type kernel --compress=zstd', 'make a small file to send'],
      ['elf2dmp --in-place vm.elf', 'convert without copying'],
    ],
  },
  batch: {
    usage: ['batch PATH... --out DIR [OPTION]...', 'batch CONFIG.toml [OPTION]...'],
    summary: 'Converts many dumps; rerun it to finish what is left.',
    arguments: [
      {
        name: 'PATH',
        kind: 'paths',
        help: 'a configuration (CONFIG.toml), or files, directories and globs to convert, which need --out',
      },
    ],
    examples: [
      ['elf2dmp batch /archive --out /dumps', 'convert everything in a directory'],
      ['elf2dmp batch nightly.toml --jobs 4', 'convert what a configuration lists'],
      ['elf2dmp batch /archive --out /dumps --dry-run', 'show what would be done'],
    ],
  },
  info: {
    usage: ['info FILE [OPTION]...'],
    summary: 'Shows what a dump is and what runs in it.',
    arguments: [
      {
        name: 'FILE',
        kind: 'file',
        help: 'dump in any supported format, or a crash dump (.dmp), also compressed; only read',
      },
    ],
    examples: [
      ['elf2dmp info vm.elf', 'show version, bug check, processors and modules'],
      ['elf2dmp info vm.elf --json', 'the same as JSON'],
      ['elf2dmp info vm.elf --report vm.html', 'write an HTML report'],
    ],
  },
  verify: {
    usage: ['verify FILE [OPTION]...'],
    summary: 'Checks a crash dump, by itself or against its input.',
    arguments: [{ name: 'FILE', kind: 'file', help: 'crash dump (.dmp); only read' }],
    examples: [
      ['elf2dmp verify vm.dmp', 'check header, memory and registers'],
      ['elf2dmp verify vm.dmp --against vm.elf', 'also compare every page with the input'],
    ],
  },
  stack: {
    usage: ['stack FILE [OPTION]...'],
    summary: "Shows each processor's stack, with or without symbols.",
    arguments: [{ name: 'FILE', kind: 'file', help: 'dump in any format that can be converted; only read' }],
    examples: [
      ['elf2dmp stack vm.elf', 'show all stacks'],
      ["elf2dmp stack vm.elf --symbols 'build;srv*/srv/symbols'", 'name code by local PDBs'],
      ['elf2dmp stack vm.elf --cpu 0 -v', "show one processor's stack, and why frames are guesses"],
    ],
  },
  doctor: {
    usage: ['doctor [DIR] [OPTION]...'],
    summary: 'Shows what works on this host, and in the directory where dumps are to be written.',
    arguments: [
      {
        name: 'DIR',
        kind: 'directory',
        optional: true,
        help: 'directory to try with small temporary files (default: the current one)',
      },
    ],
    examples: [
      ['elf2dmp doctor /dumps', 'show whether blocks can be shared and files converted in place there'],
      ['elf2dmp --version --verbose', 'show what a bug report should have'],
    ],
  },
  completion: {
    usage: [`completion ${SHELLS.join('|')}`],
    summary: 'Prints a completion script for a shell.',
    arguments: [{ name: 'SHELL', kind: 'choice', choices: SHELLS, help: 'shell that sources the script' }],
    examples: [
      ['source <(elf2dmp completion bash)', 'enable completion in bash or, with zsh for bash, in zsh'],
      ['elf2dmp completion fish | source', 'enable completion in fish'],
    ],
  },
};

/** Their names, the conversion first. */
export const COMMAND_NAMES = Object.keys(COMMANDS) as readonly CommandName[];

/** Words that can't name an input as the first word. */
export const COMMAND_WORDS: ReadonlySet<string> = new Set([
  ...COMMAND_NAMES.filter((name) => name !== 'convert'),
  'help',
]);

/** A word that names a command. */
export const isCommandWord = (word: string | undefined): word is Exclude<CommandName, 'convert'> =>
  word !== undefined && word !== 'help' && COMMAND_WORDS.has(word);

/** `elf2dmp info` */
export const commandLine = (name: CommandName): string => (name === 'convert' ? 'elf2dmp' : `elf2dmp ${name}`);
