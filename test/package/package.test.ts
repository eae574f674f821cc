import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gunzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { COMMAND_NAMES } from '../../src/cli/command-table.ts';
import { VERSION } from '../../src/version.ts';
import { writeElf } from '../guest/elf.ts';
import { buildGuest } from '../guest/guest.ts';
import { kdumpOf } from '../guest/kdump.ts';
import { programsAvailable } from '../support/programs.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const OUT = join(ROOT, 'out', 'package');
const BIN = join(ROOT, 'bin', 'elf2dmp.js');
const EXECUTABLE = join(OUT, `elf2dmp-${VERSION}-linux-x64`);
const TOOLS = {
  'dpkg-deb': 'dpkg',
  fakeroot: 'fakeroot',
  strip: 'binutils',
  'llvm-strip': 'llvm',
  'qemu-aarch64-static': 'qemu-user-static',
  buildah: 'buildah',
  debootstrap: 'debootstrap',
};

describe.skipIf(!programsAvailable(TOOLS))('what a release has', () => {
  let dir: string;
  const at = (name: string) => join(dir, name);

  beforeAll(() => {
    dir = mkdtempSync(join(tmpdir(), 'elf2dmp-release-'));
    mkdirSync(at('tmp'));
    run(process.execPath, [join(ROOT, 'scripts', 'package.mjs')]);
    writeFileSync(at('vm.elf'), gunzipSync(readFileSync(join(ROOT, 'samples', 'crashed-19041-2cpu.elf.gz'))));
    run(process.execPath, [BIN, '-q', at('vm.elf'), at('expected.dmp')]);
  });
  afterAll(() => rmSync(dir, { recursive: true, force: true }));

  function run(command: string, args: readonly string[]): string {
    const result = spawnSync(command, args, {
      encoding: 'utf8',
      cwd: dir,
      env: { ...process.env, TMPDIR: at('tmp') },
      maxBuffer: 1 << 26,
    });
    if (result.status !== 0) throw new Error(`${command} ${args.join(' ')}: ${result.stderr}${result.stdout}`);
    return result.stdout;
  }
  const elf2dmp = (...args: string[]) => run(EXECUTABLE, args);
  const same = (name: string) => readFileSync(at(name)).equals(readFileSync(at('expected.dmp')));

  it('is listed with checksums', () => {
    const listed = readFileSync(join(OUT, 'SHA256SUMS'), 'utf8').match(/(?<= {2})\S+$/gm);
    expect(listed).toEqual(
      readdirSync(OUT)
        .filter((name) => name !== 'SHA256SUMS')
        .sort(),
    );
    expect(listed).toEqual([
      `elf2dmp-${VERSION}-linux-arm64`,
      `elf2dmp-${VERSION}-linux-x64`,
      `elf2dmp-${VERSION}.tgz`,
      `elf2dmp_${VERSION}-1_amd64.deb`,
      `elf2dmp_${VERSION}-1_arm64.deb`,
    ]);
    expect(spawnSync('sha256sum', ['-c', '--status', 'SHA256SUMS'], { cwd: OUT }).status).toBe(0);
  });

  it('is an executable in one file that does all, koffi and zstd included, and leaves nothing', () => {
    expect(elf2dmp('--version')).toBe(`${VERSION}\n`);
    elf2dmp('-q', 'vm.elf', 'one.dmp');
    expect(same('one.dmp')).toBe(true);
    const { checks } = JSON.parse(elf2dmp('doctor', '--json')) as { checks: { name: string; works: boolean }[] };
    const broken = checks.filter(({ works }) => !works).map(({ name }) => name);
    expect(['koffi', 'zstd-output'].filter((name) => broken.includes(name))).toEqual([]);
    // By its name alone, as from a directory of PATH: then it finds itself for the processes of a batch.
    run('bash', ['-c', 'exec -a elf2dmp "$0" "$@"', EXECUTABLE, 'batch', 'vm.elf', '--out', 'many', '--html']);
    expect(same('many/vm.dmp')).toBe(true);
    expect(readdirSync(at('many')).sort()).toEqual(['elf2dmp-index.html', 'vm.dmp', 'vm.dmp.html', 'vm.dmp.json']);
    expect(readdirSync(at('tmp'))).toEqual([]);
  });

  it('decodes a kdump file with workers', () => {
    const guest = buildGuest({ ramMiB: 64 });
    writeFileSync(at('vm.kdump'), kdumpOf(guest).file);
    writeFileSync(at('plain.elf'), writeElf(guest));
    elf2dmp('-q', 'vm.kdump', 'kdump.dmp');
    elf2dmp('-q', 'plain.elf', 'plain.dmp');
    expect(readFileSync(at('kdump.dmp')).equals(readFileSync(at('plain.dmp')))).toBe(true);
  });

  it('is an executable for arm64', () => {
    const emulated = (...args: string[]) =>
      run('qemu-aarch64-static', [
        '-L',
        '/usr/aarch64-linux-gnu',
        join(OUT, `elf2dmp-${VERSION}-linux-arm64`),
        ...args,
      ]);
    expect(emulated('--version', '--verbose')).toMatch(/koffi \d[\d.]+\nlinux arm64,/);
    emulated('-q', 'vm.elf', 'arm64.dmp');
    expect(same('arm64.dmp')).toBe(true);
  });

  it('is a Debian package that installs, runs, and goes without a trace', () => {
    const root = at('root');
    mkdirSync(join(root, 'var/lib/dpkg/info'), { recursive: true });
    mkdirSync(join(root, 'var/lib/dpkg/updates'));
    writeFileSync(join(root, 'var/lib/dpkg/status'), '');
    const dpkg = (...args: string[]) => run('dpkg', [`--root=${root}`, '--force-depends', ...args]);
    dpkg('--install', join(OUT, `elf2dmp_${VERSION}-1_amd64.deb`));
    expect(run(join(root, 'usr/bin/elf2dmp'), ['--version'])).toBe(`${VERSION}\n`);
    const manuals = COMMAND_NAMES.map((name) => `elf2dmp${name === 'convert' ? '' : `-${name}`}.1.gz`);
    expect(readdirSync(join(root, 'usr/share/man/man1')).sort()).toEqual(manuals.sort());
    for (const file of [
      'usr/share/bash-completion/completions/elf2dmp',
      'usr/share/zsh/vendor-completions/_elf2dmp',
      'usr/share/fish/vendor_completions.d/elf2dmp.fish',
      'usr/share/doc/elf2dmp/copyright',
      'usr/share/doc/elf2dmp/docs/tour.md',
    ]) {
      expect(existsSync(join(root, file)), file).toBe(true);
    }
    dpkg('--purge', 'elf2dmp');
    expect(readdirSync(root, { recursive: true }).filter((name) => /elf2dmp/.test(String(name)))).toEqual([]);
  });

  it('is an image that runs as a user without rights, with a read-only root, and starts a shell', () => {
    const image = 'elf2dmp-test';
    try {
      const deb = join(OUT, `elf2dmp_${VERSION}-1_amd64.deb`);
      const said = run(join(ROOT, 'samples/container/build.sh'), [deb, image]);
      expect(said).toContain('10001:10001 [elf2dmp]\n');
      expect(said).toContain(`10001\n/usr/bin/elf2dmp\n${VERSION}\n`);
      expect(said).toContain(`built and run: ${image}\n`);
    } finally {
      spawnSync('buildah', ['rmi', '--force', image]);
    }
  });
});
