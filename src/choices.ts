/** Values of options, apart from the work: the command line needs them at every start. */
export const CONTEXT_CHOICES = ['auto', 'cpu', 'captured'] as const;

/** `captured`: what a crash left in memory; `cpu`: what the input says; `auto`: captured on a crashed guest. */
export type ContextChoice = (typeof CONTEXT_CHOICES)[number];

/** Choices of `--type`. */
export const DUMP_TYPE_CHOICES = ['auto', 'full', 'bitmap', 'kernel', 'active'] as const;

/**
 * `full` lists at most 42 runs; `bitmap` any number; `kernel` and `active` leave pages out; `auto`: full if the runs
 * fit.
 */
export type DumpTypeChoice = (typeof DUMP_TYPE_CHOICES)[number];

/** Choices of `--reflink`. */
export const REFLINK_CHOICES = ['never', 'auto', 'always'] as const;

/** Whether the dump shares the input's blocks: `auto` copies where it cannot, `always` fails. */
export type ReflinkChoice = (typeof REFLINK_CHOICES)[number];

/** Choices of `--ram`. */
export const RAM_CHOICES = ['all', 'windows'] as const;

/** `all`: every range in the input; `windows`: those that Windows lists as its RAM. */
export type RamChoice = (typeof RAM_CHOICES)[number];

/** Choices of `--sparse`. */
export const SPARSE_CHOICES = ['auto', 'always', 'never'] as const;

/** `auto`: the input's holes stay holes; `always`: long runs of zeros become holes too; `never`: everything is written. */
export type SparseChoice = (typeof SPARSE_CHOICES)[number];

/** Choices of `--compress`. */
export const COMPRESSIONS = ['gzip', 'zstd'] as const;

/** How the dump is compressed as it is written. */
export type Compression = (typeof COMPRESSIONS)[number];

/** Choices of `--format`. */
export const FORMAT_CHOICES = ['auto', 'raw'] as const;

/** `auto`: by the file's first bytes; `raw`: memory without any header. */
export type FormatChoice = (typeof FORMAT_CHOICES)[number];

/** As a path: what comes on standard input. */
export const STANDARD_INPUT = '-';
