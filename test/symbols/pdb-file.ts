/**
 * Small PDBs in memory, made by hand: every offset is literal and nothing comes from the product. What lld-link does not
 * make is made here: small pages, a page map of several pages, address maps, stripped PDBs, damage.
 */

export interface PdbFunction {
  name: string;
  /** Section, from 1, and offset in it. */
  section: number;
  offset: number;
  size: number;
  /** A record instead of S_GPROC32. */
  kind?: 'procedure' | 'static' | 'thunk';
  inlined?: readonly InlinedFunction[];
  /** Offset from the function's start, and line. */
  lines?: readonly (readonly [offset: number, line: number])[];
}

export interface InlinedFunction {
  /** Index in the IPI stream. */
  inlinee: number;
  /** Binary annotations. */
  annotations: readonly number[];
  inside?: readonly InlinedFunction[];
}

export interface PdbModuleSpec {
  name: string;
  functions: readonly PdbFunction[];
  /** The file of all its lines. */
  file?: string;
  inlinees?: readonly (readonly [inlinee: number, line: number])[];
  /** Ids that it has from other modules, and those that others have from it. */
  imports?: readonly (readonly [module: string, ids: readonly number[]])[];
  exports?: readonly (readonly [local: number, id: number])[];
}

export interface StructureSpec {
  name: string;
  size: number;
  /** Name, offset and type: those below 0x1000 need no record. */
  members: readonly (readonly [name: string, offset: number, type: number])[];
}

export interface PdbSpec {
  pageSize?: number;
  guid?: string;
  age?: number;
  /** The info stream's; the DBI stream has `age`. */
  infoAge?: number;
  sections?: readonly (readonly [rva: number, size: number])[];
  modules?: readonly PdbModuleSpec[];
  publics?: readonly (readonly [name: string, section: number, offset: number])[];
  /** Names of LF_FUNC_IDs from 0x1000 on. */
  ids?: readonly string[];
  /** Types from 0x1000 on: each has a list of its members, then its own record. */
  structures?: readonly StructureSpec[];
  /** Records of types behind those, whole. */
  types?: readonly Buffer[];
  omap?: {
    toSource: readonly (readonly [from: number, to: number])[];
    fromSource: readonly (readonly [from: number, to: number])[];
    /** Sections before the image was reordered. */
    sections: readonly (readonly [rva: number, size: number])[];
  };
  /** Without modules, lines and section contributions, as symbol servers publish it. */
  stripped?: boolean;
  /** Bytes of a stream of no meaning. */
  padding?: number;
}

export const GUID = '00112233445566778899AABBCCDDEEFF';

export const u16 = (...values: number[]) => Buffer.from(Uint16Array.from(values).buffer);
export const u32 = (...values: number[]) => Buffer.from(Uint32Array.from(values.map((v) => v >>> 0)).buffer);
const text = (value: string) => Buffer.from(`${value}\0`, 'utf8');
const padded = (bytes: Buffer, to = 4) => Buffer.concat([bytes, Buffer.alloc((to - (bytes.length % to)) % to)]);

/** A numeric leaf: the value itself, or LF_ULONG. */
export const numeric = (value: number): Buffer =>
  value < 0x8000 ? u16(value) : Buffer.concat([u16(0x8004), u32(value)]);

/** Padded with LF_PADs, which say how many bytes follow. */
function withPads(body: Buffer): Buffer {
  const pad = (4 - (body.length % 4)) % 4;
  return Buffer.concat([body, Buffer.from(Array.from({ length: pad }, (_, i) => 0xf0 + pad - i))]);
}

/** A type: its length counts what follows it. */
export function typeRecord(kind: number, ...parts: Buffer[]): Buffer {
  const body = withPads(Buffer.concat([u16(0, kind), ...parts]));
  body.writeUInt16LE(body.length - 2, 0);
  return body;
}

export const memberRecord = (name: string, offset: number, type: number): Buffer =>
  withPads(Buffer.concat([u16(0x150d, 3), u32(type), numeric(offset), text(name)]));

/** LF_STRUCTURE. @param flags of the type: 0x80 is a name without members */
export const structureRecord = (name: string, size: number, list: number, flags = 0): Buffer =>
  typeRecord(0x1505, u16(0, flags), u32(list, 0, 0), numeric(size), text(name));

export const fieldList = (...members: Buffer[]): Buffer => typeRecord(0x1203, ...members);

const record = (kind: number, ...parts: Buffer[]): Buffer => {
  const body = padded(Buffer.concat([u16(kind), ...parts, Buffer.alloc(2)]).subarray(0, -2), 4);
  // The length's own two bytes count for the alignment.
  const aligned = Buffer.concat([body, Buffer.alloc((6 - (body.length % 4)) % 4)]);
  return Buffer.concat([u16(aligned.length), aligned]);
};

