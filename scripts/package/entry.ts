/** What the executable in one file runs (start.ts): as bin/elf2dmp.js. */
export { main } from '../../src/cli/main.ts';

// Node would open its debugger at SIGUSR1, in a process that holds a guest's memory, and end at SIGUSR2.
for (const signal of ['SIGUSR1', 'SIGUSR2'] as const) process.on(signal, () => undefined);
