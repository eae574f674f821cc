/** Options of a conversion, for one dump and for a batch of them; also on what the input is, and where Windows is in it. */
import type { Options } from 'yargs';
import {
  COMPRESSIONS,
  CONTEXT_CHOICES,
  DUMP_TYPE_CHOICES,
  RAM_CHOICES,
  REFLINK_CHOICES,
  SPARSE_CHOICES,
} from '../choices.ts';
import { locateDescriptions, sourceDescriptions } from './input-options.ts';

export const CONVERSION_OPTIONS = {
  strict: {
    type: 'boolean',
    default: false,
    describe: 'write nothing when anything would be lost (exit 5)',
  },
  patch: {
    type: 'boolean',
    default: true,
    describe: "--no-patch leaves the guest's memory untouched: no decoded KDBG, no registers",
  },
  type: {
    choices: DUMP_TYPE_CHOICES,
    default: 'auto',
    describe:
      'auto: a full dump, or a bitmap dump if there are more than 42 runs; kernel: only what the kernel maps; active: only pages in use',
  },
  'drop-zero-pages': {
    type: 'boolean',
    default: false,
    describe: 'leave out pages of zeros (a bitmap dump); counts as a loss: a debugger takes them for missing',
  },
  compress: {
    choices: COMPRESSIONS,
    describe: 'compress the dump while it is written: --compress (gzip) or --compress=zstd',
  },
  sparse: {
    choices: SPARSE_CHOICES,
    default: 'auto',
    describe:
      "holes in OUTPUT: the input's stay holes (auto), long runs of zeros too (always), or everything is written",
  },
  reflink: {
    choices: REFLINK_CHOICES,
    default: 'never',
    describe: "share the input's blocks instead of copying (XFS, Btrfs); makes a bitmap dump",
  },
  ram: {
    choices: RAM_CHOICES,
    default: 'all',
    describe: 'all that the input holds, or only what Windows counts as RAM (no video memory, no firmware)',
  },
  context: {
    choices: CONTEXT_CHOICES,
    default: 'auto',
    describe:
      'registers in a crashed guest: as Windows captured them (auto: for the crashing processor), or as the CPUs had them',
  },
  verify: {
    type: 'boolean',
    default: false,
    describe: 'read the finished dump back and compare it with the input (exit 8 if it is not as it should be)',
  },
  ...sourceDescriptions("OUTPUT's"),
  ...locateDescriptions,
} as const satisfies Record<string, Options>;
