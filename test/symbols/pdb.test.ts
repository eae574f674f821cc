// Reading PDBs made by hand: what compilers here do not make, and what is not to be believed.
import { describe, expect, it } from 'vitest';
import { Elf2dmpError } from '../../src/core/errors.ts';
import { BufferSource } from '../../src/source/buffer.ts';
import type { ByteSource } from '../../src/source/source.ts';
import { PdbFile } from '../../src/symbols/pdb.ts';
import { Symbolizer } from '../../src/symbols/symbolizer.ts';
import { undecorated } from '../../src/symbols/undecorate.ts';
import { GUID, makePdb, type PdbSpec } from './pdb-file.ts';

const open = (bytes: Buffer) => PdbFile.open(new BufferSource(bytes, 'made.pdb'));
const symbolizerOf = (spec: PdbSpec) => new Symbolizer(open(makePdb(spec)));

const SPEC: PdbSpec = {
  ids: ['First', 'Second', 'Third'],
  modules: [
    {
      name: 'a.obj',
      file: 'C:\\src\\a.c',
      inlinees: [
        [0x1000, 100],
        [0x1001, 200],
      ],
      functions: [
        {
          name: 'Alpha',
          section: 1,
          offset: 0x100,
          size: 0x80,
          lines: [
            [0, 10],
            [0x10, 11],
            [0x20, 0xfeefee],
            [0x30, 12],
          ],
          inlined: [
            {
              inlinee: 0x1000,
              // Code +10h and line +1; code +8 and line +1; length 8.
              annotations: [6, 2, 3, 0x10, 11, 0x28, 4, 8],
              inside: [{ inlinee: 0x1001, annotations: [12, 4, 0x14] }],
            },
          ],
        },
        { name: 'Beta', section: 1, offset: 0x200, size: 0x10, kind: 'static' },
      ],
    },
    { name: 'b.obj', functions: [{ name: 'Thunk', section: 1, offset: 0x300, size: 5, kind: 'thunk' }] },
  ],
  publics: [
    ['Alpha', 1, 0x100],
    ['_Label', 1, 0x280],
    ['?run@Engine@core@@QEAAXXZ', 1, 0x400],
    ['Elsewhere', 2, 0],
  ],
  sections: [
    [0x1000, 0x1000],
    [0x3000, 0x1000],
    [0x5000, 0x1000],
  ],
};
const at = (symbolizer: Symbolizer, rva: number) => {
  const found = symbolizer.lookUp(rva);
  return found && `${found.name}+${found.offset.toString(16)}${found.certain ? '' : '?'}`;
};

