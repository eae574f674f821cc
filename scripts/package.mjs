// `npm run package [-- x64|arm64 ...]`: what a release has, in out/package: the npm package, for each machine an
// executable in one file (Node.js' own, with the command in it) and a Debian package of it, and SHA256SUMS.
// Needs Linux, and dpkg-deb and fakeroot for the Debian packages.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { chmodSync, copyFileSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { bundleOptions } from './bundle.mjs';
import { debianPackage } from './package/debian.mjs';
import { fetchPackage } from './package/fetch.mjs';
import { ensureBuilt, ensureInstalled, root } from './setup.mjs';

/** npm's builds of Node.js. */
const NODE = '24.21.0';
/** What Debian calls each machine. */
const MACHINES = { x64: 'amd64', arm64: 'arm64' };

const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
const out = join(root, 'out', 'package');
const work = join(out, 'work');

/** @returns what it printed */
function run(command, args, options = {}) {
  const { status, error, stdout } = spawnSync(command, args, {
    cwd: root,
    stdio: ['ignore', 'pipe', 'inherit'],
    encoding: 'utf8',
    ...options,
  });
  if (error) throw error;
  if (status !== 0) throw new Error(`${command} ${args.join(' ')}: exit code ${status}`);
  return stdout;
}

const nodeFor = (machine) => fetchPackage(`node-linux-${machine}@${NODE}`);

/** The command as one CommonJS file, which is what such an executable runs, and its worker. */
async function bundle() {
  const { build } = await import('esbuild');
  const own = (file) => join(root, 'scripts', 'package', file);
  const { external: _, sourcemap: __, entryPoints: ___, ...common } = bundleOptions;
  const options = {
    ...common,
    format: 'cjs',
    outExtension: { '.js': '.cjs' },
    outdir: work,
    target: 'node24',
    define: { ELF2DMP_VERSION: JSON.stringify(version), 'import.meta.url': 'ELF2DMP_URL' },
    // For packages that make a `require` of it.
    banner: { js: "const ELF2DMP_URL = require('node:url').pathToFileURL(process.execPath).href;" },
    plugins: [
      {
        name: 'parts of the executable',
        setup(build) {
          build.onResolve({ filter: /^koffi$/ }, () => ({ path: own('koffi.ts') }));
          build.onLoad({ filter: /\/src\/(version|readers\/kdump\/start-worker)\.ts$/ }, ({ path }) => ({
            contents: readFileSync(own(basename(path)), 'utf8'),
            loader: 'ts',
          }));
        },
      },
    ],
  };
  await build({
    ...options,
    entryPoints: {
      start: own('start.ts'),
      elf2dmp: own('entry.ts'),
      'page-worker': 'src/readers/kdump/page-worker.ts',
    },
  });
  // By the Node.js that will run it.
  run(join(nodeFor(process.arch), 'bin', 'node'), [
    join(root, 'scripts', 'compile.cjs'),
    join(work, 'elf2dmp.cjs'),
    join(work, 'compiled'),
  ]);
}

/** @returns the executable */
function executable(machine) {
  const node = join(nodeFor(machine), 'bin', 'node');
  const { packages } = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8'));
  const name = `@koromix/koffi-linux-${machine}`;
  const { version: koffi, integrity } = packages[`node_modules/${name}`];
  const native = join(fetchPackage(`${name}@${koffi}`, integrity), `linux_${machine}`, 'koffi.node');
  const config = join(work, `${machine}.json`);
  const blob = join(work, `${machine}.blob`);
  const assets = Object.fromEntries(['elf2dmp.cjs', 'page-worker.cjs'].map((asset) => [asset, join(work, asset)]));
  // Compiled code is this machine's only: the other one's is compiled when it starts.
  if (machine === process.arch) assets.compiled = join(work, 'compiled');
  writeFileSync(
    config,
    JSON.stringify({
      main: join(work, 'start.cjs'),
      output: blob,
      disableExperimentalSEAWarning: true,
      execArgv: ['--disable-sigusr1'],
      assets: { ...assets, 'koffi.node': native },
    }),
  );
  // By the Node.js that will run it.
  run(join(nodeFor(process.arch), 'bin', 'node'), ['--experimental-sea-config', config], {
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  const file = join(out, `elf2dmp-${version}-linux-${machine}`);
  copyFileSync(node, file);
  chmodSync(file, 0o755);
  strip(file, machine);
  run(process.execPath, [
    join(root, 'node_modules', 'postject', 'dist', 'cli.js'),
    file,
    'NODE_SEA_BLOB',
    blob,
    '--sentinel-fuse',
    'NODE_SEA_FUSE_fce680ab2cc467b6e072b8b5df1996b2',
  ]);
  return file;
}

/** Symbols take 12 MB; without a program that knows the machine they stay. */
function strip(file, machine) {
  for (const program of machine === process.arch ? ['strip', 'llvm-strip'] : ['llvm-strip']) {
    if (spawnSync(program, ['--strip-unneeded', file], { stdio: 'ignore' }).status === 0) return;
  }
}

const machines = process.argv.length > 2 ? process.argv.slice(2) : Object.keys(MACHINES);
for (const machine of machines) if (!(machine in MACHINES)) throw new Error(`no machine is called ${machine}`);
rmSync(out, { recursive: true, force: true });
mkdirSync(work, { recursive: true });
// Not built again where it is new: tests use it meanwhile.
ensureInstalled();
ensureBuilt();
run('npm', ['pack', '--silent', '--ignore-scripts', '--pack-destination', out]);
await bundle();
for (const machine of machines) {
  const file = executable(machine);
  const nodeLicence = readFileSync(join(nodeFor(machine), 'LICENSE'), 'utf8');
  await debianPackage({ out, work, version, executable: file, architecture: MACHINES[machine], nodeLicence });
}
rmSync(work, { recursive: true });
const files = readdirSync(out).sort();
const sums = files.map(
  (name) =>
    `${createHash('sha256')
      .update(readFileSync(join(out, name)))
      .digest('hex')}  ${name}\n`,
);
writeFileSync(join(out, 'SHA256SUMS'), sums.join(''));
process.stdout.write(sums.join(''));
