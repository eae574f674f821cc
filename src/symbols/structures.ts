/** Where the members of structures are, by the types in a PDB's TPI stream. */
import {
  ArrayRecord,
  BitfieldRecord,
  ClassRecord,
  EnumRecord,
  FIRST_TYPE,
  LF_ARRAY,
  LF_BCLASS,
  LF_BITFIELD,
  LF_CLASS,
  LF_ENUM,
  LF_ENUMERATE,
  LF_FIELDLIST,
  LF_INDEX,
  LF_IVBCLASS,
  LF_MEMBER,
  LF_METHOD,
  LF_MODIFIER,
  LF_NESTTYPE,
  LF_ONEMETHOD,
  LF_PAD,
  LF_POINTER,
  LF_STMEMBER,
  LF_STRUCTURE,
  LF_UNION,
  LF_VBCLASS,
  LF_VFUNCTAB,
  MemberRecord,
  ModifierRecord,
  PointerRecord,
  PROPERTY_FORWARD,
  SIMPLE_POINTER_SIZES,
  SIMPLE_TYPE_SIZES,
  UnionRecord,
} from '../formats/codeview.ts';
import { STREAM_TPI } from '../formats/pdb.ts';
import type { PdbFile } from './pdb.ts';
import { numericSize, numericValue, type TypeRecord, TypeRecords } from './type-records.ts';

/** A member of a structure. */
export interface Member {
  /** From the structure's start, bytes. Of a bit field, where the unit begins that its bits are in. */
  offset: number;
  /** Bytes; of a bit field, those of its unit. undefined: of a type that is not described. */
  size: number | undefined;
  /** The bits that it has of its unit. */
  bits: { position: number; length: number } | undefined;
}

/** A structure, with those of its members that were asked for and that it has. */
export interface Structure {
  /** Bytes. */
  size: number;
  members: ReadonlyMap<string, Member>;
}

/** Members' names by the structures' names. */
export type WantedMembers = Readonly<Record<string, readonly string[]>>;

/** Field lists that one structure's list continues in; each holds up to 64 KiB of members. */
const MAX_LISTS = 64;
/** Types that are made of other types: compilers stop at two or three. */
const MAX_DEPTH = 8;

/** Kinds of members that begin like LF_MEMBER and have an offset behind their type. */
const WITH_OFFSET = new Set([LF_MEMBER, LF_BCLASS]);
/** Likewise without an offset; LF_METHOD has a count in the place of attributes, LF_NESTTYPE padding. */
const WITHOUT_OFFSET = new Set([LF_STMEMBER, LF_METHOD, LF_NESTTYPE]);
const VIRTUAL_BASES = new Set([LF_VBCLASS, LF_IVBCLASS]);
/** Kinds of methods (bits 2 to 4 of the attributes) that introduce a virtual one: an offset in its table follows. */
const INTRODUCING = new Set([4, 6]);

/** A member as its list has it. */
interface ListedMember {
  name: string;
  offset: number;
  type: number;
}

/** A record of the list, and where the next begins. */
interface Listed {
  member: ListedMember | undefined;
  /** The list that goes on in another record. */
  continued: number | undefined;
  next: number;
}

/**
 * Finds structures by their names, in one pass over the stream: its hash table is not believed. A name that several
 * different structures have is left out. Throws `Elf2dmpError` where the stream is damaged.
 */
export function findStructures(pdb: PdbFile, wanted: WantedMembers): Map<string, Structure> {
  const stream = pdb.msf.stream(STREAM_TPI);
  const found = new Map<string, Structure>();
  if (!stream?.size) return found;
  const types = new TypeReader(new TypeRecords(stream));
  const definitions = new Map<string, Definition | 'ambiguous'>();
  const names = new Set(Object.keys(wanted));
  for (const record of types.records.all()) {
    const definition = definitionIn(record, names);
    if (!definition) continue;
    const known = definitions.get(definition.name);
    const same = known === undefined || (known !== 'ambiguous' && known.size === definition.size);
    definitions.set(definition.name, same ? (known ?? definition) : 'ambiguous');
  }
  for (const [name, definition] of definitions) {
    if (definition === 'ambiguous') continue;
    const { size, fields } = definition;
    found.set(name, { size, members: types.members(fields, new Set(wanted[name]), size) });
  }
  return found;
}

interface Definition {
  name: string;
  size: number;
  /** Type index of its field list. */
  fields: number;
}

/** The structure or union that a record describes, if its name is one of these. */
function definitionIn({ window, at, end, kind }: TypeRecord, names: ReadonlySet<string>): Definition | undefined {
  const layout = layoutOf(kind);
  if (!layout || at + layout.size > end) return undefined;
  const { Properties, Fields } = window.read(layout, at);
  if ((Properties & PROPERTY_FORWARD) !== 0) return undefined;
  const bytes = numericSize(window, at + layout.size, end);
  const size = bytes === undefined ? undefined : numericValue(window, at + layout.size, end);
  if (bytes === undefined || size === undefined) return undefined;
  const name = window.text(at + layout.size + bytes, end);
  return names.has(name) ? { name, size, fields: Fields } : undefined;
}

function layoutOf(kind: number): typeof ClassRecord | typeof UnionRecord | undefined {
  if (kind === LF_STRUCTURE || kind === LF_CLASS) return ClassRecord;
  return kind === LF_UNION ? UnionRecord : undefined;
}

class TypeReader {
  readonly records: TypeRecords;

  constructor(records: TypeRecords) {
    this.records = records;
  }

