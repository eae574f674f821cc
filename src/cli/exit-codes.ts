/** Exit codes are part of the interface: documented in --help and the README, never changed. */
import type { ErrorKind } from '../core/errors.ts';

export const EXIT = {
  good: 0,
  internal: 1,
  usage: 2,
  losses: 3,
  unsupported: 4,
  corrupt: 5,
  ioPermanent: 6,
  ioTransient: 7,
  differs: 8,
} as const;

export const EXIT_OF_KIND: Record<ErrorKind, number> = {
  usage: EXIT.usage,
  unsupported: EXIT.unsupported,
  corrupt: EXIT.corrupt,
  'io-permanent': EXIT.ioPermanent,
  'io-transient': EXIT.ioTransient,
  // --strict: with losses the dump is not good enough.
  losses: EXIT.corrupt,
  // The signal decides, see main.ts.
  aborted: EXIT.internal,
};

export const EXIT_CODE_HELP = `Exit codes:
    0  done: the dump was written and nothing was lost; verify: it is sound
    1  internal error: a bug in elf2dmp
    2  wrong arguments
    3  the dump was written, with losses (each is listed)
    4  not a dump that elf2dmp supports, or not Windows
    5  the input is corrupt or truncated; with --strict also: there would be losses
    6  input or output that will not work when tried again (missing, denied, exists)
    7  input or output that may work when tried again (disk full, I/O error)
    8  verify, --verify: the dump is unsound, or differs from its input
  129, 130, 143  ended by SIGHUP, SIGINT, SIGTERM; nothing is left behind`;
