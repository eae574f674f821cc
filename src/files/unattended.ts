/**
 * Lets signals end the process while a computation keeps Node from taking them. Their actions are changed below Node, which
 * would lose one that it has noted already.
 */
import { constants } from 'node:os';
import { LISTENED_SIGNALS, ON_SUDDEN_END } from '../core/sudden-end.ts';
import { loadLibc } from './libc.ts';

/** More than `struct sigaction` takes anywhere. All zeros, it is SIG_DFL without mask and flags. */
const ACTION_SIZE = 512;
const DEFAULT_ACTION = Buffer.alloc(ACTION_SIZE);

let sigaction: ((signal: number, action: Buffer, former: Buffer | null) => number) | undefined;

/** To be called before `unattended`, which otherwise changes nothing. */
export async function prepareUnattended(): Promise<void> {
  if (LISTENED_SIGNALS.length === 0 || sigaction) return;
  const libc = await loadLibc();
  if (typeof libc === 'string') return;
  sigaction = libc.library.func('int sigaction(int signal, const uint8_t *action, _Out_ uint8_t *former)');
}

/** Runs a long computation. A signal that comes meanwhile ends the process at once, unless something has to be removed first. */
export function unattended<T>(work: () => T): T {
  const change = sigaction;
  if (!change || ON_SUDDEN_END.size > 0) return work();
  const former = LISTENED_SIGNALS.map((name) => {
    const saved = Buffer.alloc(ACTION_SIZE);
    change(constants.signals[name], DEFAULT_ACTION, saved);
    return { name, saved };
  });
  try {
    return work();
  } finally {
    for (const { name, saved } of former) change(constants.signals[name], saved, null);
  }
}
