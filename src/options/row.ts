/** The shape of one option's declaration. */

/** A command that takes options, or a way to convert that has a set of its own. */
export type Command = 'convert' | 'in-place' | 'undo' | 'batch' | 'info' | 'verify' | 'stack' | 'doctor' | 'completion';

/** Functions of the library that take options. */
export type Call =
  | 'convert'
  | 'convertInPlace'
  | 'undoInPlace'
  | 'inspect'
  | 'stacks'
  | 'verify'
  | 'openGuest'
  | 'open'
  | 'locate'
  | 'batch';

/** Headings that group the options in the help. */
export type Group = 'Output' | 'Input' | 'Windows' | 'Checks and reports' | 'Batch' | 'Messages';

interface AnyOption {
  /** For the help: a phrase without a full stop. If the flag is on by default, it describes `--no-…`. */
  help: string;
  /** Other words for some commands. */
  helpFor?: Partial<Record<Command, string>>;
  group: Group;
  /** One letter. */
  alias?: string;
  /** What `-` stands for; without it `-` is refused. */
  stream?: 'input' | 'output';
  /** The same for some commands. */
  streamFor?: Partial<Record<Command, 'input' | 'output'>>;
  /** What an earlier version called it, which is still understood. */
  former?: string;
  /** Empty: only the library has it. */
  commands: readonly Command[];
  /** Library functions that take it. */
  calls: readonly Call[];
  /** Its name in the library, where that is not the name in camel case. */
  library?: string;
  /** Its place in a batch's configuration: at the top, or among a conversion's options. */
  toml?: 'batch' | 'options';
  /** Options that exclude it. */
  conflicts?: readonly Conflict[];
  /** Another option that has to be given too, in commands and calls that have it. */
  needs?: string;
}

/** Another option, with any value but its default or only with these. */
export interface Conflict {
  with: string;
  values?: readonly string[];
}

/** On or off: `--name`, `--no-name`. */
export interface FlagOption extends AnyOption {
  kind: 'flag';
  default?: boolean;
}

/** One of some words. */
export interface ChoiceOption extends AnyOption {
  kind: 'choice';
  choices: readonly string[];
  default?: string;
  /** The value if none is given; otherwise the option needs one. */
  bare?: string;
}

/** A value written as text. */
export interface TextOption extends AnyOption {
  /**
   * A path, text, a hexadecimal address (`physical`: a number, `virtual`: a bigint), or the ranges of raw memory.
   */
  kind: 'file' | 'directory' | 'text' | 'physical' | 'virtual' | 'ranges';
  /** For the help, if the kind's own is too vague. */
  metavar?: string;
  /** What a shell completes where the kind does not say. */
  completes?: 'file';
}

/** A whole number. */
export interface CountOption extends AnyOption {
  kind: 'count';
  least: number;
  most: number;
}

/** One option, wherever it can be given. */
export type OptionRow = FlagOption | ChoiceOption | TextOption | CountOption;
