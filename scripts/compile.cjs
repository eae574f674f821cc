// The command's compiled code, for the engine that runs this: that of what conversions, `info` and the quick commands use.
const { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } = require('node:fs');
const { join } = require('node:path');
const { gunzipSync } = require('node:zlib');
const { compile, compiledFile, read, run } = require('../bin/load.js');

const root = join(__dirname, '..');
const bundle = join(root, 'bundle', 'main.cjs');
const source = read(bundle);
const script = compile(bundle, source);
const { main } = run(bundle, script);

/** Runs the command here, and keeps what it prints to itself. */
async function quietly(...args) {
  const { write } = process.stdout;
  process.stdout.write = () => true;
  try {
    await main(args);
  } finally {
    process.stdout.write = write;
  }
  if (process.exitCode !== 0) throw new Error(`elf2dmp ${args.join(' ')}: exit code ${process.exitCode}`);
  // Each run adds its own.
  for (const signal of ['SIGUSR1', 'SIGUSR2']) process.removeAllListeners(signal);
  for (const stream of [process.stdout, process.stderr]) stream.removeAllListeners('error');
}

async function make() {
  const dir = mkdtempSync(join(root, 'bundle', 'compile-'));
  try {
    const samples = readdirSync(join(root, 'samples')).filter((name) => name.endsWith('.elf.gz'));
    const [elf, dump] = [join(dir, 'vm.elf'), join(dir, 'vm.dmp')];
    await quietly('--version');
    await quietly('--help');
    // Each once: code that rests for long is dropped.
    for (const sample of samples) {
      writeFileSync(elf, gunzipSync(readFileSync(join(root, 'samples', sample))));
      rmSync(dump, { force: true });
      await quietly(elf, dump);
    }
    await quietly('-q', '--force', elf, dump);
    await quietly('info', elf);
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
  writeFileSync(compiledFile(bundle, source), script.createCachedData());
}

void make();
