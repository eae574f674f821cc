// --symbols and --symbols-needed on the command line, and the recipe of docs/symbols.md.
import { spawn, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { InfoReport } from '../../src/report/input.ts';
import { writeElf } from '../guest/elf.ts';
import { buildGuest } from '../guest/guest.ts';
import { programsAvailable } from '../support/programs.ts';
import { makePdb } from '../symbols/pdb-file.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const BIN = join(ROOT, 'bin/elf2dmp.js');
let dir: string;
let kernel: NonNullable<NonNullable<InfoReport['windows']>['kernel']['pdb']>;
let pdb: Buffer;

const run = (args: readonly string[], env: NodeJS.ProcessEnv = {}) => {
  const { ELF2DMP_SYMBOL_PATH: _own, _NT_SYMBOL_PATH: _windows, ...rest } = process.env;
  return spawnSync(process.execPath, [BIN, ...args], { encoding: 'utf8', cwd: dir, env: { ...rest, ...env } });
};

beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'elf2dmp-cli-symbols-'));
  writeFileSync(join(dir, 'vm.elf'), writeElf(buildGuest({ processors: 1, ramMiB: 8 })));
  const info = JSON.parse(run(['info', '--json', 'vm.elf']).stdout) as InfoReport;
  kernel = info.windows!.kernel.pdb!;
  const at = Number(info.windows!.processors[0]!.at!.offset);
  // The processor waits 5 bytes into its function.
  pdb = makePdb({
    guid: kernel.guid,
    age: kernel.age,
    ids: ['HaltInline'],
    sections: [[0x1000, at + 0x1000]],
    modules: [
      {
        name: 'idle.obj',
        file: 'C:\\nt\\idle.c',
        inlinees: [[0x1000, 50]],
        functions: [
          {
            name: 'PoIdleReally',
            section: 1,
            offset: at - 0x1000 - 0x35,
            size: 0x100,
            lines: [[0, 11]],
            inlined: [{ inlinee: 0x1000, annotations: [3, 0x30, 4, 0x20] }],
          },
        ],
      },
    ],
  });
  for (const path of [join('store', kernel.symbolPath), 'flat/any.pdb']) {
    mkdirSync(dirname(join(dir, path)), { recursive: true });
    writeFileSync(join(dir, path), pdb);
  }
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const NAMED = /^ {3}0 0x[0-9a-f]{16} .* ntoskrnl\.exe!PoIdleReally\+0x35 \[C:\\nt\\idle\.c:11\]$/m;
const INLINED = /^ {5}\(inlined\) +ntoskrnl\.exe!HaltInline\+0x5 \[C:\\nt\\idle\.c:50\]$/m;

describe('elf2dmp stack', () => {
  it.each(['store', 'flat', 'flat/any.pdb', 'srv*store*https://symbols.example', 'flat;store'])(
    '--symbols %s',
    (path) => {
      const { status, stdout, stderr } = run(['stack', '--symbols', path, 'vm.elf']);
      expect([status, stderr]).toEqual([0, '']);
      expect(stdout).toMatch(
        /^Names are symbols; those marked \* are the nearest symbols or exports below each address\./,
      );
      expect(stdout).toMatch(NAMED);
      expect(stdout).toMatch(INLINED);
      expect(stdout).toMatch(/ ntoskrnl\.exe!\w+\+0x[0-9a-f]+ \*$/m);
    },
  );

  it('takes the path from the environment, as far as it is there', () => {
    const missing = `${join(dir, 'missing')};C:\\symbols`;
    expect(run(['stack', 'vm.elf'], { ELF2DMP_SYMBOL_PATH: `${missing};store` }).stdout).toMatch(NAMED);
    expect(run(['stack', 'vm.elf'], { _NT_SYMBOL_PATH: 'srv*store*https://symbols.example' }).stdout).toMatch(NAMED);
    const own = run(['stack', 'vm.elf'], { ELF2DMP_SYMBOL_PATH: missing, _NT_SYMBOL_PATH: 'store' });
    expect([own.status, own.stderr]).toEqual([0, '']);
    expect(own.stdout).toMatch(/^Names are the nearest exports below each address, not symbols\./);
    expect(own.stdout).not.toMatch(/PoIdleReally| \*$/m);
  });

  it('refuses a path that is not there, and reports PDBs of other builds', () => {
    const missing = run(['stack', '--symbols', 'missing', 'vm.elf']);
    expect([missing.status, missing.stdout]).toEqual([6, '']);
    expect(missing.stderr).toMatch(/missing: cannot look for symbols: no such file/);
    mkdirSync(join(dir, 'other'), { recursive: true });
    writeFileSync(join(dir, 'other', 'ntkrnlmp.pdb'), makePdb({ guid: kernel.guid, age: kernel.age + 1 }));
    const other = run(['stack', '--symbols', 'other', 'vm.elf']);
    expect(other.status).toBe(0);
    expect(other.stderr).toMatch(
      /other\/ntkrnlmp\.pdb: its GUID and age are [0-9A-F]{32}\d, the image's [0-9A-F]{32}\d/,
    );
  });
});

describe('elf2dmp info', () => {
  it('--symbols-needed prints what is not at hand', () => {
    const all = run(['info', '--symbols-needed', 'vm.elf']);
    expect([all.status, all.stderr]).toEqual([0, '']);
    expect(all.stdout.split('\n')).toEqual([
      kernel.symbolPath,
      expect.stringMatching(/^hal\.pdb\/[0-9A-F]+\/hal\.pdb$/),
      expect.stringMatching(/^demo\.pdb\/[0-9A-F]+\/demo\.pdb$/),
      '',
    ]);
    const rest = run(['info', '--symbols-needed', '--symbols', 'store', 'vm.elf']);
    expect(rest.stdout).toBe(all.stdout.replace(`${kernel.symbolPath}\n`, ''));
    expect(run(['info', '--symbols-needed', '--json', 'vm.elf']).status).toBe(2);
  });

  it('names the place of a processor', () => {
    const { stdout } = run(['info', '--symbols', 'store', 'vm.elf']);
    expect(stdout).toMatch(/^Processor 0: .*\(ntoskrnl\.exe\+0x[0-9a-f]+, PoIdleReally\+0x35\)/m);
  });

  it.skipIf(!programsAvailable({ curl: 'curl', xargs: 'findutils' }))('has a recipe that fills a store', async () => {
    const server = createServer(({ url }, response) => {
      const found = url === `/download/symbols/${kernel.symbolPath}`;
      response.writeHead(found ? 200 : 404).end(found ? pdb : '');
    });
    await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
    try {
      const address = server.address();
      const port = typeof address === 'object' ? address?.port : undefined;
      const document = readFileSync(join(ROOT, 'docs/symbols.md'), 'utf8');
      const recipe = /^elf2dmp info --symbols-needed .*\n.*$/m.exec(document)![0];
      const home = join(dir, 'recipe');
      mkdirSync(home);
      const lines = recipe
        .replace('elf2dmp', `'${process.execPath}' '${BIN}'`)
        .replace('vm.elf', '../vm.elf')
        .replace('https://msdl.microsoft.com', `http://127.0.0.1:${port}`);
      // Not spawnSync: the server is in this process.
      const child = spawn('bash', ['-c', lines], { cwd: home, stdio: 'ignore' });
      // xargs says that some were not there.
      expect(await new Promise((done) => child.on('exit', done))).toBe(123);
    } finally {
      server.close();
    }
    expect(run(['stack', '--symbols', 'recipe/store', 'vm.elf']).stdout).toMatch(NAMED);
  });
});
