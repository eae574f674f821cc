/** The executable in one file starts here: it loads the command as bin/load.js does, from its assets. */
import { isAscii } from 'node:buffer';
import { wrap } from 'node:module';
import { dirname } from 'node:path';
import { getRawAsset } from 'node:sea';
import { Script } from 'node:vm';

// Before anything takes time: SIGUSR2 would end the process, and SIGUSR1 too, since no debugger listens to it.
for (const signal of ['SIGUSR1', 'SIGUSR2'] as const) process.on(signal, () => undefined);

type Main = (argv: readonly string[]) => Promise<void>;

/** Compiled code that the build left; undefined in the executable for another machine than the build's. */
function compiled(): Uint8Array | undefined {
  try {
    return new Uint8Array(getRawAsset('compiled') as ArrayBuffer);
  } catch {
    return undefined;
  }
}

const file = process.execPath;
const bytes = Buffer.from(getRawAsset('elf2dmp.cjs') as ArrayBuffer);
const source = bytes.toString(isAscii(bytes) ? 'latin1' : 'utf8');
const script = new Script(wrap(source), { filename: file, cachedData: compiled() });
const loaded = { exports: {} as { main: Main } };
script.runInThisContext()(loaded.exports, require, loaded, file, dirname(file));
void loaded.exports.main(process.argv.slice(2));
