/** What the executable in one file runs (start.ts): as bin/elf2dmp.js. */
export { main } from '../../src/cli/main.ts';
