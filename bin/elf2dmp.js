#!/usr/bin/env node
'use strict';
// CommonJS: Node starts it sooner than a module.
const { existsSync } = require('node:fs');
const { join } = require('node:path');

// Node would open its debugger at SIGUSR1, in a process that holds a guest's memory, and end at SIGUSR2.
for (const signal of ['SIGUSR1', 'SIGUSR2']) process.on(signal, () => undefined);
keepDebuggerShut();

const [major, minor] = process.versions.node.split('.').map(Number);
if (major < 20 || (major === 20 && minor < 19)) {
  console.error(`elf2dmp needs Node.js 20.19 or later; this is ${process.version}`);
  process.exit(2);
}
const bundle = join(__dirname, '..', 'bundle', 'main.cjs');
if (!existsSync(bundle)) {
  console.error('elf2dmp is not built: run `npm run build` in its folder, which installs what it needs');
  process.exit(2);
}
try {
  require('./load.js').load(bundle).main(process.argv.slice(2)).catch(cannotStart);
} catch (error) {
  cannotStart(error);
}

/**
 * Before the first line SIGUSR1 has Node open the debugger, and open it again from its event loop, both a moment later:
 * it is closed each time, unless whoever started this wants it.
 */
function keepDebuggerShut() {
  if ([...process.execArgv, process.env.NODE_OPTIONS].some((word) => /--inspect(?!-p)/.test(word))) return;
  const close = () => process._debugEnd?.();
  close();
  setImmediate(close);
  for (const ms of [20, 200, 2000]) setTimeout(close, ms).unref();
}

/** Node could not even load the command: too few open files (`ulimit -n`) or too little memory. */
function cannotStart(error) {
  if (!['EMFILE', 'ENFILE', 'ENOMEM'].includes(error.code) && !(error instanceof RangeError)) throw error;
  console.error(`elf2dmp: cannot start: ${error.message}`);
  console.error('  hint: raise the limit (`ulimit -n`, `ulimit -v`), or free memory; then run it again');
  process.exit(7);
}