describe('PDBs', () => {
  it.each([512, 1024, 2048, 4096, 8192, 16384, 32768])('of pages of %i bytes', (pageSize) => {
    const pdb = open(makePdb({ ...SPEC, pageSize }));
    expect([pdb.guid, pdb.age]).toEqual([GUID, 1]);
    const symbolizer = new Symbolizer(pdb);
    expect([0x1100, 0x117f, 0x1180, 0x120f, 0x1280, 0x1300, 0x1400, 0x3123].map((rva) => at(symbolizer, rva))).toEqual([
      ...[
        'Alpha+0',
        'Alpha+7f',
        'Alpha+80?',
        'Beta+f',
        'Label+0?',
        'Thunk+0',
        'core::Engine::run+0?',
        'Elsewhere+123?',
      ],
    ]);
    // Before all symbols, outside all sections, in a section without symbols.
    expect([0x1000, 0x2800, 0x5123].map((rva) => at(symbolizer, rva))).toEqual([undefined, undefined, undefined]);
  });

  it('whose page map takes several pages', () => {
    // 128 page numbers fit a page, and 128 pages of numbers the map's first page.
    const bytes = makePdb({ ...SPEC, pageSize: 512, padding: 12_000_000 });
    expect(bytes.readUInt32LE(0x2c)).toBeGreaterThan(128 * 512);
    expect(at(new Symbolizer(open(bytes)), 0x1234)).toBe('Beta+34?');
  });

  it('are read where a lookup needs them', () => {
    const [a] = SPEC.modules!;
    const others = Array.from({ length: 400 }, (_, m) => ({
      ...a!,
      name: `other${m}.obj`,
      functions: Array.from({ length: 50 }, (_, i) => ({
        name: `Other${m}Function${i}`.padEnd(200, 'x'),
        section: 3,
        offset: 0x10 * (50 * m + i),
        size: 0x10,
      })),
    }));
    const bytes = makePdb({
      ...SPEC,
      modules: [...others, ...SPEC.modules!],
      sections: [...SPEC.sections!.slice(0, 2), [0x5000, 0x100000]],
    });
    let read = 0;
    const source = new BufferSource(bytes);
    const counting: ByteSource = {
      name: 'counted',
      fd: undefined,
      size: source.size,
      readSync: (offset, target) => {
        read += target.length;
        source.readSync(offset, target);
      },
      read: (offset, target) => source.read(offset, target),
      close: () => {},
    };
    const symbolizer = new Symbolizer(PdbFile.open(counting));
    expect(at(symbolizer, 0x1234)).toBe('Beta+34?');
    expect(at(symbolizer, 0x5000 + 0x10 * 12_345)).toBe(`${'Other246Function45'.padEnd(200, 'x')}+0`);
    expect(bytes.length).toBeGreaterThan(5_000_000);
    // What the modules contributed, in 28 bytes each, is most of it.
    expect(read).toBeLessThan(1_000_000);
  });

  it('have the age of the DBI stream, not the info stream', () => {
    expect(open(makePdb({ age: 2, infoAge: 7 })).age).toBe(2);
  });

  it('have lines, and hidden ones none', () => {
    const symbolizer = symbolizerOf(SPEC);
    const lines = [0x1100, 0x110f, 0x1110, 0x111f, 0x1120, 0x112f, 0x1130].map((rva) => symbolizer.lookUp(rva)?.line);
    expect(lines).toEqual([10, 10, 11, 11, undefined, undefined, 12]);
    expect(symbolizer.lookUp(0x1100)?.file).toBe('C:\\src\\a.c');
  });

  it('have inlined calls in one another', () => {
    const symbolizer = symbolizerOf(SPEC);
    const calls = [0x110f, 0x1110, 0x1113, 0x1114, 0x1117, 0x1118, 0x111f, 0x1120].map((rva) =>
      symbolizer.lookUp(rva)?.inlined.map((c) => `${c.name}+${c.offset} ${c.line}`),
    );
    expect(calls).toEqual([
      [],
      ['First+0 101'],
      ['First+3 101'],
      ['Second+0 200', 'First+4 101'],
      ['Second+3 200', 'First+7 101'],
      ['First+8 102'],
      ['First+15 102'],
      [],
    ]);
  });

  it('have the names of calls that link-time code generation inlined from other modules', () => {
    const inlined = (inlinee: number) => [{ inlinee, annotations: [3, 0, 4, 0x10] }];
    const caller = (name: string, offset: number, inlinee: number) => ({
      ...{ name, section: 1, offset, size: 0x10, inlined: inlined(inlinee) },
    });
    const symbolizer = symbolizerOf({
      ids: ['First', 'Second', 'Third'],
      modules: [
        {
          name: 'D:\\Obj\\A.obj',
          file: 'a.c',
          functions: [
            caller('A', 0, 0x8010_0001),
            caller('B', 0x10, 0x8000_0000),
            caller('C', 0x20, 0x8020_0000),
            caller('D', 0x30, 0x8010_0002),
            caller('E', 0x40, 0x8030_0000),
          ],
          imports: [
            ['d:\\obj\\b.obj', [0x8000_1234]],
            ['d:\\obj\\c.obj', [7, 0x2345]],
            ['d:\\obj\\gone.obj', [1]],
          ],
        },
        { name: 'D:\\Obj\\B.obj', file: 'b.c', functions: [], exports: [[0x8000_1234, 0x1002]] },
        {
          ...{ name: 'D:\\Obj\\C.obj', file: 'c.c', functions: [] },
          exports: [
            [7, 0x1000],
            [0x2345, 0x1001],
          ],
        },
      ],
    });
    const names = [0x1000, 0x1010, 0x1020, 0x1030, 0x1040].map((rva) =>
      symbolizer.lookUp(rva)?.inlined.map((c) => c.name),
    );
    // Of a module, reference or entry that is not there: none.
    expect(names).toEqual([['Second'], ['Third'], [undefined], [undefined], [undefined]]);
  });

  it('have public names rather than those of thunks', () => {
    const thunk = { name: '__load_it', section: 1, offset: 0x40, size: 0x20, kind: 'thunk' } as const;
    const symbolizer = symbolizerOf({
      modules: [{ name: 'a.obj', functions: [thunk, { ...thunk, name: 'plain', offset: 0x80 }] }],
      publics: [
        ['__load_it', 1, 0x40],
        ['_inside', 1, 0x50],
      ],
    });
    const found = [0x1040, 0x1048, 0x1054, 0x1060, 0x1088].map((rva) => at(symbolizer, rva));
    expect(found).toEqual(['_load_it+0', '_load_it+8', 'inside+4', 'inside+10?', 'plain+8']);
  });

  it('name the call that is returned to, not what follows it', () => {
    const symbolizer = symbolizerOf(SPEC);
    expect(symbolizer.lookUp(0x1180, { returnAddress: true })).toMatchObject({
      name: 'Alpha',
      offset: 0x80,
      line: 12,
      certain: true,
    });
    expect(symbolizer.lookUp(0x1110, { returnAddress: true })).toMatchObject({ offset: 0x10, line: 10, inlined: [] });
    expect(symbolizer.lookUp(0x1118, { returnAddress: true })?.inlined).toMatchObject([
      { name: 'Second', offset: 4 },
      { name: 'First', offset: 8 },
    ]);
  });

  it('have all names of folded functions', () => {
    const [a] = SPEC.modules!;
    const functions = ['One', 'Two', 'Three'].map((name) => ({ name, section: 1, offset: 0x100, size: 0x10 }));
    const found = symbolizerOf({ modules: [{ ...a!, functions }] }).lookUp(0x1104);
    expect([found?.name, found?.aliases]).toEqual(['One', ['Two', 'Three']]);
  });

  it('have public symbols alone where they are stripped', () => {
    const symbolizer = symbolizerOf({ ...SPEC, stripped: true });
    expect([0x1100, 0x1234, 0x1290].map((rva) => at(symbolizer, rva))).toEqual(['Alpha+0?', 'Alpha+134?', 'Label+10?']);
    // With the function's start the public symbol is sure, or certainly not that of the function.
    expect(symbolizer.lookUp(0x1110, { functionBegin: 0x1100 })).toMatchObject({ name: 'Alpha', certain: true });
    expect(symbolizer.lookUp(0x1234, { functionBegin: 0x1200 })).toMatchObject({ name: 'Alpha', certain: false });
  });

  it('are followed through the address maps of images that were reordered', () => {
    const symbolizer = symbolizerOf({
      ...SPEC,
      omap: {
        sections: SPEC.sections!,
        // Alpha went up to 2100h, Beta down to 1050h; what is from 2180h on is the tool's own.
        toSource: [
          [0x1000, 0],
          [0x1050, 0x1200],
          [0x1060, 0],
          [0x2100, 0x1100],
          [0x2180, 0],
        ],
        fromSource: [
          [0x1100, 0x2100],
          [0x1180, 0],
          [0x1200, 0x1050],
          [0x1210, 0],
        ],
      },
    });
    expect([0x1050, 0x105f, 0x1060, 0x1100, 0x2110, 0x217f, 0x2180].map((rva) => at(symbolizer, rva))).toEqual([
      ...['Beta+0', 'Beta+f', undefined, undefined, 'Alpha+10', 'Alpha+7f', undefined],
    ]);
    expect(symbolizer.lookUp(0x2110)?.line).toBe(11);
  });

  it('are refused by name where they are of another kind', () => {
    const refused = (bytes: Buffer) => {
      try {
        open(bytes);
      } catch (error) {
        if (error instanceof Elf2dmpError) return error.code;
        throw error;
      }
      return undefined;
    };
    expect(refused(Buffer.concat([Buffer.from('BSJB'), Buffer.alloc(0x1000)]))).toBe('pdb-portable');
    expect(
      refused(Buffer.from('Microsoft C/C++ program database 2.00\r\n\x1aJG\0\0'.padEnd(999, '\0'), 'latin1')),
    ).toBe('pdb-msf-2');
    expect(refused(Buffer.concat([Buffer.from('MSCF'), Buffer.alloc(0x1000)]))).toBe('pdb-compressed');
    expect(refused(Buffer.concat([Buffer.from('SZDD'), Buffer.alloc(0x1000)]))).toBe('pdb-compressed');
    expect(refused(Buffer.alloc(0x1000, 'MZ'))).toBe('pdb-unknown');
    expect(refused(Buffer.alloc(0))).toBe('pdb-unknown');
    const whole = makePdb(SPEC);
    expect(refused(whole.subarray(0, 40))).toBe('pdb-damaged');
    expect(refused(whole.subarray(0, whole.length - 1))).toBe('pdb-damaged');
    const noDbi = makePdb({ ...SPEC, pageSize: 4096 });
    // The DBI stream's size in the directory, which is the last page but one.
    noDbi.writeUInt32LE(0xffff_ffff, noDbi.length - 2 * 4096 + 4 + 4 * 3);
    expect(refused(noDbi)).toBe('pdb-without-symbols');
  });
});

