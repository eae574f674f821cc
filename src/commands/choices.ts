/** Values of a conversion's options, apart from the work: the command line needs them at every start. */
export const CONTEXT_CHOICES = ['auto', 'cpu', 'captured'] as const;
export type ContextChoice = (typeof CONTEXT_CHOICES)[number];

export const DUMP_TYPE_CHOICES = ['auto', 'full', 'bitmap', 'kernel', 'active'] as const;
export type DumpTypeChoice = (typeof DUMP_TYPE_CHOICES)[number];

export const REFLINK_CHOICES = ['never', 'auto', 'always'] as const;
export type ReflinkChoice = (typeof REFLINK_CHOICES)[number];

export const RAM_CHOICES = ['all', 'windows'] as const;
export type RamChoice = (typeof RAM_CHOICES)[number];
