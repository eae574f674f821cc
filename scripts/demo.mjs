// `npm run demo`: the main job on the samples. Installs and builds what is missing.
import { spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { ensureBuilt, ensureInstalled, root } from './setup.mjs';

ensureInstalled();
ensureBuilt();
const out = join(root, 'out', 'demo');
mkdirSync(out, { recursive: true });
const show = (path) => relative(process.cwd(), path) || path;
let worst = 0;
for (const sample of readdirSync(join(root, 'samples')).filter((name) => name.endsWith('.elf.gz'))) {
  const elf = join(out, sample.replace(/\.gz$/, ''));
  const dmp = elf.replace(/\.elf$/, '.dmp');
  writeFileSync(elf, gunzipSync(readFileSync(join(root, 'samples', sample))));
  console.log(`\n$ elf2dmp --force ${show(elf)} ${show(dmp)}`);
  const { status } = spawnSync(process.execPath, [join(root, 'bin', 'elf2dmp.js'), '--force', show(elf), show(dmp)], {
    stdio: 'inherit',
  });
  worst = Math.max(worst, status ?? 1);
}
if (worst === 0)
  console.log(`\nThe .dmp files in ${show(out)} open in WinDbg: File > Open dump file, or windbg -z FILE.`);
process.exit(worst);
