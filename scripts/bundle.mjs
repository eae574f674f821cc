// How command and library are bundled; a test asks what the command's start loads.
import { root } from './setup.mjs';

/** @type {import('esbuild').BuildOptions & { metafile: true }} */
export const bundleOptions = {
  absWorkingDir: root,
  entryPoints: {
    main: 'src/cli/main.ts',
    // Started by its name, beside the code that starts it.
    'page-worker': 'src/readers/kdump/page-worker.ts',
  },
  bundle: true,
  splitting: true,
  format: 'esm',
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
  // What is CommonJS in there asks for Node's own modules.
  banner: {
    js: "import { createRequire as $createRequire } from 'node:module'; const require = $createRequire(import.meta.url);",
  },
  logLevel: 'warning',
};

/**
 * The library in one piece, so that the package needs no other. Apart from the command, whose start would load more
 * and smaller files if they shared some.
 *
 * @type {import('esbuild').BuildOptions & { metafile: true }}
 */
export const libraryOptions = {
  ...bundleOptions,
  entryPoints: { index: 'src/index.ts' },
  splitting: false,
};
