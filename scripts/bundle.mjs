// How command and library are bundled; a test asks what the command's start runs.
import { isAscii } from 'node:buffer';
import { createHash } from 'node:crypto';
import { appendFileSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { root } from './setup.mjs';

/** @type {import('esbuild').BuildOptions & { metafile: true }} */
const common = {
  absWorkingDir: root,
  bundle: true,
  platform: 'node',
  target: 'node20.19',
  // Half the time to parse; names in stack traces stay.
  minify: true,
  keepNames: true,
  sourcemap: 'linked',
  sourcesContent: false,
  legalComments: 'none',
  metafile: true,
  // Help is plain ASCII; what measures other text takes some 30 ms to load, three times over.
  alias: { 'string-width': './scripts/ascii-width.mjs' },
  // A native module, and one that may be missing.
  external: ['koffi'],
  logLevel: 'warning',
};

/** Ends the bundle with a line that names its contents: bin/load.js takes compiled code for them alone. */
const namesItsContents = {
  name: 'names its contents',
  setup(build) {
    const { write, outdir } = build.initialOptions;
    build.onEnd(({ errors }) => {
      if (errors.length > 0 || write === false) return;
      const file = join(outdir, 'main.cjs');
      // esbuild escapes what is not, but for the texts of tagged templates.
      if (!isAscii(readFileSync(file))) throw new Error(`${file} is not ASCII: write \\u2026 for … in html texts`);
      appendFileSync(file, `//${createHash('sha256').update(readFileSync(file)).digest('hex')}\n`);
    });
  },
};

/**
 * The command in one piece, as CommonJS, whose compiled code can be kept (bin/load.js). What comes by import() is in it
 * and runs only then.
 *
 * @type {import('esbuild').BuildOptions & { metafile: true }}
 */
export const bundleOptions = {
  ...common,
  entryPoints: { main: 'src/cli/main.ts' },
  format: 'cjs',
  outExtension: { '.js': '.cjs' },
  // A script has no import() of its own.
  supported: { 'dynamic-import': false },
  define: { 'import.meta.url': 'BUNDLE_URL' },
  banner: { js: "const BUNDLE_URL = require('node:url').pathToFileURL(__filename).href;" },
  plugins: [namesItsContents],
};

/**
 * The library in one piece, so that the package needs no other, and the worker that command and library start by its
 * name, beside themselves.
 *
 * @type {import('esbuild').BuildOptions & { metafile: true }}
 */
export const libraryOptions = {
  ...common,
  entryPoints: { index: 'src/index.ts', 'page-worker': 'src/readers/kdump/page-worker.ts' },
  format: 'esm',
  // What is CommonJS in there asks for Node's own modules.
  banner: {
    js: "import { createRequire as $createRequire } from 'node:module'; const require = $createRequire(import.meta.url);",
  },
};
