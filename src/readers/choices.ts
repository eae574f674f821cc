/** Values of options, apart from the work: the command line needs them at every start. */
export const FORMAT_CHOICES = ['auto', 'raw'] as const;
export type FormatChoice = (typeof FORMAT_CHOICES)[number];

/** As a path: what comes on standard input. */
export const STANDARD_INPUT = '-';