describe('decorated names', () => {
  it.each([
    ['KeBugCheckEx', 'KeBugCheckEx'],
    ['_chkstk', 'chkstk'],
    ['__chkstk', '_chkstk'],
    ['?run@@YAXXZ', 'run'],
    ['?run@Engine@core@@QEAAXXZ', 'core::Engine::run'],
    ['??0Engine@core@@QEAA@XZ', 'core::Engine::Engine'],
    ['??1Engine@@QEAA@XZ', 'Engine::~Engine'],
    ['?copy@copy@0@YAXXZ', 'copy::copy::copy'],
    ['?copy@copy@1@YAXXZ', '?copy@copy@1@YAXXZ'],
    ['?x@y@0z@2@YAXXZ', 'z::z::x::y::x'],
    ['?hidden@?A0x12345678@@YAXXZ', "`anonymous namespace'::hidden"],
    ['??$largest@H@@YAHHH@Z', '??$largest@H@@YAHHH@Z'],
    ['??_C@_03ABC@abc@', '??_C@_03ABC@abc@'],
    ['??Yinner@@QEAAAEAV0@_K@Z', 'inner::operator+='],
    ['??R?A0x12345678@@YA_K_K@Z', "`anonymous namespace'::operator()"],
    ['??2@YAPEAX_K@Z', 'operator new'],
    ['??_VEngine@core@@SAXPEAX@Z', 'core::Engine::operator delete[]'],
    ['??_GEngine@@UEAAPEAXI@Z', '??_GEngine@@UEAAPEAXI@Z'],
    ['??BEngine@@QEAA_KXZ', '??BEngine@@QEAA_KXZ'],
    ['??0@QEAA@XZ', '??0@QEAA@XZ'],
    ['?broken', '?broken'],
    ['?', '?'],
  ])('%s is %s', (name, shown) => {
    expect(undecorated(name)).toBe(shown);
  });
});
