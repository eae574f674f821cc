import { constants } from 'node:os';

/** As dd and qemu-img users expect: these print how far a run is, and never end it. */
export const STATUS_SIGNALS = ['SIGUSR1', 'SIGUSR2'] as const;

/** A run that is over by then is none whose progress is asked for. */
const UNBLOCK_AFTER_MS = 300;

/**
 * With Node's option disable-sigusr1, which keeps its debugger shut from the first moment, Node leaves SIGUSR1 blocked:
 * the listener would never hear of it.
 */
export function hearStatusSignals(): void {
  const isBlocked = [...process.execArgv, process.env['NODE_OPTIONS']].some((word) =>
    word?.includes('disable-sigusr1'),
  );
  // A batch asks its processes itself how far they are.
  if (!isBlocked || process.channel) return;
  const unblock = async () => (await import('../files/libc.ts')).unblockSignal(constants.signals.SIGUSR1);
  setTimeout(() => void unblock(), UNBLOCK_AFTER_MS).unref();
}
