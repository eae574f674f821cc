/** Set-up of the unit ring: whatever starts a process fails, and says where such a test belongs. */
import childProcess from 'node:child_process';
import { syncBuiltinESMExports } from 'node:module';

const refuse = (command: string): never => {
  throw new Error(`a unit test starts a process (${command}): list its file in test/rings.ts under cli or outer`);
};
for (const name of ['spawn', 'spawnSync', 'exec', 'execSync', 'execFile', 'execFileSync', 'fork'] as const) {
  Object.assign(childProcess, { [name]: refuse });
}
syncBuiltinESMExports();
