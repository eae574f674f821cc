// Members of structures that a real compiler described, against what llvm-pdbutil reads in the same PDB.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { FileSource } from '../../src/source/file.ts';
import { PdbFile } from '../../src/symbols/pdb.ts';
import { findStructures, type Member } from '../../src/symbols/structures.ts';
import { programsAvailable } from '../support/programs.ts';
import { compilerAvailable } from './compile.ts';

const SOURCE = fileURLToPath(new URL('sources/structures.c', import.meta.url));
const dumperAvailable = (): boolean => programsAvailable({ 'llvm-pdbutil': 'llvm' });

/** What llvm-pdbutil prints of types, by their index: the lines of each record. */
function recordsOf(pdb: string): Map<string, string[]> {
  const records = new Map<string, string[]>();
  let lines: string[] = [];
  for (const line of execFileSync('llvm-pdbutil', ['dump', '-types', pdb], {
    encoding: 'utf8',
    maxBuffer: 2 ** 26,
  }).split('\n')) {
    const index = /^ *(0x[0-9A-F]+) \| (.*)/.exec(line);
    if (index) {
      lines = [index[2]!];
      records.set(index[1]!, lines);
    } else lines.push(line.trim());
  }
  return records;
}

interface Theirs {
  size: number;
  members: { name: string; offset: number; type: string }[];
}

/** Structures that are not only names. */
function structuresOf(records: ReadonlyMap<string, string[]>): Map<string, Theirs> {
  const found = new Map<string, Theirs>();
  for (const lines of records.values()) {
    const name = /^LF_STRUCTURE .*`(.*)`/.exec(lines[0]!)?.[1];
    const size = /sizeof (\d+)/.exec(lines.join(' '))?.[1];
    if (!name || size === undefined || lines.join(' ').includes('forward ref')) continue;
    const members: Theirs['members'] = [];
    for (let list = /field list: (0x[0-9A-F]+)/.exec(lines[1]!)?.[1]; list; ) {
      const all = records.get(list)!;
      for (const line of all) {
        const member = /LF_MEMBER \[name = `(.*)`, Type = (0x[0-9A-F]+).*offset = (\d+)/.exec(line);
        if (member) members.push({ name: member[1]!, type: member[2]!, offset: Number(member[3]) });
      }
      list = /(?:LF_INDEX|continuation).*?(0x[0-9A-F]+)/i.exec(all.join('\n'))?.[1];
    }
    found.set(name, { size: Number(size), members });
  }
  return found;
}

/** Bits by a record of theirs. */
function bitsOf(records: ReadonlyMap<string, string[]>, type: string): Member['bits'] {
  const text = records.get(type)?.join(' ') ?? '';
  const bits = /bit offset = (\d+), # bits = (\d+)/.exec(text);
  return text.startsWith('LF_BITFIELD') && bits ? { position: Number(bits[1]), length: Number(bits[2]) } : undefined;
}

describe.skipIf(!compilerAvailable() || !dumperAvailable())('structures that a compiler described', () => {
  let dir: string;
  beforeAll(() => {
    dir = mkdtempSync(join(tmpdir(), 'elf2dmp-structures-'));
  });
  afterAll(() => rmSync(dir, { recursive: true, force: true }));

  it.each([4096, 8192])('have the members that llvm-pdbutil prints: pages of %i', (pageSize) => {
    const [object, pdb] = [join(dir, 'types.obj'), join(dir, `${pageSize}.pdb`)];
    execFileSync('clang', [
      ...['-target', 'x86_64-pc-windows-msvc', '-ffreestanding', '-g', '-gcodeview', '-c', SOURCE, '-o', object],
    ]);
    execFileSync('lld-link', [
      ...['/nologo', '/dll', '/noentry', '/nodefaultlib', '/debug', `/pdbpagesize:${pageSize}`],
      ...[`/out:${join(dir, 'types.dll')}`, `/pdb:${pdb}`, object],
    ]);
    const records = recordsOf(pdb);
    const theirs = structuresOf(records);
    expect([...theirs.keys()]).toEqual(expect.arrayContaining(['_KPRCB', '_KDPC_DATA', '_MANY', 'wide']));
    expect(theirs.get('_MANY')!.members).toHaveLength(3000);
    const file = PdbFile.open(FileSource.open(pdb));
    const wanted = Object.fromEntries([...theirs].map(([name, { members }]) => [name, members.map((m) => m.name)]));
    const ours = findStructures(file, wanted);
    file.close();
    for (const [name, { size, members }] of theirs) {
      const found = ours.get(name)!;
      expect(found.size, name).toBe(size);
      expect(
        [...found.members].map(([member, { offset, bits }]) => [member, offset, bits]),
        name,
      ).toEqual(members.map((m) => [m.name, m.offset, bitsOf(records, m.type)]));
    }
    // Sizes, by the source.
    const sizes = Object.fromEntries([...ours.get('_KPRCB')!.members].map(([name, { size }]) => [name, size]));
    expect(sizes).toMatchObject({
      ...{ MxCsr: 4, LegacyNumber: 1, Low: 1, Half: 2, CurrentThread: 8, DpcData: 80, Whole: 8, LowPart: 4, Named: 8 },
      ...{ Kind: 4, Constant: 8, Single: 4, Double: 8, Routine: 8, Nine: 8, Grid: 60, Huge: 16, Signed: 1, Flag: 1 },
    });
  });
});