  /** @param size of the structure: no member reaches beyond it */
  members(fields: number, names: ReadonlySet<string>, size: number): Map<string, Member> {
    const listed: ListedMember[] = [];
    const seen = new Set<number>();
    for (let list: number | undefined = fields; list !== undefined && !seen.has(list) && seen.size < MAX_LISTS; ) {
      seen.add(list);
      list = this.#readList(list, names, listed);
    }
    const members = new Map<string, Member>();
    for (const { name, offset, type } of listed) {
      const member = { offset, ...this.#typeOf(type) };
      // What lies outside cannot be a member.
      if (offset + (member.size ?? 1) <= size && !members.has(name)) members.set(name, member);
    }
    return members;
  }

  /** Adds the members of one list that have these names; the list that it goes on in. */
  #readList(index: number, names: ReadonlySet<string>, found: ListedMember[]): number | undefined {
    const record = this.records.find(index);
    if (record?.kind !== LF_FIELDLIST) return undefined;
    const { window, end } = record;
    for (let at = record.at + 4; at + 4 <= end; ) {
      const pad = window.bytes(at, 1)[0]!;
      if (pad > LF_PAD) {
        at += pad - LF_PAD;
        continue;
      }
      const { member, continued, next } = readMember(record, at);
      if (continued !== undefined) return continued;
      if (member && names.has(member.name)) found.push(member);
      at = next;
    }
    return undefined;
  }

  #typeOf(type: number, depth = 0): Pick<Member, 'size' | 'bits'> {
    const unknown = { size: undefined, bits: undefined };
    if (type < FIRST_TYPE) return { size: simpleSize(type), bits: undefined };
    const record = depth < MAX_DEPTH ? this.records.find(type) : undefined;
    if (!record) return unknown;
    const { window, at, end, kind } = record;
    const fits = (size: number) => at + size <= end;
    if (kind === LF_MODIFIER && fits(ModifierRecord.size)) {
      return this.#typeOf(window.read(ModifierRecord, at).Type, depth + 1);
    }
    if (kind === LF_ENUM && fits(EnumRecord.size)) {
      return this.#typeOf(window.read(EnumRecord, at).Underlying, depth + 1);
    }
    if (kind === LF_BITFIELD && fits(BitfieldRecord.size)) {
      const { Type, Length, Position } = window.read(BitfieldRecord, at);
      const { size } = this.#typeOf(Type, depth + 1);
      const inUnit = size !== undefined && Length > 0 && Position + Length <= 8 * size;
      return inUnit ? { size, bits: { position: Position, length: Length } } : unknown;
    }
    if (kind === LF_POINTER && fits(PointerRecord.size)) {
      return { size: (window.read(PointerRecord, at).Attributes >>> 13) & 0x3f || undefined, bits: undefined };
    }
    const sized = kind === LF_ARRAY ? ArrayRecord : layoutOf(kind);
    if (!sized || !fits(sized.size)) return unknown;
    const forward = kind !== LF_ARRAY && (window.u16(at + ClassRecord.offsetOf('Properties')) & PROPERTY_FORWARD) !== 0;
    return { size: forward ? undefined : numericValue(window, at + sized.size, end), bits: undefined };
  }
}

/** One record of a field list. Throws `Elf2dmpError` for a kind that is none of a list's. */
function readMember({ window, end }: TypeRecord, at: number): Listed {
  const kind = window.u16(at);
  const need = (bytes: number | undefined): number => {
    if (bytes === undefined || at + bytes > end) {
      throw window.stream.damaged(at, 'a member of a structure', `kind 0x${kind.toString(16)}`);
    }
    return at + bytes;
  };
  const listed = (from: number, offset: number | undefined): Listed => {
    const text = window.bytes(from, end - from);
    const zero = text.indexOf(0);
    const length = zero < 0 ? text.length : zero;
    const name = text.toString('utf8', 0, length);
    const { Type: type } = offset === undefined ? { Type: 0 } : window.read(MemberRecord, at);
    const member = offset === undefined ? undefined : { name, offset, type };
    return { member, continued: undefined, next: from + length + 1 };
  };
  const skipped = (next: number): Listed => ({ member: undefined, continued: undefined, next });
  if (kind === LF_INDEX) {
    need(MemberRecord.size);
    return { member: undefined, continued: window.u32(at + 4), next: end };
  }
  if (kind === LF_VFUNCTAB) return skipped(need(MemberRecord.size));
  if (WITHOUT_OFFSET.has(kind)) return listed(need(MemberRecord.size), undefined);
  if (kind === LF_ONEMETHOD) {
    need(MemberRecord.size);
    const introduces = INTRODUCING.has((window.u16(at + 2) >>> 2) & 7);
    return listed(need(MemberRecord.size + (introduces ? 4 : 0)), undefined);
  }
  const valueAt = need(kind === LF_ENUMERATE ? 4 : MemberRecord.size + (VIRTUAL_BASES.has(kind) ? 4 : 0));
  const bytes = numericSize(window, valueAt, end);
  const behind = need(bytes === undefined ? undefined : valueAt - at + bytes);
  if (kind === LF_ENUMERATE) return listed(behind, undefined);
  if (VIRTUAL_BASES.has(kind)) {
    const more = numericSize(window, behind, end);
    return skipped(need(more === undefined ? undefined : behind - at + more));
  }
  if (!WITH_OFFSET.has(kind)) need(undefined);
  // Base classes have no names.
  return kind === LF_MEMBER ? listed(behind, numericValue(window, valueAt, end)) : skipped(behind);
}

/** Bytes of a type without a record; undefined: it has none, or is not known. */
const simpleSize = (type: number): number | undefined =>
  type >> 8 === 0 ? SIMPLE_TYPE_SIZES.get(type) : SIMPLE_POINTER_SIZES.get(type >> 8);
