/** A driver and a program of ARM64 from a real compiler and linker, so with real unwind data, mapped as Windows would. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type CompiledImage, mapImage, readExports } from './compiled.ts';

export interface Arm64Compiled {
  driver: CompiledImage;
  program: CompiledImage;
}

const TARGET = 'aarch64-pc-windows-msvc';
const OPTIONS = ['-O1', '-ffreestanding', '-fno-optimize-sibling-calls', '-fasynchronous-unwind-tables'];

export const compileArm64 = (): Arm64Compiled => ({
  driver: compileImage('demo.sys', 0xfffff806_86030000n, ['arm64.c', 'arm64.s']),
  program: compileImage('app.exe', 0x00007ff6_12340000n, ['arm64-app.c', 'arm64-app.s']),
});

function compileImage(name: string, base: bigint, sources: readonly string[]): CompiledImage {
  const dir = mkdtempSync(join(tmpdir(), 'elf2dmp-compiled-arm64-'));
  try {
    const paths = sources.map((source) => fileURLToPath(new URL(`compiled/${source}`, import.meta.url)));
    const objects = paths.map((path, i) => {
      const object = join(dir, `${i}.obj`);
      execFileSync('clang', ['-target', TARGET, ...(path.endsWith('.c') ? OPTIONS : []), '-c', path, '-o', object]);
      return object;
    });
    const exported = paths
      .filter((path) => path.endsWith('.s'))
      .flatMap((path) => readFileSync(path, 'utf8').split('\n'))
      .flatMap((line) => /^\s*\.globl (\w+)/.exec(line)?.[1] ?? [])
      .filter((symbol) => symbol !== '__chkstk');
    const file = join(dir, name);
    execFileSync('lld-link', [
      ...['/nologo', '/dll', '/noentry', '/nodefaultlib', '/machine:arm64', '/subsystem:native'],
      ...['/timestamp:1577836800', `/base:0x${base.toString(16)}`, `/out:${file}`, `/implib:${file}.lib`],
      ...exported.map((each) => `/export:${each}`),
      ...objects,
    ]);
    const bytes = mapImage(readFileSync(file), base);
    return { name, base, bytes, exports: readExports(bytes, base) };
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}