/** The GUID's bytes, from how it is printed. */
function guidBytes(guid: string): Buffer {
  const bytes = Buffer.from(guid, 'hex');
  bytes.subarray(0, 4).reverse();
  bytes.subarray(4, 6).reverse();
  bytes.subarray(6, 8).reverse();
  return bytes;
}

function functionRecords(f: PdbFunction): Buffer {
  if (f.kind === 'thunk') {
    const fields = [u32(0, 0, 0, f.offset), u16(f.section, f.size), Buffer.from([0])];
    return Buffer.concat([record(0x1102, ...fields, text(f.name)), record(0x0006)]);
  }
  const kind = f.kind === 'static' ? 0x110f : 0x1110;
  const fields = [u32(0, 0, 0, f.size, 0, 0, 0, f.offset), u16(f.section), Buffer.from([0])];
  return Buffer.concat([
    record(kind, ...fields, text(f.name)),
    ...(f.inlined ?? []).map(inlineRecords),
    record(0x0006),
  ]);
}

const inlineRecords = (site: InlinedFunction): Buffer =>
  Buffer.concat([
    record(0x114d, u32(0, 0, site.inlinee), Buffer.from(site.annotations)),
    // A block between an inlined call and those inside it.
    record(0x1103, u32(0, 0, 0, 0), u16(1), text('')),
    ...(site.inside ?? []).map(inlineRecords),
    record(0x0006),
    record(0x114e),
  ]);

const subsection = (kind: number, body: Buffer): Buffer => Buffer.concat([u32(kind, body.length), padded(body)]);

interface MadeModule {
  symbols: Buffer;
  lines: Buffer;
}

function makeModule(spec: PdbModuleSpec, nameOf: (text: string) => number): MadeModule {
  const fileName = nameOf(spec.file ?? '');
  const symbols = Buffer.concat([u32(4), ...spec.functions.map(functionRecords)]);
  const lines = [subsection(0xf4, Buffer.concat([u32(fileName), Buffer.from([4, 1]), Buffer.alloc(4)]))];
  for (const f of spec.functions) {
    if (!f.lines) continue;
    const entries = f.lines.map(([offset, line]) => u32(offset, line | 0x8000_0000));
    const block = Buffer.concat([u32(0, entries.length, 12 + 8 * entries.length), ...entries]);
    lines.push(subsection(0xf2, Buffer.concat([u32(f.offset), u16(f.section, 0), u32(f.size), block])));
  }
  const inlinees = (spec.inlinees ?? []).map(([inlinee, line]) => u32(inlinee, 0, line));
  if (inlinees.length > 0) lines.push(subsection(0xf6, Buffer.concat([u32(0), ...inlinees])));
  const imports = (spec.imports ?? []).map(([module, ids]) => u32(nameOf(module), ids.length, ...ids));
  if (imports.length > 0) lines.push(subsection(0xf7, Buffer.concat(imports)));
  if (spec.exports) lines.push(subsection(0xf8, Buffer.concat(spec.exports.map((each) => u32(...each)))));
  return { symbols, lines: spec.file === undefined ? Buffer.alloc(0) : Buffer.concat(lines) };
}

const sectionHeaders = (sections: readonly (readonly [number, number])[]): Buffer =>
  Buffer.concat(
    sections.map(([rva, size]) => {
      const header = Buffer.alloc(40);
      header.write('.text');
      header.writeUInt32LE(size, 8);
      header.writeUInt32LE(rva, 12);
      header.writeUInt32LE(0x6000_0020, 36);
      return header;
    }),
  );

const pairs = (entries: readonly (readonly [number, number])[]) => Buffer.concat(entries.map((each) => u32(...each)));

