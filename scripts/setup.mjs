// Installs and builds what is missing or older than its sources, so that `npm run demo` and
// `npm test` work on a clean clone. Plain JavaScript: it runs before anything is installed.
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = dirname(dirname(fileURLToPath(import.meta.url)));

/** Runs a command in the project's root and ends this process with its code if it fails. */
export function run(command, args, options = {}) {
  const { status, error, signal } = spawnSync(command, args, { cwd: root, stdio: 'inherit', ...options });
  if (error) throw error;
  if (status !== 0) process.exit(status ?? (signal ? 1 : 0));
}

function newest(path) {
  const stat = statSync(path);
  if (!stat.isDirectory()) return stat.mtimeMs;
  return Math.max(0, ...readdirSync(path).map((name) => newest(join(path, name))));
}

/** Whether npm installed what the lock file names: times say nothing in a checkout that shares its node_modules. */
function hasPackages() {
  const packagesOf = (...path) => JSON.parse(readFileSync(join(root, ...path), 'utf8')).packages;
  if (!existsSync(join(root, 'node_modules', '.package-lock.json'))) return false;
  const installed = packagesOf('node_modules', '.package-lock.json');
  return Object.entries(packagesOf('package-lock.json')).every(
    ([name, { version, optional }]) =>
      name === '' || (installed[name] ? installed[name].version === version : optional),
  );
}

export function ensureInstalled() {
  if (hasPackages()) return;
  console.error('installing npm packages …');
  // stdout belongs to whoever called us.
  run('npm', ['ci', '--no-audit', '--no-fund'], { stdio: ['ignore', 2, 2] });
}

/** When a source of dist/ and bundle/ last changed, in ms. */
export function newestSource() {
  const others = ['package.json', 'package-lock.json', 'tsconfig.json', 'tsconfig.build.json', 'bin/load.js'];
  const scripts = ['build.mjs', 'bundle.mjs', 'compile.cjs'].map((name) => join('scripts', name));
  return Math.max(...['src', ...others, ...scripts].map((path) => newest(join(root, path))));
}

export function ensureBuilt() {
  // What is made last.
  const entry = join(root, 'bundle', 'LICENSES.txt');
  if (existsSync(entry) && statSync(entry).mtimeMs >= newestSource()) return;
  console.error('building …');
  run(process.execPath, [join(root, 'scripts', 'build.mjs')], { stdio: ['ignore', 2, 2] });
}
