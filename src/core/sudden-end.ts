/** Signals that the command listens to. None in the library: there they are its host's. */
export const LISTENED_SIGNALS: NodeJS.Signals[] = [];

/** What has to be done, without waiting, before the process is ended by a second signal. */
export const ON_SUDDEN_END = new Set<() => void>();
