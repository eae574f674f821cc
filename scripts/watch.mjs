// `npm run watch`: rebuilds bundle/, the command in one piece, at each change of a source. Types, dist/ and the manual
// page are `npm run build`'s; the tests build what is stale by themselves.
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { context } from 'esbuild';
import { bundleOptions } from './bundle.mjs';
import { ensureBuilt, root } from './setup.mjs';

// All of it once, so that what the watch does not make is there too.
ensureBuilt();
const outdir = join(root, 'bundle');
const told = {
  name: 'told',
  setup(build) {
    build.onEnd(({ errors }) => {
      const time = new Date().toLocaleTimeString();
      if (errors.length === 0) console.error(`${time} bundle/ is fresh (${readdirSync(outdir).length} files)`);
      else console.error(`${time} not built: ${errors.length} errors; bundle/ is as it was`);
    });
  },
};
const watched = await context({ ...bundleOptions, outdir, plugins: [told] });
await watched.watch();
