// Builds bundle/, command and library in one piece each (esbuild) with the command's compiled code, and dist/: the types, the manual pages, and the modules
// one by one, which tests use. Installs what it needs first, so that `npm pack` works on a clean clone.
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { bundleOptions, libraryOptions } from './bundle.mjs';
import { ensureInstalled, root, run } from './setup.mjs';

ensureInstalled();
const { build } = await import('esbuild');

rmSync(join(root, 'dist'), { recursive: true, force: true });
run(process.execPath, [join(root, 'node_modules', 'typescript', 'bin', 'tsc'), '-p', 'tsconfig.build.json']);

// Compilers before 5.7 know no arguments of Buffer; to later ones both are the same.
for (const name of readdirSync(join(root, 'dist'), { recursive: true })) {
  const file = join(root, 'dist', String(name));
  if (!file.endsWith('.d.ts')) continue;
  const text = readFileSync(file, 'utf8');
  const plain = text.replace(/\b(Buffer|Uint8Array)<ArrayBuffer(?:Like)?>/g, '$1');
  if (plain !== text) writeFileSync(file, plain);
}

const outdir = join(root, 'bundle');
rmSync(outdir, { recursive: true, force: true });
const command = await build({ ...bundleOptions, outdir });
const library = await build({ ...libraryOptions, outdir });
// A process of its own: what it compiles is what a run of the command needs.
run(process.execPath, [join(root, 'scripts', 'compile.cjs')]);

/** The licences of the packages that are in the bundle. */
function licences(inputs) {
  const packages = new Set(inputs.flatMap((path) => /node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(path)?.[1] ?? []));
  if (packages.size === 0) throw new Error('no package is in the bundle, which can not be');
  const texts = [...packages].sort().map((name) => {
    const folder = join(root, 'node_modules', name);
    const file = readdirSync(folder).find((entry) => /^licen[cs]e/i.test(entry));
    const { version, license } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
    const text = file && existsSync(join(folder, file)) ? readFileSync(join(folder, file), 'utf8').trim() : license;
    return `${name} ${version}\n\n${text}\n`;
  });
  return `Command and library hold code of these packages.\n\n${texts.join('\n----\n\n')}`;
}

const built = (file) => import(pathToFileURL(join(root, 'dist', 'cli', file)).href);
const { describeCommands } = await built('describe.js');
const { renderManuals } = await built('shell/manual.js');
mkdirSync(join(root, 'dist', 'man'));
for (const { file, text } of renderManuals(describeCommands())) writeFileSync(join(root, 'dist', 'man', file), text);

// Last: that it is there says that all was built.
writeFileSync(
  join(outdir, 'LICENSES.txt'),
  licences([...Object.keys(command.metafile.inputs), ...Object.keys(library.metafile.inputs)]),
);
