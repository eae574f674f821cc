/** What has to be done, without waiting, before the process is ended by a second signal. */
export const ON_SUDDEN_END = new Set<() => void>();
