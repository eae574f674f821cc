/** The documents that elf2dmp prints as JSON. The number changes when a key goes or changes its meaning (docs/json.md). */
export const SCHEMA = {
  convert: 'elf2dmp-convert-1',
  info: 'elf2dmp-info-1',
  stack: 'elf2dmp-stack-1',
  verify: 'elf2dmp-verify-1',
  undo: 'elf2dmp-undo-1',
  batch: 'elf2dmp-batch-1',
  doctor: 'elf2dmp-doctor-1',
  'batch-summary': 'elf2dmp-batch-summary-1',
  error: 'elf2dmp-error-1',
  patches: 'elf2dmp-patches-1',
} as const;
