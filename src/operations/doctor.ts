/** What elf2dmp can do on this host and in a directory: optional parts are loaded, file systems' features tried. */
import { readFileSync } from 'node:fs';
import { stat, statfs } from 'node:fs/promises';
import { availableParallelism, release, totalmem } from 'node:os';
import { join, resolve } from 'node:path';
import * as zlib from 'node:zlib';
import { ioError } from '../core/errors.ts';
import { cloneRange } from '../files/clone-range.ts';
import { FILE_CALLS } from '../files/file-calls.ts';
import { describeKoffi } from '../files/libc.ts';
import { TemporaryFile } from '../files/temporary.ts';
import { SCHEMA } from '../report/schemas.ts';
import { TOOL } from '../version.ts';

/** What is tried; conversions need the first two. */
export type CheckName = 'node' | 'write' | 'koffi' | 'unnamed-files' | 'reflink' | 'in-place' | 'zstd-output';

/** Something that was tried. */
export interface HostCheck {
  name: CheckName;
  works: boolean;
  /** A version, or why it does not work, for people. */
  detail: string;
  /** What needs it, for people. */
  use: string;
}

/** The machine that elf2dmp runs on. */
export interface HostReport {
  /** `Node.js`, `Bun`, `Deno`: what runs elf2dmp. */
  runtime: string;
  /** Its version. */
  runtimeVersion: string;
  /** The version of Node.js that it is, or is like. */
  node: string;
  /** `linux x64` */
  platform: string;
  /** `Debian GNU/Linux 12 (bookworm)`; null where the system does not say. */
  system: string | null;
  kernel: string;
  /** The installed koffi's version; null where it does not load. */
  koffi: string | null;
  cpus: number;
  /** Bytes. */
  memory: number;
  /** Bytes that the process may take, by control groups and what is free; null where Node does not know. */
  memoryAvailable: number | null;
  /** Files that the process may have open; null where the system does not say. */
  openFiles: number | null;
}

export interface DoctorReport {
  schema: (typeof SCHEMA)['doctor'];
  tool: typeof TOOL;
  /** `problems`: conversions will fail here. */
  outcome: 'good' | 'problems';
  host: HostReport;
  directory: {
    path: string;
    /** `ext4`; a number in hex where elf2dmp has no name for it. */
    fileSystem: string;
    /** Bytes. */
    free: number;
  };
  checks: HostCheck[];
}

/** Tries what conversions into `directory` may need, with temporary files. Throws `Elf2dmpError` if it can't be read. */
export async function examineHost(directory: string): Promise<DoctorReport> {
  const place = await describeDirectory(directory);
  const host = await describeHost();
  const koffi = await describeKoffi();
  const writing = await tried('write', 'dumps', () => tryWriting(directory));
  const inDirectory = (name: CheckName, use: string, attempt: (directory: string) => Promise<string>) =>
    writing.works
      ? tried(name, use, () => attempt(directory))
      : { name, works: false, detail: 'nothing can be written there', use };
  const checks: HostCheck[] = [
    { name: 'node', works: isNodeNew(), detail: `${host.node}; 20.19 or later is needed`, use: 'everything' },
    writing,
    {
      name: 'koffi',
      works: !('reason' in koffi),
      detail: 'reason' in koffi ? koffi.reason : koffi.version,
      use: 'the next three',
    },
    await inDirectory('unnamed-files', 'output that even SIGKILL leaves no part of', tryUnnamed),
    await inDirectory('reflink', '--reflink', tryReflink),
    await inDirectory('in-place', '--in-place', tryInPlace),
    zstdOutput(),
  ];
  const needed = checks.filter(({ name }) => name === 'node' || name === 'write');
  return {
    schema: SCHEMA.doctor,
    tool: TOOL,
    outcome: needed.every(({ works }) => works) ? 'good' : 'problems',
    host,
    directory: place,
    checks,
  };
}

/** The machine that elf2dmp runs on. */
export async function describeHost(): Promise<HostReport> {
  const koffi = await describeKoffi();
  // Since Node.js 20.13.
  const available = process.availableMemory?.();
  return {
    ...runtime(),
    node: process.versions.node,
    platform: `${process.platform} ${process.arch}`,
    system: systemName(),
    kernel: release(),
    koffi: 'version' in koffi ? koffi.version : null,
    cpus: availableParallelism(),
    memory: totalmem(),
    memoryAvailable: available === undefined ? null : Math.min(available, totalmem()),
    openFiles: openFiles(),
  };
}

