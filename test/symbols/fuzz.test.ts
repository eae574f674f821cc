// Damaged PDBs: whatever they hold, the reader gives names or an error of ours, soon.
import { describe, expect, it } from 'vitest';
import { Elf2dmpError } from '../../src/core/errors.ts';
import { BufferSource } from '../../src/source/buffer.ts';
import { PdbFile } from '../../src/symbols/pdb.ts';
import { findStructures } from '../../src/symbols/structures.ts';
import { Symbolizer } from '../../src/symbols/symbolizer.ts';
import { random } from '../guest/memory.ts';
import {
  fieldList,
  makePdb,
  memberRecord,
  numeric,
  type PdbSpec,
  structureRecord,
  typeRecord,
  u32,
} from './pdb-file.ts';

const SPEC: PdbSpec = {
  ids: ['First', 'Second'],
  modules: ['a', 'b', 'c'].map((name, m) => ({
    name: `${name}.obj`,
    file: `C:\\src\\${name}.c`,
    inlinees: [
      [0x1000, 10],
      [0x1001, 20],
    ],
    functions: Array.from({ length: 6 }, (_, i) => ({
      name: `${name}${i}`,
      section: 1,
      offset: 0x100 * (6 * m + i),
      size: 0xe0,
      kind: (['procedure', 'static', 'thunk'] as const)[i % 3]!,
      lines: [
        [0, i],
        [0x20, i + 1],
      ] as const,
      inlined: [
        {
          inlinee: 0x1000,
          annotations: [6, 2, 3, 0x10, 11, 0x28, 4, 0x20],
          inside: [{ inlinee: 0x1001, annotations: [12, 4, 0x14] }],
        },
      ],
    })),
  })),
  structures: [
    {
      name: '_KPRCB',
      size: 0x8800,
      members: Array.from({ length: 30 }, (_, i) => [`m${i}`, 0x420 * i, 0x23] as const),
    },
    { name: '_KDPC', size: 0x40, members: [['DeferredRoutine', 0x18, 0x603]] },
  ],
  types: [
    typeRecord(0x1205, u32(0x75), Buffer.from([5, 27])),
    typeRecord(0x1503, u32(0x1004, 0x23), numeric(0x1234), Buffer.from([0])),
    fieldList(memberRecord('a', 0, 0x1004), memberRecord('b', 8, 0x1005)),
    structureRecord('_KTHREAD', 0x2000, 0x1006),
  ],
  publics: Array.from({ length: 40 }, (_, i) => [`?p${i}@q@@YAXXZ`, 1, 0x60 * i] as const),
  sections: [[0x1000, 0x2000]],
};
const SUBJECTS = [
  makePdb({ ...SPEC, pageSize: 512 }),
  makePdb({ ...SPEC, pageSize: 4096 }),
  makePdb({ ...SPEC, pageSize: 1024, stripped: true }),
  makePdb({
    ...SPEC,
    pageSize: 512,
    omap: {
      sections: [[0x1000, 0x2000]],
      toSource: [
        [0x1000, 0x1800],
        [0x1800, 0x1000],
        [0x2000, 0],
      ],
      fromSource: [
        [0x1000, 0x1800],
        [0x1800, 0x1000],
        [0x2000, 0],
      ],
    },
  }),
];
const RVAS = Array.from({ length: 60 }, (_, i) => 0x1000 + 0x59 * i);
const WORDS = [
  0, 1, 2, 3, 4, 0x7f, 0xff, 0x100, 0xfff, 0x1000, 0xffff, 0x10000, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff,
];

/** Damages a copy: words, bytes, stretches, the length. */
function damaged(seed: number): Buffer {
  const next = random(seed);
  const below = (n: number) => Math.floor(next() * n);
  const subject = SUBJECTS[below(SUBJECTS.length)]!;
  const bytes = Buffer.from(subject);
  for (let count = 1 + below(below(4) === 0 ? 16 : 3); count > 0; count--) {
    const at = below(below(3) === 0 ? 0x40 : bytes.length - 4);
    switch (below(5)) {
      case 0:
        bytes[at] = below(256);
        break;
      case 1:
        bytes.writeUInt32LE(WORDS[below(WORDS.length)]!, at & ~3);
        break;
      case 2:
        bytes.writeUInt16LE(WORDS[below(WORDS.length)]! & 0xffff, at & ~1);
        break;
      case 3:
        bytes.subarray(at, at + 1 + below(64)).fill([0, 0xff, 0x80][below(3)]!);
        break;
      default:
        // From elsewhere in the file.
        bytes.copy(bytes, at, below(bytes.length), below(bytes.length));
    }
  }
  return below(10) === 0 ? bytes.subarray(0, below(bytes.length)) : bytes;
}

/** What came of it; anything but ours is thrown. */
function outcomeOf(bytes: Buffer): string {
  try {
    const symbolizer = new Symbolizer(PdbFile.open(new BufferSource(bytes, 'damaged.pdb')));
    let named = 0;
    for (const rva of RVAS) {
      for (const returnAddress of [false, true]) {
        const found = symbolizer.lookUp(rva, { returnAddress, functionBegin: rva & ~0xff });
        if (!found) continue;
        named++;
        const { name, offset, line, inlined } = found;
        if (typeof name !== 'string' || !Number.isSafeInteger(offset)) throw new Error(`${name}+${offset}`);
        if (inlined.length > 256 || (line !== undefined && line > 0xffffff)) throw new Error(JSON.stringify(found));
      }
    }
    const wanted = { _KPRCB: ['m0', 'm7', 'm29'], _KDPC: ['DeferredRoutine'], _KTHREAD: ['a', 'b'] };
    for (const [name, { size, members }] of findStructures(symbolizer.pdb, wanted)) {
      for (const { offset, size: bytes = 1 } of members.values()) {
        if (offset < 0 || offset + bytes > size) throw new Error(`${name}: ${offset}`);
      }
    }
    return named > 0 ? 'names' : 'none';
  } catch (error) {
    if (error instanceof Elf2dmpError) return error.code;
    throw error;
  }
}

describe('damaged PDBs', () => {
  it('give names or an error of ours', () => {
    const outcomes = new Map<string, number>();
    for (let seed = 1; seed <= 2500; seed++) {
      let outcome: string;
      try {
        outcome = outcomeOf(damaged(seed));
      } catch (cause) {
        throw new Error(`seed ${seed}`, { cause });
      }
      outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
    }
    const kinds = [...outcomes.keys()];
    expect(kinds).toEqual(expect.arrayContaining(['names', 'none', 'pdb-damaged', 'pdb-unknown']));
  });

  it('give the same names as before where a page that is not used is damaged', () => {
    const whole = makePdb({ ...SPEC, padding: 5000 });
    const changed = Buffer.from(whole);
    const at = changed.indexOf(Buffer.alloc(100, 0x5a));
    changed.fill(0xff, at, at + 900);
    const namesOf = (bytes: Buffer) => {
      const symbolizer = new Symbolizer(PdbFile.open(new BufferSource(bytes)));
      return RVAS.map((rva) => symbolizer.lookUp(rva));
    };
    expect(namesOf(changed)).toEqual(namesOf(whole));
  });

  it.each(SUBJECTS.map((bytes, i) => [i, bytes] as const))('cut anywhere are refused (%i)', (_, bytes) => {
    for (let length = 0; length < bytes.length; length += 97) {
      expect(outcomeOf(bytes.subarray(0, length))).toMatch(/^pdb-/);
    }
  });
});
