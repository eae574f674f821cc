// `compile.cjs [BUNDLE OUTPUT]`: the command's compiled code, for the engine that runs this: that of what conversions,
// `info` and the quick commands use.
const { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } = require('node:fs');
const { join } = require('node:path');
const v8 = require('node:v8');
const { gunzipSync } = require('node:zlib');
const { compile, compiledFile, read, run } = require('../bin/load.js');

// A collection of garbage would drop the code of what ran once, such as the bundle's own first lines.
v8.setFlagsFromString('--no-flush-bytecode');

const root = join(__dirname, '..');
const [bundle = join(root, 'bundle', 'main.cjs'), output] = process.argv.slice(2);
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
  // An engine takes only what one with its settings made.
  v8.setFlagsFromString('--flush-bytecode');
  writeFileSync(output ?? compiledFile(bundle, source), script.createCachedData());
}

void make();
