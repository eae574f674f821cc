// The Debian package of an executable: made by dpkg-deb, with the manual pages, completions and documents.
import { spawnSync } from 'node:child_process';
import { chmodSync, copyFileSync, cpSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { gzipSync } from 'node:zlib';
import { root } from '../setup.mjs';

/** What the executable's Node.js is linked with: glibc 2.28, libstdc++ of GCC 8. */
const DEPENDS = 'libc6 (>= 2.28), libgcc-s1 (>= 3.4), libstdc++6 (>= 8)';
/** As Debian's tools have it: who makes the package says so. */
const MAINTAINER = `${process.env.DEBFULLNAME ?? 'elf2dmp'} <${process.env.DEBEMAIL ?? 'elf2dmp@localhost'}>`;

/** Seconds since 1970, of all files in the package: one source makes one package. */
const TIME = Number(
  process.env.SOURCE_DATE_EPOCH ??
    spawnSync('git', ['log', '-1', '--format=%ct'], { cwd: root, encoding: 'utf8' }).stdout?.trim() ??
    0,
);

/** Writes `elf2dmp_VERSION-1_ARCHITECTURE.deb` to `out`. */
export async function debianPackage({ out, work, version, executable, architecture, nodeLicence }) {
  const tree = join(work, `deb-${architecture}`);
  const put = (path, content, mode = 0o644) => {
    const file = join(tree, path);
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, content);
    chmodSync(file, mode);
  };
  const doc = 'usr/share/doc/elf2dmp';
  mkdirSync(join(tree, 'usr', 'bin'), { recursive: true });
  copyFileSync(executable, join(tree, 'usr', 'bin', 'elf2dmp'));
  chmodSync(join(tree, 'usr', 'bin', 'elf2dmp'), 0o755);

  for (const page of readdirSync(join(root, 'dist', 'man'))) {
    put(`usr/share/man/man1/${page}.gz`, zipped(readFileSync(join(root, 'dist', 'man', page))));
  }
  const built = (file) => import(pathToFileURL(join(root, 'dist', 'cli', file)).href);
  const { describeCommands } = await built('describe.js');
  const { renderCompletion } = await built('shell/completion.js');
  const completion = (shell) => renderCompletion(shell, describeCommands());
  put('usr/share/bash-completion/completions/elf2dmp', completion('bash'));
  put('usr/share/zsh/vendor-completions/_elf2dmp', completion('zsh'));
  put('usr/share/fish/vendor_completions.d/elf2dmp.fish', completion('fish'));

  put(`${doc}/README.md`, readFileSync(join(root, 'README.md')));
  put(`${doc}/changelog.gz`, zipped(readFileSync(join(root, 'CHANGELOG.md'))));
  put(
    `${doc}/changelog.Debian.gz`,
    zipped(
      `elf2dmp (${version}-1) unstable; urgency=medium\n\n  * Release ${version}: see changelog.gz.\n\n -- ${MAINTAINER}  ${new Date(TIME * 1000).toUTCString().replace('GMT', '+0000')}\n`,
    ),
  );
  put(`${doc}/copyright`, copyright(nodeLicence));
  for (const folder of ['docs', 'schema']) cpSync(join(root, folder), join(tree, doc, folder), { recursive: true });
  put('usr/share/lintian/overrides/elf2dmp', LINTIAN);

  const bytes = sizeOf(tree);
  put(
    'DEBIAN/control',
    `Package: elf2dmp
Version: ${version}-1
Architecture: ${architecture}
Maintainer: ${MAINTAINER}
Installed-Size: ${Math.ceil(bytes / 1024)}
Depends: ${DEPENDS}
Section: utils
Priority: optional
Description: turns the memory of a Windows virtual machine into a crash dump
 Reads what QEMU, KVM and libvirt write (dump-guest-memory, virsh dump, virsh
 save, snapshots) and writes a crash dump that WinDbg opens: offline, without
 symbols, and with the registers of every processor. Also shows stacks, names
 the likely culprit of a crash, and checks crash dumps.
`,
  );
  const name = join(out, `elf2dmp_${version}-1_${architecture}.deb`);
  normalize(tree);
  const { status, error } = spawnSync('fakeroot', ['dpkg-deb', '--build', '-Zxz', '-z1', tree, name], {
    stdio: ['ignore', 'ignore', 'inherit'],
    env: { ...process.env, SOURCE_DATE_EPOCH: String(TIME) },
  });
  if (error) throw error;
  if (status !== 0) throw new Error(`dpkg-deb: exit code ${status}`);
}

/** gzip without a name and a time. */
const zipped = (bytes) => gzipSync(bytes, { level: 9 });

const sizeOf = (path) =>
  readdirSync(path, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .reduce((sum, entry) => sum + readFileSync(join(entry.parentPath, entry.name)).length, 0);

/** Directories are for everybody, whatever this user's umask is. */
function normalize(tree) {
  chmodSync(tree, 0o755);
  for (const entry of readdirSync(tree, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath, entry.name);
    if (entry.isDirectory()) chmodSync(path, 0o755);
    else if (!path.endsWith('/usr/bin/elf2dmp')) chmodSync(path, 0o644);
  }
}

/** Debian's machine-readable form; what is in the executable keeps its own licences. */
function copyright(nodeLicence) {
  const indented = (text) =>
    text
      .split('\n')
      .map((line) => (line.trim() === '' ? ' .' : ` ${line}`))
      .join('\n');
  const own = readFileSync(join(root, 'LICENSE'), 'utf8').trim();
  const [, holder = 'elf2dmp'] = /^Copyright (?:\(c\) )?(.*)$/m.exec(own) ?? [];
  const packages = readFileSync(join(root, 'bundle', 'LICENSES.txt'), 'utf8').trim();
  return `Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: elf2dmp

Files: *
Copyright: ${holder}
License: MIT
${indented(own)}

Files: usr/bin/elf2dmp
Copyright: the authors of elf2dmp, of Node.js, of koffi, and of the packages below
License: MIT-and-others
 The executable is Node.js with elf2dmp and these packages in it.
 .
${indented(packages)}
 .
 Node.js:
 .
${indented(nodeLicence.trim())}
`;
}

const LINTIAN = `# Node.js is built by its makers, with libraries of its own and without PIE.
elf2dmp: embedded-library *
elf2dmp: hardening-no-pie *
# The texts of the licences of all that is in it are kept as they are.
elf2dmp: copyright-file-contains-full-apache-2-license
elf2dmp: old-fsf-address-in-copyright-file
# Unless DEBEMAIL says who made the package.
elf2dmp: bogus-mail-host *
elf2dmp: bogus-mail-host-in-debian-changelog *
# It is not in Debian.
elf2dmp: initial-upload-closes-no-bugs *
`;
