/** Values of options, apart from the work: the command line needs them at every start. */
export const SPARSE_CHOICES = ['auto', 'always', 'never'] as const;
/** `auto`: the input's holes stay holes; `always`: long runs of zeros become holes too; `never`: everything is written. */
export type SparseChoice = (typeof SPARSE_CHOICES)[number];

export const COMPRESSIONS = ['gzip', 'zstd'] as const;
export type Compression = (typeof COMPRESSIONS)[number];
