/**
 * How other programs read our dumps: the rules by which they accept a file and find its pages, in our words, with the
 * commit that each was read from. Nothing here comes from src/.
 */

/** File offsets by page number, or why the program refuses the file. */
export type Reading = ReadonlyMap<number, number> | string;

const PAGE = 0x1000;
const HEADER = 0x2000;
const MAP = 0x2038;

const u32 = (file: Buffer, at: number): number => file.readUInt32LE(at);
const u64 = (file: Buffer, at: number): number => Number(file.readBigUInt64LE(at));
const text = (file: Buffer, at: number, length: number): string => file.toString('latin1', at, at + length);
const typeOf = (file: Buffer): number => u32(file, 0xf98);

/** The runs of a full dump's header: their pages follow each other behind it. */
function runs(file: Buffer): Map<number, number> {
  const pages = new Map<number, number>();
  for (let run = 0; run < u32(file, 0x88); run++) {
    const [base, count] = [u64(file, 0x98 + 16 * run), u64(file, 0xa0 + 16 * run)];
    for (let i = 0; i < count; i++) pages.set(base + i, HEADER + PAGE * pages.size);
  }
  return pages;
}

/** The first `bits` bits of the map: their pages follow each other from FirstPage on. */
function bitmap(file: Buffer, bits: number): Map<number, number> {
  const pages = new Map<number, number>();
  for (let bit = 0; bit < bits; bit++) {
    if (((file[MAP + (bit >> 3)]! >> (bit & 7)) & 1) === 1) pages.set(bit, u64(file, 0x2020) + PAGE * pages.size);
  }
  return pages;
}

const signed = (file: Buffer): boolean => text(file, 0, 8) === 'PAGEDU64';

/** 0vercl0k/kdmp-parser, fdbb9efa28ee86b050d0641140df085d48990072. */
export function kdmpParser(file: Buffer): Reading {
  if (!signed(file)) return 'signature';
  // MxCsr of the header's context, and the copy of it in the area of XMM registers.
  if (u32(file, 0x348 + 0x34) !== u32(file, 0x348 + 0x118)) return 'MxCsr';
  if (typeOf(file) === 1)
    return text(file, 0x88, 4) === 'PAGE' || text(file, 0x90, 8) === 'PAGEPAGE' ? 'runs' : runs(file);
  if (typeOf(file) !== 5 && typeOf(file) !== 6) return 'type';
  if (!/^[FS]DMPDUMP$/.test(text(file, HEADER, 8))) return 'bitmap signature';
  return bitmap(file, 8 * Math.floor(u64(file, 0x2030) / 8));
}

/** ufrisk/LeechCore, 709dce874df14e289e1c26fc18ab0b0856ae4151. */
export function leechCore(file: Buffer): Reading {
  if (!signed(file) || ![0x8664, 0xaa64].includes(u32(file, 0x30))) return 'signature';
  if (typeOf(file) === 1) return u32(file, 0x88) > 0x80 ? 'too many runs' : runs(file);
  if (typeOf(file) !== 5 && typeOf(file) !== 6) return 'type';
  if (!/^[FS]DMPDUMP$/.test(text(file, HEADER, 8))) return 'bitmap signature';
  const [first, present, bits] = [u64(file, 0x2020), u64(file, 0x2028), u64(file, 0x2030)];
  if (present > bits || bits > 0x7fffffff) return 'page count';
  if (first % PAGE !== 0 || first > 0x1000000) return 'first page';
  return bitmap(file, bits - (bits % 64));
}

/** ufrisk/MemProcFS, c3aa81068d7311b473625846175228a32e062a94: LeechCore's pages, through the header's root. */
export function memProcFs(file: Buffer): Reading {
  const pages = leechCore(file);
  if (typeof pages === 'string') return pages;
  const head = translate(file, pages, file.readBigUInt64LE(0x20));
  // What PsLoadedModuleList holds has to be a kernel address.
  return head !== undefined && file.readBigUInt64LE(head) > 0xffff8000_00000000n ? pages : 'PsLoadedModuleList';
}

/** File offset of a virtual address, by four levels of tables. */
function translate(file: Buffer, pages: ReadonlyMap<number, number>, address: bigint): number | undefined {
  let table = u64(file, 0x10);
  for (const shift of [39n, 30n, 21n, 12n]) {
    const at = pages.get(Math.floor(table / PAGE));
    if (at === undefined) return undefined;
    const entry = file.readBigUInt64LE(at + 8 * Number((address >> shift) & 0x1ffn));
    if ((entry & 1n) === 0n) return undefined;
    const frame = entry & 0xf_ffff_ffff_f000n;
    const large = shift === 12n || ((entry & 0x80n) !== 0n && shift < 39n);
    if (large) {
      const physical = Number((frame & ~((1n << shift) - 1n)) | (address & ((1n << shift) - 1n)));
      const found = pages.get(Math.floor(physical / PAGE));
      return found === undefined ? undefined : found + (physical % PAGE);
    }
    table = Number(frame);
  }
  return undefined;
}

/** volatilityfoundation/volatility3, a1961401d52db56f310675d8cd4af09e3d9e4139: the crash layer. */
export function volatility3(file: Buffer): Reading {
  if (!signed(file)) return 'signature';
  if (typeOf(file) === 1) return runs(file);
  // It takes whole words of 32 bits, also of what follows the map.
  return typeOf(file) === 5 ? bitmap(file, 32 * Math.ceil(u64(file, 0x2030) / 32)) : 'type';
}

/** radareorg/radare2, b281ec86b4c4fd931f8b3854b8c0014b691f632a. */
export function radare2(file: Buffer): Reading {
  if (!signed(file)) return 'signature';
  if (typeOf(file) === 1) {
    const count = u32(file, 0x88);
    return count < 1 || 16 * count > 0x348 - 0x98 ? 'runs' : runs(file);
  }
  if (typeOf(file) !== 5 && typeOf(file) !== 6) return 'type';
  if (text(file, HEADER, 8) !== 'SDMPDUMP') return 'bitmap signature';
  const pages = bitmap(file, u64(file, 0x2030));
  return pages.size === u64(file, 0x2028) ? pages : 'page count';
}
