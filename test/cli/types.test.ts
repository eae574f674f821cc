/** The library as another project gets it: its types, its reference and the examples of its guide. */
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gunzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { apiDocument } from '../../scripts/api-docs.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
let project: string;
/** The guide's examples. */
const examples = [...readFileSync(join(ROOT, 'docs', 'library.md'), 'utf8').matchAll(/^```ts\n(.*?)^```$/gms)].map(
  ([, code]) => code!,
);

beforeAll(() => {
  project = mkdtempSync(join(tmpdir(), 'elf2dmp-library-'));
  mkdirSync(join(project, 'node_modules', '@types'), { recursive: true });
  for (const name of ['@types/node', 'undici-types']) {
    symlinkSync(join(ROOT, 'node_modules', name), join(project, 'node_modules', name));
  }
  symlinkSync(ROOT, join(project, 'node_modules', 'elf2dmp'));
  writeFileSync(join(project, 'package.json'), '{"type":"module"}');
  const sample = readFileSync(join(ROOT, 'samples', 'live-19041-4cpu.elf.gz'));
  writeFileSync(join(project, 'vm.elf'), gunzipSync(sample));
});
afterAll(() => rmSync(project, { recursive: true, force: true }));

describe('the library', () => {
  it.each([['typescript-5.0'], ['typescript']])('has types that %s compiles, its own declarations too', (compiler) => {
    for (const [i, code] of examples.entries()) {
      // `await using` came with 5.2.
      const text = compiler === 'typescript-5.0' ? code.replaceAll('await using', 'const') : code;
      writeFileSync(join(project, `example${i}.mts`), `${text}\nexport {};\n`);
    }
    const options = ['--strict', '--noEmit', '--skipLibCheck', 'false', '--exactOptionalPropertyTypes'];
    const modern = ['--module', 'nodenext', '--moduleResolution', 'nodenext', '--target', 'es2022', '--types', 'node'];
    const library = ['--lib', compiler === 'typescript' ? 'es2022,esnext.disposable' : 'es2022'];
    const { stdout } = spawnSync(
      process.execPath,
      [
        join(ROOT, 'node_modules', compiler, 'bin', 'tsc'),
        ...[...options, ...modern, ...library],
        ...examples.map((_, i) => `example${i}.mts`),
      ],
      { cwd: project, encoding: 'utf8' },
    );
    expect(stdout).toBe('');
  });

  it('does what the examples of its guide say', () => {
    expect(examples.length).toBeGreaterThan(0);
    for (const [i, code] of examples.entries()) {
      // Where the file system can't convert in place, the rest of the example still has to hold.
      const runnable = code.replaceAll('await using', 'const').replace(/^await (convert|undo)InPlace.*$/gm, '');
      const file = `example${i}.mjs`;
      writeFileSync(join(project, file), `${runnable}\nif (typeof guest !== 'undefined') guest.close();\n`);
      const said = execFileSync(process.execPath, [file], { cwd: project, encoding: 'utf8' });
      expect(said).toMatch(/^19041 4$/m);
      for (const name of ['vm.dmp', 'again.dmp', 'streamed.dmp']) rmSync(join(project, name));
    }
    const schema = `console.log(import.meta.resolve('elf2dmp/schema/info.schema.json'))`;
    const found = execFileSync(process.execPath, ['--input-type=module', '-e', schema], {
      cwd: project,
      encoding: 'utf8',
    });
    expect(readFileSync(fileURLToPath(found.trim()), 'utf8')).toContain('elf2dmp-info-1');
  });

  it('is described in docs/api.md (made by `npm run docs`)', () => {
    expect(readFileSync(join(ROOT, 'docs', 'api.md'), 'utf8')).toBe(apiDocument());
  });
});