/** Other runtimes name themselves among the versions. */
function runtime(): Pick<HostReport, 'runtime' | 'runtimeVersion'> {
  const { bun, deno, node } = process.versions as Record<string, string | undefined>;
  if (bun !== undefined) return { runtime: 'Bun', runtimeVersion: bun };
  if (deno !== undefined) return { runtime: 'Deno', runtimeVersion: deno };
  return { runtime: 'Node.js', runtimeVersion: node ?? '' };
}

function systemName(): string | null {
  const [, name] = /^PRETTY_NAME="?([^"\n]*)"?$/m.exec(textOf('/etc/os-release')) ?? [];
  return name ?? null;
}

function openFiles(): number | null {
  const [, soft] = /^Max open files\s+(\d+)/m.exec(textOf('/proc/self/limits')) ?? [];
  return soft === undefined ? null : Number(soft);
}

function textOf(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

/** Magic numbers of file systems (linux/magic.h, and those of ZFS and bcachefs). */
const FILE_SYSTEMS: ReadonlyMap<number, string> = new Map([
  [0xef53, 'ext4'],
  [0x5846_5342, 'XFS'],
  [0x9123_683e, 'Btrfs'],
  [0x0102_1994, 'tmpfs'],
  [0x794c_7630, 'overlayfs'],
  [0x6969, 'NFS'],
  [0xff53_4d42, 'CIFS'],
  [0xfe53_4d42, 'SMB'],
  [0x6573_5546, 'FUSE'],
  [0x2fc1_2fc1, 'ZFS'],
  [0xf2f5_2010, 'F2FS'],
  [0xca45_1a4e, 'bcachefs'],
  [0x0102_1997, '9P'],
  [0x00c3_6400, 'Ceph'],
  [0x4d44, 'FAT'],
  [0x2011_bab0, 'exFAT'],
]);

async function describeDirectory(directory: string): Promise<DoctorReport['directory']> {
  try {
    if (!(await stat(directory)).isDirectory()) {
      throw Object.assign(new Error('ENOTDIR: not a directory'), { code: 'ENOTDIR' });
    }
    const { type, bavail, bsize } = await statfs(directory);
    const fileSystem = FILE_SYSTEMS.get(type) ?? `0x${type.toString(16)}`;
    return { path: resolve(directory), fileSystem, free: bavail * bsize };
  } catch (cause) {
    throw ioError('examine', directory, cause);
  }
}

function isNodeNew(): boolean {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  return major > 20 || (major === 20 && minor >= 19);
}

/** @param attempt returns what it found; throws where that is a failure */
async function tried(name: CheckName, use: string, attempt: () => Promise<string>): Promise<HostCheck> {
  try {
    return { name, works: true, detail: await attempt(), use };
  } catch (error) {
    return { name, works: false, detail: error instanceof Error ? error.message : String(error), use };
  }
}

/** A multiple of every file system's block size. */
const PIECE = 65_536;

const temporaryIn = (directory: string): Promise<TemporaryFile> =>
  TemporaryFile.create(join(directory, 'elf2dmp-doctor'), 0o600);

async function tryWriting(directory: string): Promise<string> {
  const file = await temporaryIn(directory);
  try {
    await FILE_CALLS.write(file.handle.fd, Buffer.alloc(PIECE, 1), 0);
    await file.handle.sync();
    return 'yes';
  } finally {
    await file.discard();
  }
}

async function tryUnnamed(directory: string): Promise<string> {
  const file = await temporaryIn(directory);
  await file.discard();
  if (!file.path.startsWith('/proc/'))
    throw new Error('the file system has no files without a name, or koffi is missing');
  return 'yes';
}

async function tryReflink(directory: string): Promise<string> {
  const [from, to] = [await temporaryIn(directory), await temporaryIn(directory)];
  try {
    await FILE_CALLS.write(from.handle.fd, Buffer.alloc(PIECE, 1), 0);
    const reason = await cloneRange({ fd: from.handle.fd, offset: 0, length: PIECE }, { fd: to.handle.fd, offset: 0 });
    if (reason !== undefined) throw new Error(reason);
    return 'yes';
  } finally {
    await from.discard();
    await to.discard();
  }
}

async function tryInPlace(directory: string): Promise<string> {
  const file = await temporaryIn(directory);
  try {
    await FILE_CALLS.write(file.handle.fd, Buffer.alloc(2 * PIECE, 1), 0);
    await FILE_CALLS.insertRange(file.handle.fd, PIECE);
    await FILE_CALLS.collapseRange(file.handle.fd, PIECE);
    return 'yes';
  } finally {
    await file.discard();
  }
}

function zstdOutput(): HostCheck {
  const works = 'createZstdCompress' in zlib;
  const detail = works ? 'yes' : `Node.js ${process.versions.node} has no zstd; 22.15 and later have it`;
  return { name: 'zstd-output', works, detail, use: '--compress=zstd (reading zstd needs nothing)' };
}
