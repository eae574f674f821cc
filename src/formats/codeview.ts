/** CodeView records in PDBs: symbols, types, lines (Microsoft's cvinfo.h, LLVM's DebugInfo/CodeView). */
import { struct, u8, u16, u32 } from '../core/struct.ts';

/** A module's symbols begin with this u32. */
export const CV_SIGNATURE_C13 = 4;

/** How every record of symbols and types begins. Length counts what follows it. */
export const RecordHeader = struct({ name: 'RECORD', size: 4, fields: { Length: u16(0), Kind: u16(2) } });

/** Kinds of symbols. */
export const S_END = 0x0006;
export const S_THUNK32 = 0x1102;
export const S_BLOCK32 = 0x1103;
export const S_WITH32 = 0x1104;
export const S_PUB32 = 0x110e;
export const S_LPROC32 = 0x110f;
export const S_GPROC32 = 0x1110;
export const S_SEPCODE = 0x1132;
export const S_LPROC32_ID = 0x1146;
export const S_GPROC32_ID = 0x1147;
export const S_INLINESITE = 0x114d;
export const S_INLINESITE_END = 0x114e;
export const S_PROC_ID_END = 0x114f;
export const S_LPROC32_DPC = 0x1155;
export const S_LPROC32_DPC_ID = 0x1156;
export const S_INLINESITE2 = 0x115d;

/** A zero-terminated name follows each of these but inline sites, which have annotations. */
export const ProcSym = struct({
  name: 'PROCSYM32',
  size: 39,
  fields: { End: u32(8), Size: u32(16), Offset: u32(32), Section: u16(36) },
});
/** Code that only leads to other code. */
export const ThunkSym = struct({
  name: 'THUNKSYM32',
  size: 25,
  fields: { End: u32(8), Offset: u32(16), Section: u16(20), Size: u16(22), Ordinal: u8(24) },
});
/** What the linker knows by name. */
export const PublicSym = struct({
  name: 'PUBSYM32',
  size: 14,
  fields: { Flags: u32(4), Offset: u32(8), Section: u16(12) },
});
/** A call that was inlined; annotations follow. */
export const InlineSiteSym = struct({
  name: 'INLINESITESYM',
  size: 16,
  fields: { End: u32(8), Inlinee: u32(12) },
});
/** INLINESITESYM2 has the number of invocations before the annotations. */
export const INLINE_SITE_2_SIZE = 20;

/**
 * Inlinees with this bit are another module's, as link-time code generation makes them: bits 20 to 30 number an entry
 * of this module's imports, bits 0 to 19 one of its references. That is an id of the other module, whose exports say
 * which of the IPI stream's it is.
 */
export const CROSS_MODULE_INLINEE = 0x8000_0000;
export const CROSS_MODULE_IMPORT_SHIFT = 20;
export const CROSS_MODULE_IMPORT_MASK = 0x7ff;
export const CROSS_MODULE_REFERENCE_MASK = 0xf_ffff;

/** BinaryAnnotationOpcode: operands are compressed unsigned integers. */
export const BA_END = 0;
export const BA_CODE_OFFSET = 1;
export const BA_CHANGE_CODE_OFFSET_BASE = 2;
export const BA_CHANGE_CODE_OFFSET = 3;
export const BA_CHANGE_CODE_LENGTH = 4;
export const BA_CHANGE_FILE = 5;
export const BA_CHANGE_LINE_OFFSET = 6;
export const BA_CHANGE_CODE_AND_LINE_OFFSET = 11;
export const BA_CHANGE_LENGTH_AND_CODE_OFFSET = 12;
export const BA_LAST = 13;

/** Of a C13 subsection; Size bytes follow, padded to 4. */
export const SubsectionHeader = struct({
  name: 'CV_DebugSSubsectionHeader',
  size: 8,
  fields: { Kind: u32(0), Size: u32(4) },
});
/** Kinds of C13 subsections. */
export const SUBSECTION_LINES = 0xf2;
export const SUBSECTION_CHECKSUMS = 0xf4;
export const SUBSECTION_INLINEES = 0xf6;
export const SUBSECTION_IMPORTS = 0xf7;
export const SUBSECTION_EXPORTS = 0xf8;

/** The header of a lines subsection; blocks of lines, one for each file, follow. */
export const LinesHeader = struct({
  name: 'CV_DebugSLinesHeader',
  size: 12,
  fields: { Offset: u32(0), Section: u16(4), Flags: u16(6), Size: u32(8) },
});
/** Flags of LinesHeader. */
export const LINES_HAVE_COLUMNS = 1;

/** File: offset in the checksums subsection. Size is that of header, lines and columns. */
export const LinesBlock = struct({
  name: 'CV_DebugSLinesFileBlockHeader',
  size: 12,
  fields: { File: u32(0), Count: u32(4), Size: u32(8) },
});
/** Line: the first line in bits 0 to 23. */
export const LineEntry = struct({ name: 'CV_Line', size: 8, fields: { Offset: u32(0), Line: u32(4) } });
export const LINE_MASK = 0xff_ffff;
/** Lines that stand for code without a source line: the debugger steps over it, or always into it. */
export const HIDDEN_LINES: readonly number[] = [0xfeefee, 0xf00f00];

/** A u32 before the entries of an inlinees subsection: with 1, each has a count of further files and their u32s. */
export const INLINEES_PLAIN = 0;
export const INLINEES_WITH_FILES = 1;
export const InlineeLine = struct({
  name: 'InlineeSourceLine',
  size: 12,
  fields: { Inlinee: u32(0), File: u32(4), Line: u32(8) },
});

