// Where PDBs are searched for, and which are accepted.
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { localSymbolPaths } from '../../src/options/symbol-path.ts';
import { SymbolStore } from '../../src/symbols/store.ts';
import { Symbols } from '../../src/symbols/symbols.ts';
import { GUID, makePdb } from './pdb-file.ts';

const WANTED = { name: 'D:\\build\\x64\\Driver.pdb', guid: GUID, age: 3 };
const SPEC = {
  age: 3,
  modules: [{ name: 'a.obj', functions: [{ name: 'Work', section: 1, offset: 0, size: 0x100 }] }],
};
const OTHER = 'FFEEDDCCBBAA99887766554433221100';

describe('the local parts of a symbol path', () => {
  it.each([
    ['/symbols', ['/symbols']],
    ['/a;/b ;;/c/one.pdb', ['/a', '/b', '/c/one.pdb']],
    ['srv*/cache*https://msdl.microsoft.com/download/symbols', ['/cache']],
    ['SRV*/one*/two*http://symbols.example', ['/one', '/two']],
    ['srv*https://msdl.microsoft.com/download/symbols', []],
    ['cache*/cache;symsrv*symsrv.dll*/down*https://x.example', ['/cache', '/down']],
    ['cache*;srv*', []],
    ['symsrv*symsrv.dll', []],
    ['C:\\symbols;srv*D:\\store*https://x.example', ['C:\\symbols', 'D:\\store']],
    ['https://x.example/symbols', []],
    ['', []],
  ])('%s', (path, parts) => {
    expect(localSymbolPaths(path)).toEqual(parts);
  });
});

describe('a search for PDBs', () => {
  let dir: string;
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'elf2dmp-store-'));
  });
  afterEach(() => rmSync(dir, { recursive: true, force: true }));
  const put = (path: string, bytes: Buffer = makePdb(SPEC)) => {
    mkdirSync(dirname(join(dir, path)), { recursive: true });
    writeFileSync(join(dir, path), bytes);
    return join(dir, path);
  };
  const find = (...paths: string[]) => {
    const { pdb, refused } = new SymbolStore(paths.length > 0 ? paths : [dir]).find(WANTED);
    pdb?.close();
    return { found: pdb?.name, refused: refused.map(({ path, code, reason }) => [path, code, reason.text]) };
  };

  it.each([
    `Driver.pdb/${GUID}3/Driver.pdb`,
    `driver.pdb/${GUID.toLowerCase()}3/DRIVER.PDB`,
    `Dr/Driver.pdb/${GUID}3/Driver.pdb`,
    'Driver.pdb',
    'driver.pdb',
    'renamed.pdb',
  ])('finds %s', (path) => {
    const file = put(path);
    put('other.pdb', makePdb({ guid: OTHER }));
    put('notes.txt', Buffer.from('text'));
    expect(find()).toEqual({ found: file, refused: [] });
  });

  it('takes a single file, whatever its name', () => {
    const file = put('anything.bin');
    expect(find(file)).toEqual({ found: file, refused: [] });
  });

  it('goes on to the next place', () => {
    const file = put(`b/Driver.pdb/${GUID}3/Driver.pdb`);
    mkdirSync(join(dir, 'a'));
    expect(find(join(dir, 'a'), join(dir, 'b'))).toEqual({ found: file, refused: [] });
  });

  it('refuses another GUID or age, and says both', () => {
    const guid = put('Driver.pdb', makePdb({ ...SPEC, guid: OTHER }));
    const age = put(`Driver.pdb_/x.pdb`, makePdb({ ...SPEC, age: 4, infoAge: 3 }));
    expect(find()).toEqual({
      found: undefined,
      refused: [[guid, 'mismatch', `its GUID and age are ${OTHER}3, the image's ${GUID}3`]],
    });
    expect(find(age).found).toBe(undefined);
    const named = put(`named/driver.pdb`, makePdb({ ...SPEC, age: 4, infoAge: 3 }));
    expect(find(named).refused).toEqual([[named, 'mismatch', `its GUID and age are ${GUID}4, the image's ${GUID}3`]]);
  });

  it('does not believe a store either', () => {
    const file = put(`Driver.pdb/${GUID}3/Driver.pdb`, makePdb({ ...SPEC, guid: OTHER }));
    expect(find().refused).toEqual([[file, 'mismatch', expect.any(String)]]);
  });

  it('names compressed and damaged files', () => {
    const file = put(`Driver.pdb/${GUID}3/Driver.pd_`, Buffer.from('MSCF'.padEnd(200)));
    const flat = put('flat/Driver.pdb', Buffer.alloc(100));
    expect(find()).toMatchObject({ found: undefined, refused: [[file, 'compressed', /cabextract/]] });
    expect(find(join(dir, 'flat'))).toMatchObject({ found: undefined, refused: [[flat, 'unusable', /not a PDB/]] });
  });

  it('throws for a path that is not there', () => {
    expect(() => new SymbolStore([join(dir, 'missing')])).toThrow(/cannot look for symbols: no such file/);
  });

  it.each(['..', '.', '', 'a/..', '..\\..', 'x\0y'])('looks nowhere for a PDB named %j', (name) => {
    put('Driver.pdb');
    const { pdb, refused } = new SymbolStore([dir]).find({ ...WANTED, name });
    expect([pdb, refused]).toEqual([undefined, []]);
  });

  it('names code, and says what was wrong with what it found', () => {
    const whole = put('a/Driver.pdb');
    const symbols = new Symbols(new SymbolStore([whole]));
    expect(symbols.lookUp(WANTED, 0x1010)).toMatchObject({ name: 'Work', offset: 0x10, certain: true });
    expect(symbols.has({ ...WANTED, age: 9 })).toBe(false);
    expect(symbols.problems).toEqual([
      {
        wanted: `Driver.pdb/${GUID}9/Driver.pdb`,
        path: whole,
        code: 'mismatch',
        reason: `its GUID and age are ${GUID}3, the image's ${GUID}9`,
      },
    ]);
    symbols.close();
  });

  it('names nothing more by a PDB that is found damaged', () => {
    const bytes = makePdb(SPEC);
    const record = bytes.indexOf('Work\0');
    // The length of the function's record.
    bytes.writeUInt16LE(0xffff, record - 39);
    const file = put('Driver.pdb', bytes);
    const symbols = new Symbols(new SymbolStore([dir]));
    expect(symbols.lookUp(WANTED, 0x1010)).toBe(undefined);
    expect(symbols.lookUp(WANTED, 0x1010)).toBe(undefined);
    expect(symbols.problems).toMatchObject([{ path: file, code: 'unusable', reason: /a damaged PDB/ }]);
    symbols.close();
  });
});
