/** Exit codes are part of the interface: documented in --help and the README, never changed. */
import type { ErrorKind } from './errors.ts';

/** Exit codes by what they mean. */
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
  newCrash: 9,
} as const;

/** The exit code for each kind of error. */
export const EXIT_OF_KIND: Record<ErrorKind, number> = {
  usage: EXIT.usage,
  unsupported: EXIT.unsupported,
  corrupt: EXIT.corrupt,
  'io-permanent': EXIT.ioPermanent,
  'io-transient': EXIT.ioTransient,
  // --strict treats a loss as a corrupt input.
  losses: EXIT.corrupt,
  // Unless a signal ended the run: see main.ts.
  aborted: EXIT.internal,
};

/** For the help and the manual page. */
export const EXIT_CODE_HELP = `Exit codes:
    0  success: nothing was lost; verify: the dump is sound
    1  internal error: a bug in elf2dmp
    2  wrong arguments
    3  the dump was written, but something was lost (stderr lists it)
    4  unsupported: another kind of file, or a guest other than Windows
    5  the input is corrupt or truncated; with --strict, something would be lost
    6  permanent input or output error (missing, denied, exists)
    7  transient input or output error: retrying may help (disk full, I/O error)
    8  verify, --verify: the dump is unsound or differs from its input
    9  batch --fail-on-new: a crash that --known does not list
  129, 130, 131, 143  ended by SIGHUP, SIGINT, SIGQUIT, SIGTERM; nothing is left behind`;
