import { isAscii } from 'node:buffer';
import { spawnSync } from 'node:child_process';
import {
  copyFileSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Script } from 'node:vm';
import { type BuildOptions, build } from 'esbuild';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
// @ts-expect-error: plain JavaScript, it runs before anything is installed
import { bundleOptions } from '../../scripts/bundle.mjs';
import { VERSION } from '../../src/version.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));

interface Loader {
  read(file: string): string;
  compile(file: string, source: string, compiled?: Buffer): Script;
  compiledFile(file: string, source: string): string;
}
const loader = createRequire(import.meta.url)('../../bin/load.js') as Loader;

describe('the bundled command', () => {
  it('runs at its start the command line only: the work comes by import()', async () => {
    const { metafile } = await build<BuildOptions & { metafile: true; write: false }>({
      ...bundleOptions,
      metafile: true,
      write: false,
      outdir: 'bundle',
    });
    const run = new Set<string>();
    const follow = (file: string) => {
      if (run.has(file)) return;
      run.add(file);
      for (const { path, kind } of metafile.inputs[file]?.imports ?? []) if (kind === 'import-statement') follow(path);
    };
    follow('src/cli/main.ts');
    const ours = [...run].filter((path) => path.startsWith('src/'));
    expect(ours).toContain('src/cli/arguments.ts');
    expect(ours.filter((path) => !/^src\/(cli|core|options)\/|^src\/version\.ts$/.test(path))).toEqual([]);
    expect(run.has('koffi')).toBe(false);
  });

  it('lies beside the worker that it starts', () => {
    expect(loader.read(join(ROOT, 'bundle', 'main.cjs'))).toContain('new URL("./page-worker.js",BUNDLE_URL)');
    expect(readdirSync(join(ROOT, 'bundle'))).toContain('page-worker.js');
  });
});

describe('its compiled code', () => {
  const bundle = join(ROOT, 'bundle', 'main.cjs');
  let dir: string;
  /** The command in a copy of its package. */
  const version = (...node: string[]) => {
    const { status, stdout, stderr } = spawnSync(
      process.execPath,
      [...node, join(dir, 'bin', 'elf2dmp.js'), '--version'],
      {
        encoding: 'utf8',
      },
    );
    return { status, stdout, stderr };
  };
  const works = { status: 0, stdout: `${VERSION}\n`, stderr: '' };

  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'elf2dmp-bundle-'));
    mkdirSync(join(dir, 'bundle'));
    cpSync(join(ROOT, 'bin'), join(dir, 'bin'), { recursive: true });
    copyFileSync(join(ROOT, 'package.json'), join(dir, 'package.json'));
    symlinkSync(join(ROOT, 'node_modules'), join(dir, 'node_modules'));
    copyFileSync(bundle, join(dir, 'bundle', 'main.cjs'));
  });
  afterEach(() => rmSync(dir, { recursive: true }));

  it('is there for the engine that built it, which takes it, and is of all that a conversion runs', () => {
    const source = loader.read(bundle);
    const compiled = readFileSync(loader.compiledFile(bundle, source));
    expect(loader.compile(bundle, source, compiled).cachedDataRejected).toBe(false);
    // 1.4 MB; where garbage was collected meanwhile 0.9.
    expect(compiled.length).toBeGreaterThan(1.2 * 2 ** 20);
  });

  it('is not taken for a bundle with other contents', () => {
    const source = loader.read(bundle);
    const changed = source.replace(/\/\/[0-9a-f]{64}\n$/, `//${'0'.repeat(64)}\n`);
    expect(changed).not.toBe(source);
    expect(loader.compiledFile(bundle, changed)).not.toBe(loader.compiledFile(bundle, source));
  });

  it('is of a text of ASCII, and of any other as it is', () => {
    expect(isAscii(readFileSync(bundle))).toBe(true);
    for (const text of ['// as it is', '// a dash – and dots …', '// ·']) {
      writeFileSync(join(dir, 'text.cjs'), text);
      expect(loader.read(join(dir, 'text.cjs'))).toBe(text);
    }
  });

  it('can be missing, damaged, or made by an engine with other settings', () => {
    expect(version()).toEqual(works);
    const own = join(dir, 'bundle', 'main.cjs');
    const compiled = loader.compiledFile(own, loader.read(own));
    for (const bytes of [Buffer.alloc(0), Buffer.from('no compiled code'), Buffer.alloc(100_000)]) {
      writeFileSync(compiled, bytes);
      expect(version()).toEqual(works);
    }
    copyFileSync(loader.compiledFile(bundle, loader.read(bundle)), compiled);
    expect(version()).toEqual(works);
    expect(version('--no-lazy')).toEqual(works);
    expect(version('--enable-source-maps')).toEqual(works);
  });
});