/** The streams, by number. */
function makeStreams(spec: PdbSpec): Buffer[] {
  const { guid = GUID, age = 1, infoAge = age, sections = [[0x1000, 0x1000]], modules = [], publics = [] } = spec;
  const streams: Buffer[] = Array.from({ length: 5 }, () => Buffer.alloc(0));
  const add = (bytes: Buffer): number => streams.push(bytes) - 1;

  const files = modules.flatMap((m) => [m.file ?? '', ...(m.imports ?? []).map(([module]) => module)]);
  const strings = Buffer.concat([Buffer.from([0]), ...files.map(text)]);
  const nameOf = (each: string) => 1 + files.slice(0, files.indexOf(each)).reduce((sum, f) => sum + f.length + 1, 0);
  const names = add(Buffer.concat([u32(0xeffe_effe, 1, strings.length), strings, u32(0), u32(files.length)]));

  const named = Buffer.concat([text('/LinkInfo'), text('/names')]);
  streams[1] = Buffer.concat([
    ...[u32(20000404, 0x5f00_0000, infoAge), guidBytes(guid), u32(named.length), named],
    // Two entries, a capacity of four buckets, those in use, none deleted.
    ...[u32(2, 4, 1, 0b0101, 0), u32(0, 0), u32(10, names)],
  ]);

  const types = (records: Buffer[]) => {
    const body = Buffer.concat(records);
    return Buffer.concat([u32(20040203, 56, 0x1000, 0x1000 + records.length, body.length), Buffer.alloc(36), body]);
  };
  const structures = (spec.structures ?? []).flatMap(({ name, size, members }, i) => [
    fieldList(...members.map(([member, offset, type]) => memberRecord(member, offset, type))),
    structureRecord(name, size, 0x1000 + 2 * i),
  ]);
  streams[2] = types([...structures, ...(spec.types ?? [])]);
  streams[4] = types((spec.ids ?? []).map((id) => record(0x1601, u32(0, 0), text(id))));

  const symbols = add(
    Buffer.concat(publics.map(([name, section, offset]) => record(0x110e, u32(2, offset), u16(section), text(name)))),
  );
  const made = spec.stripped ? [] : modules.map((m) => makeModule(m, nameOf));
  const moduleInfo = made.map(({ symbols: own, lines }, i) => {
    const info = Buffer.alloc(64);
    info.writeUInt16LE(add(Buffer.concat([own, lines])), 34);
    info.writeUInt32LE(own.length, 36);
    info.writeUInt32LE(lines.length, 44);
    return padded(Buffer.concat([info, text(modules[i]!.name), text(modules[i]!.name)]));
  });
  const contributions = spec.stripped
    ? []
    : modules.flatMap((m, i) =>
        m.functions.map((f) =>
          Buffer.concat([u16(f.section, 0), u32(f.offset, f.size, 0x6000_0020), u16(i, 0), u32(0, 0)]),
        ),
      );
  const none = 0xffff;
  const slots = [none, none, none, none, none, add(sectionHeaders(sections)), none, none, none, none, none];
  if (spec.omap) {
    slots[3] = add(pairs(spec.omap.toSource));
    slots[4] = add(pairs(spec.omap.fromSource));
    slots[10] = add(sectionHeaders(spec.omap.sections));
  }
  const header = Buffer.alloc(64);
  for (const [at, value] of [
    [0, 0xffff_ffff],
    [4, 19990903],
    [8, age],
    [24, moduleInfo.reduce((sum, m) => sum + m.length, 0)],
    [28, 4 + 28 * contributions.length],
    [48, 22],
  ] as const)
    header.writeUInt32LE(value, at);
  header.writeUInt16LE(none, 12);
  header.writeUInt16LE(none, 16);
  header.writeUInt16LE(symbols, 20);
  header.writeUInt16LE(0x8664, 58);
  streams[3] = Buffer.concat([header, ...moduleInfo, u32(0xf12e_ba2d), ...contributions, u16(...slots)]);
  if (spec.padding) add(Buffer.alloc(spec.padding, 0x5a));
  return streams;
}

/** The file. Its streams' pages are in no order. */
export function makePdb(spec: PdbSpec = {}): Buffer {
  const { pageSize = 4096 } = spec;
  const streams = makeStreams(spec);
  const pages: Buffer[] = [];
  const place = (bytes: Buffer): number[] => {
    const numbers: number[] = [];
    for (let at = 0; at < bytes.length; at += pageSize) {
      const page = Buffer.alloc(pageSize);
      bytes.copy(page, 0, at, at + pageSize);
      // Pages 0 to 2 are the header's and the free page maps'.
      numbers.push(pages.push(page) + 2);
    }
    return numbers;
  };
  // Back to front, so that pages of a stream do not always follow one another.
  const numbers = streams.map((stream) => {
    const own: number[] = [];
    for (let at = Math.ceil(stream.length / pageSize) - 1; at >= 0; at--) {
      own.unshift(...place(stream.subarray(at * pageSize, (at + 1) * pageSize)));
    }
    return own;
  });
  const directory = u32(streams.length, ...streams.map((s) => s.length), ...numbers.flat());
  const directoryPages = place(directory);
  const mapPages = place(u32(...directoryPages));
  const header = Buffer.alloc(pageSize);
  header.write('Microsoft C/C++ MSF 7.00\r\n\x1aDS\0\0\0', 'latin1');
  u32(pageSize, 1, pages.length + 3, directory.length, 0, ...mapPages).copy(header, 0x20);
  return Buffer.concat([header, Buffer.alloc(2 * pageSize), ...pages]);
}
