// Builds dist/, the library with its types (tsc) and the manual page, and bundle/, the command in one piece (esbuild),
// which starts faster.
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { build } from 'esbuild';
import { bundleOptions } from './bundle.mjs';
import { root, run } from './setup.mjs';

rmSync(join(root, 'dist'), { recursive: true, force: true });
run(process.execPath, [join(root, 'node_modules', 'typescript', 'bin', 'tsc'), '-p', 'tsconfig.build.json']);

const outdir = join(root, 'bundle');
rmSync(outdir, { recursive: true, force: true });
const { metafile } = await build({ ...bundleOptions, outdir });
writeFileSync(join(outdir, 'LICENSES.txt'), licences(Object.keys(metafile.inputs)));

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
  return `The command holds code of these packages.\n\n${texts.join('\n----\n\n')}`;
}

const built = (file) => import(pathToFileURL(join(root, 'dist', 'cli', file)).href);
const { commandHelp } = await built('arguments.js');
const { renderManual } = await built('shell/manual.js');
writeFileSync(join(root, 'dist', 'elf2dmp.1'), renderManual(await commandHelp()));
