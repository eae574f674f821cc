import { dirname, resolve } from 'node:path';
import { type BuildOptions, build } from 'esbuild';
import { describe, expect, it } from 'vitest';
// @ts-expect-error: plain JavaScript, it runs before anything is installed
import { bundleOptions } from '../../scripts/bundle.mjs';

describe('the bundled command', () => {
  it('loads at its start the command line only: the work comes by import()', async () => {
    const { metafile, outputFiles } = await build<BuildOptions & { metafile: true; write: false }>({
      ...bundleOptions,
      metafile: true,
      write: false,
      outdir: 'bundle',
    });
    const { outputs } = metafile;
    const loaded = new Set<string>();
    const load = (file: string) => {
      if (loaded.has(file)) return;
      loaded.add(file);
      for (const { path, kind } of outputs[file]?.imports ?? []) if (kind === 'import-statement') load(path);
    };
    load('bundle/main.js');
    const sources = [...loaded].flatMap((file) => Object.keys(outputs[file]?.inputs ?? {}));
    const ours = sources.filter((path) => path.startsWith('src/'));
    expect(ours).toContain('src/cli/main.ts');
    expect(ours.filter((path) => !/^src\/(cli|core|options)\/|^src\/version\.ts$/.test(path))).toEqual([]);
    expect(loaded.has('koffi')).toBe(false);
    // The decoder's worker lies beside whichever file starts it.
    const starter = outputFiles.find(({ text }) => text.includes('new URL("./page-worker.js",import.meta.url)'));
    expect(starter && dirname(starter.path)).toBe(resolve('bundle'));
    expect(outputs['bundle/page-worker.js']).toBeDefined();
  });
});