/** An entry of the imports: the other module's name in `/names`, and how many references (u32) follow. */
export const CrossScopeImport = struct({
  name: 'CrossScopeReferences',
  size: 8,
  fields: { Module: u32(0), Count: u32(4) },
});
/** Local: the id that other modules use. Global: its index in the IPI stream. */
export const CrossScopeExport = struct({
  name: 'LocalIdAndGlobalIdPair',
  size: 8,
  fields: { Local: u32(0), Global: u32(4) },
});

/** Kinds of types and ids. */
export const LF_MODIFIER = 0x1001;
export const LF_POINTER = 0x1002;
export const LF_FIELDLIST = 0x1203;
export const LF_BITFIELD = 0x1205;
export const LF_ARRAY = 0x1503;
export const LF_CLASS = 0x1504;
export const LF_ENUM = 0x1507;
export const LF_STRUCTURE = 0x1505;
export const LF_UNION = 0x1506;
export const LF_INTERFACE = 0x1519;
export const LF_FUNC_ID = 0x1601;
export const LF_MFUNC_ID = 0x1602;
export const LF_STRING_ID = 0x1605;

/** LF_FUNC_ID: Scope is the string of a namespace, or 0. LF_MFUNC_ID: Scope is the class's type. The name follows. */
export const FunctionId = struct({ name: 'lfFuncId', size: 12, fields: { Scope: u32(4) } });
/** A string follows. */
export const StringId = struct({ name: 'lfStringId', size: 8, fields: { Substrings: u32(4) } });
/** The size as a numeric leaf, and the name, follow. */
export const ClassRecord = struct({
  name: 'lfClass',
  size: 20,
  fields: { Count: u16(4), Properties: u16(6), Fields: u32(8) },
});
export const UnionRecord = struct({
  name: 'lfUnion',
  size: 12,
  fields: { Count: u16(4), Properties: u16(6), Fields: u32(8) },
});
/** CV_prop_t: it names a type that another record describes. */
export const PROPERTY_FORWARD = 0x80;

export const ModifierRecord = struct({ name: 'lfModifier', size: 10, fields: { Type: u32(4) } });
/** Attributes: the pointer's bytes in bits 13 to 18. */
export const PointerRecord = struct({ name: 'lfPointer', size: 12, fields: { Type: u32(4), Attributes: u32(8) } });
export const BitfieldRecord = struct({
  name: 'lfBitfield',
  size: 10,
  fields: { Type: u32(4), Length: u8(8), Position: u8(9) },
});
/** Its bytes as a numeric leaf follow. */
export const ArrayRecord = struct({ name: 'lfArray', size: 12, fields: { Element: u32(4), Index: u32(8) } });
export const EnumRecord = struct({ name: 'lfEnum', size: 16, fields: { Underlying: u32(8) } });

/** What LF_FIELDLIST holds, one after another, each padded to 4 bytes with bytes above LF_PAD. */
export const LF_BCLASS = 0x1400;
export const LF_VBCLASS = 0x1401;
export const LF_IVBCLASS = 0x1402;
export const LF_INDEX = 0x1404;
export const LF_VFUNCTAB = 0x1409;
export const LF_ENUMERATE = 0x1502;
export const LF_MEMBER = 0x150d;
export const LF_STMEMBER = 0x150e;
export const LF_METHOD = 0x150f;
export const LF_NESTTYPE = 0x1510;
export const LF_ONEMETHOD = 0x1511;
export const LF_PAD = 0xf0;
/** How members begin: attributes, then a type; or padding, then a type. Their offset as a numeric leaf and name follow. */
export const MemberRecord = struct({ name: 'lfMember', size: 8, fields: { Attributes: u16(2), Type: u32(4) } });

/** Types below this have no record: bits 0 to 7 say which one, bits 8 to 11 that it is a pointer, and to what memory. */
export const FIRST_TYPE = 0x1000;
/** Bytes of these by bits 0 to 7: T_CHAR, T_SHORT, … of cvinfo.h. */
export const SIMPLE_TYPE_SIZES: ReadonlyMap<number, number> = new Map([
  ...[0x10, 0x20, 0x30, 0x68, 0x69, 0x70, 0x7c].map((type) => [type, 1] as const),
  ...[0x11, 0x21, 0x31, 0x71, 0x72, 0x73, 0x7a].map((type) => [type, 2] as const),
  ...[0x08, 0x12, 0x22, 0x32, 0x40, 0x74, 0x75, 0x7b].map((type) => [type, 4] as const),
  ...[0x13, 0x23, 0x33, 0x41, 0x76, 0x77].map((type) => [type, 8] as const),
  ...[0x14, 0x24, 0x78, 0x79].map((type) => [type, 16] as const),
]);
/** Bytes of pointers by bits 8 to 11: T_32P…, T_64P…. */
export const SIMPLE_POINTER_SIZES: ReadonlyMap<number, number> = new Map([
  [4, 4],
  [5, 4],
  [6, 8],
]);

/** A numeric leaf below this is the value itself; the others (LF_CHAR, …) name the value's type. */
export const LF_NUMERIC = 0x8000;
export const LF_SHORT = 0x8001;
export const LF_USHORT = 0x8002;
export const LF_LONG = 0x8003;
/** Bytes of the values that follow numeric leaves. */
export const NUMERIC_LEAF_SIZES: ReadonlyMap<number, number> = new Map([
  [0x8000, 1],
  [LF_SHORT, 2],
  [LF_USHORT, 2],
  [LF_LONG, 4],
  [0x8004, 4],
  [0x8009, 8],
  [0x800a, 8],
]);
