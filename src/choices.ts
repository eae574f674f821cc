/** Values of options, apart from the work: the command line needs them at every start. */
export const CONTEXT_CHOICES = ['auto', 'cpu', 'captured'] as const;
export type ContextChoice = (typeof CONTEXT_CHOICES)[number];

export const DUMP_TYPE_CHOICES = ['auto', 'full', 'bitmap', 'kernel', 'active'] as const;
export type DumpTypeChoice = (typeof DUMP_TYPE_CHOICES)[number];

export const REFLINK_CHOICES = ['never', 'auto', 'always'] as const;
export type ReflinkChoice = (typeof REFLINK_CHOICES)[number];

export const RAM_CHOICES = ['all', 'windows'] as const;
export type RamChoice = (typeof RAM_CHOICES)[number];

export const SPARSE_CHOICES = ['auto', 'always', 'never'] as const;

/** `auto`: the input's holes stay holes; `always`: long runs of zeros become holes too; `never`: everything is written. */
export type SparseChoice = (typeof SPARSE_CHOICES)[number];

export const COMPRESSIONS = ['gzip', 'zstd'] as const;
export type Compression = (typeof COMPRESSIONS)[number];

export const FORMAT_CHOICES = ['auto', 'raw'] as const;
export type FormatChoice = (typeof FORMAT_CHOICES)[number];

/** As a path: what comes on standard input. */
export const STANDARD_INPUT = '-';
