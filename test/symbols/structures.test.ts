// Where members of structures are, by handmade types.
import { describe, expect, it } from 'vitest';
import { Elf2dmpError } from '../../src/core/errors.ts';
import { BufferSource } from '../../src/source/buffer.ts';
import { PdbFile } from '../../src/symbols/pdb.ts';
import { findStructures, type WantedMembers } from '../../src/symbols/structures.ts';
import {
  fieldList,
  makePdb,
  memberRecord,
  numeric,
  type PdbSpec,
  structureRecord,
  typeRecord,
  u16,
  u32,
} from './pdb-file.ts';

const find = (spec: PdbSpec, wanted: WantedMembers) => {
  const found = findStructures(PdbFile.open(new BufferSource(makePdb(spec))), wanted);
  return Object.fromEntries(
    [...found].map(([name, { size, members }]) => [
      name,
      { size, ...Object.fromEntries([...members].map(([member, m]) => [member, [m.offset, m.size, m.bits]])) },
    ]),
  );
};
const text = (value: string) => Buffer.from(`${value}\0`);
/** Of a member whose type is 0x1000, behind a first record that describes it. */
const typed = (type: Buffer, size = 0x100) =>
  find({ types: [type, fieldList(memberRecord('m', 8, 0x1000)), structureRecord('_S', size, 0x1001)] }, { _S: ['m'] })[
    '_S'
  ]?.['m' as never];

describe('members of structures', () => {
  it('are those that were asked for, where the type has them', () => {
    const members = [
      ['CurrentThread', 8, 0x603],
      ['Number', 0x24, 0x75],
      ['DpcRoutineActive', 0x312a, 0x20],
      ['Context', 0x9000, 0x603],
    ] as const;
    const spec = { structures: [{ name: '_KPRCB', size: 0xaf00, members }] };
    expect(find(spec, { _KPRCB: ['DpcRoutineActive', 'Context', 'Nothing'], _KNOTHING: ['a'] })).toEqual({
      _KPRCB: { size: 0xaf00, DpcRoutineActive: [0x312a, 1, undefined], Context: [0x9000, 8, undefined] },
    });
  });

  it('have the sizes of their types', () => {
    expect(typed(typeRecord(0x1002, u32(0x603, (8 << 13) | 0x1000c)))).toEqual([8, 8, undefined]);
    expect(typed(typeRecord(0x1001, u32(0x74), u16(2)))).toEqual([8, 4, undefined]);
    expect(typed(typeRecord(0x1507, u16(1, 0), u32(0x22, 0), text('_E')))).toEqual([8, 4, undefined]);
    expect(typed(typeRecord(0x1205, u32(0x75), Buffer.from([5, 27])))).toEqual([8, 4, { position: 27, length: 5 }]);
    expect(typed(typeRecord(0x1503, u32(0x20, 0x23), numeric(15), text('')))).toEqual([8, 15, undefined]);
    expect(typed(typeRecord(0x1506, u16(2, 0), u32(0), numeric(24), text('_U')))).toEqual([8, 24, undefined]);
  });

  it('have no size where the type does not say', () => {
    // A name without members, a bit field beyond its unit, a type of types without end.
    expect(typed(structureRecord('_F', 0, 0, 0x80))).toEqual([8, undefined, undefined]);
    expect(typed(typeRecord(0x1205, u32(0x20), Buffer.from([5, 4])))).toEqual([8, undefined, undefined]);
    expect(typed(typeRecord(0x1001, u32(0x1000), u16(2)))).toEqual([8, undefined, undefined]);
  });

  it('lie in the structure', () => {
    expect(typed(typeRecord(0x1503, u32(0x20, 0x23), numeric(15), text('')), 22)).toBeUndefined();
    expect(typed(typeRecord(0x1503, u32(0x20, 0x23), numeric(15), text('')), 23)).toEqual([8, 15, undefined]);
  });

  it('are found where the list goes on in another record, and among what is no member', () => {
    const others = Buffer.concat([
      Buffer.concat([u16(0x1400, 3), u32(0x1000), numeric(0), Buffer.from([0xf2, 0xf1])]),
      Buffer.concat([u16(0x1502, 3), numeric(0x12345), text('e')]),
      Buffer.concat([u16(0x1510, 0), u32(0x75), text('Nested'), Buffer.from([0xf1])]),
      Buffer.concat([u16(0x150f, 2), u32(0x75), text('Methods')]),
      Buffer.concat([u16(0x1511, 3 | (4 << 2)), u32(0x75, 8), text('Virt'), Buffer.from([0xf3, 0xf2, 0xf1])]),
      Buffer.concat([u16(0x1511, 3), u32(0x75), text('one')]),
      Buffer.concat([u16(0x150e, 3), u32(0x75), text('Static!')]),
      Buffer.concat([u16(0x1409, 0), u32(0x75)]),
      Buffer.concat([u16(0x1401, 3), u32(0x75, 0x75), numeric(8), numeric(1)]),
    ]);
    const types = [
      fieldList(memberRecord('last', 0x8010, 0x23)),
      fieldList(others, memberRecord('first', 0, 0x23), Buffer.concat([u16(0x1404, 0), u32(0x1000)])),
      structureRecord('_S', 0x9000, 0x1001),
    ];
    expect(find({ types }, { _S: ['first', 'last', 'Nested', 'Static!'] })).toEqual({
      _S: { size: 0x9000, first: [0, 8, undefined], last: [0x8010, 8, undefined] },
    });
  });

  it('are of the definition, not of names without members; and of none where two differ', () => {
    const members = fieldList(memberRecord('m', 0, 0x23));
    const forward = structureRecord('_S', 0, 0, 0x80);
    const own = structureRecord('_S', 8, 0x1000);
    expect(find({ types: [members, forward, own, forward, own] }, { _S: ['m'] })).toMatchObject({ _S: { size: 8 } });
    expect(find({ types: [members, own, structureRecord('_S', 16, 0x1000), own] }, { _S: ['m'] })).toEqual({});
  });

  it('end where a list turns back to itself', () => {
    const again = Buffer.concat([u16(0x1404, 0), u32(0x1000)]);
    const types = [fieldList(memberRecord('m', 0, 0x23), again), structureRecord('_S', 8, 0x1000)];
    expect(find({ types }, { _S: ['m'] })).toEqual({ _S: { size: 8, m: [0, 8, undefined] } });
  });

  it('are refused in a list of nothing known', () => {
    const types = [fieldList(Buffer.concat([u16(0x1599, 0), u32(0)])), structureRecord('_S', 8, 0x1000)];
    expect(() => find({ types }, { _S: ['m'] })).toThrow(Elf2dmpError);
  });

  it('are none in a PDB without types', () => {
    expect(find({}, { _KPRCB: ['Number'] })).toEqual({});
  });
});
