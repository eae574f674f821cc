/** The shape of one option's declaration. */

/** What can be given an option: a command, or a way to convert that has options of its own. */
export type Command = 'convert' | 'in-place' | 'undo' | 'batch' | 'info' | 'verify' | 'stack' | 'completion';

/** Functions of the library that take options. */
export type Call = 'convert' | 'convertInPlace' | 'undoInPlace' | 'inspect' | 'stacks' | 'verify' | 'open' | 'locate';

/** Headings that group the options in the help. */
export type Group = 'Output' | 'Input' | 'Windows' | 'Checks and reports' | 'Batch' | 'Messages';

interface AnyOption {
  /** What it does, for the help: a phrase without a full stop. For a flag that is on by default, what `--no-…` does. */
  help: string;
  /** Where a command needs other words. */
  helpFor?: Partial<Record<Command, string>>;
  group: Group;
  /** One letter. */
  alias?: string;
  /** Empty: only the library has it. */
  commands: readonly Command[];
  /** Library functions that take it. */
  calls: readonly Call[];
  /** Its name in the library, where that is not the name in camel case. */
  library?: string;
  /** Where a batch's configuration has it: at the top, or in the tables of a conversion's options. */
  toml?: 'batch' | 'options';
  /** What it can't be combined with. */
  conflicts?: readonly Conflict[];
  /** An option that has to be there too, for the commands and calls that have that one. */
  needs?: string;
}

/** Another option, with any value but its default or only with these. */
export interface Conflict {
  with: string;
  values?: readonly string[];
}

export interface FlagOption extends AnyOption {
  kind: 'flag';
  default?: boolean;
}

export interface ChoiceOption extends AnyOption {
  kind: 'choice';
  choices: readonly string[];
  default?: string;
  /** What the option means without a value; else it needs one. */
  bare?: string;
}

export interface TextOption extends AnyOption {
  /**
   * A path, text, a hexadecimal address (`physical`: a number, `virtual`: a bigint), or the ranges of raw memory.
   */
  kind: 'file' | 'directory' | 'text' | 'physical' | 'virtual' | 'ranges';
  /** For the help, where the kind does not say it. */
  metavar?: string;
}

export interface CountOption extends AnyOption {
  kind: 'count';
  least: number;
  most: number;
}

/** One option, wherever it can be given. */
export type OptionRow = FlagOption | ChoiceOption | TextOption | CountOption;
