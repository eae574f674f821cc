/** As dd and qemu-img users expect: these print how far a run is, and never end it. */
export const STATUS_SIGNALS = ['SIGUSR1', 'SIGUSR2'] as const;
