/** Made-up PE32 images with exports and a debug directory, laid out by literal offsets. */

export interface PeFunction32 {
  name: string;
  rva: number;
  code: Buffer;
}

export interface PeSpec32 {
  name: string;
  pdb: string;
  /** 16 bytes. */
  guid: Buffer;
  age: number;
  size: number;
  imageBase: number;
  timeDateStamp: number;
  functions: readonly PeFunction32[];
  /** Exported data. */
  data?: readonly { name: string; rva: number }[];
}

const SECTIONS: readonly [name: string, rva: number, size: number, flags: number][] = [
  ['.rdata', 0x1000, 0x7000, 0x48000040],
  ['.text', 0x10000, 0x10000, 0x68000020],
  ['.data', 0x20000, 0, 0xc8000040],
];

export function buildPe32(spec: PeSpec32): Buffer {
  const image = Buffer.alloc(spec.size);
  image.write('MZ', 0, 'latin1');
  image.writeUInt32LE(0xd8, 0x3c);
  const nt = 0xd8;
  image.write('PE\0\0', nt, 'latin1');
  image.writeUInt16LE(0x14c, nt + 4);
  const sections = SECTIONS.filter(([, rva]) => rva < spec.size);
  image.writeUInt16LE(sections.length, nt + 6);
  image.writeUInt32LE(spec.timeDateStamp, nt + 8);
  image.writeUInt16LE(0xe0, nt + 0x14);
  image.writeUInt16LE(0x10e, nt + 0x16);
  image.writeUInt16LE(0x10b, nt + 0x18);
  image.writeUInt32LE(0x10000, nt + 0x28);
  image.writeUInt32LE(spec.imageBase, nt + 0x34);
  image.writeUInt32LE(0x1000, nt + 0x38);
  image.writeUInt32LE(0x200, nt + 0x3c);
  image.writeUInt16LE(5, nt + 0x40);
  image.writeUInt16LE(5, nt + 0x48);
  image.writeUInt32LE(spec.size, nt + 0x50);
  image.writeUInt32LE(0x1000, nt + 0x54);
  image.writeUInt32LE(0x12345, nt + 0x58);
  image.writeUInt16LE(1, nt + 0x5c);
  image.writeUInt32LE(16, nt + 0x74);
  sections.forEach(([name, rva, size, flags], i) => {
    const at = nt + 0xf8 + 40 * i;
    const bytes = size === 0 ? spec.size - rva : Math.min(size, spec.size - rva);
    image.write(name, at, 'latin1');
    image.writeUInt32LE(bytes, at + 8);
    image.writeUInt32LE(rva, at + 12);
    image.writeUInt32LE(bytes, at + 16);
    image.writeUInt32LE(rva, at + 20);
    image.writeUInt32LE(flags, at + 36);
  });
  const directory = (index: number, rva: number, size: number) => {
    image.writeUInt32LE(rva, nt + 0x78 + 8 * index);
    image.writeUInt32LE(size, nt + 0x7c + 8 * index);
  };

  const symbols = [...spec.functions, ...(spec.data ?? [])].sort((a, b) => (a.name < b.name ? -1 : 1));
  let text = 0x4000;
  const string = (value: string) => {
    const at = text;
    image.write(`${value}\0`, at, 'latin1');
    text += value.length + 1;
    return at;
  };
  image.writeUInt32LE(string(spec.name), 0x1000 + 0xc);
  image.writeUInt32LE(1, 0x1000 + 0x10);
  image.writeUInt32LE(symbols.length, 0x1000 + 0x14);
  image.writeUInt32LE(symbols.length, 0x1000 + 0x18);
  image.writeUInt32LE(0x2000, 0x1000 + 0x1c);
  image.writeUInt32LE(0x2800, 0x1000 + 0x20);
  image.writeUInt32LE(0x3000, 0x1000 + 0x24);
  symbols.forEach((symbol, i) => {
    image.writeUInt32LE(symbol.rva, 0x2000 + 4 * i);
    image.writeUInt32LE(string(symbol.name), 0x2800 + 4 * i);
    image.writeUInt16LE(i, 0x3000 + 2 * i);
  });
  directory(0, 0x1000, 0x6000);

  image.writeUInt32LE(2, 0x7000 + 0xc);
  image.writeUInt32LE(24 + spec.pdb.length + 1, 0x7000 + 0x10);
  image.writeUInt32LE(0x7100, 0x7000 + 0x14);
  image.writeUInt32LE(0x7100, 0x7000 + 0x18);
  image.write('RSDS', 0x7100, 'latin1');
  spec.guid.copy(image, 0x7104);
  image.writeUInt32LE(spec.age, 0x7114);
  image.write(`${spec.pdb}\0`, 0x7118, 'latin1');
  directory(6, 0x7000, 28);

  for (const f of spec.functions) f.code.copy(image, f.rva);
  return image;
}

/** Offset of the return address behind the call in `callingFunction32`'s code. */
export const AFTER_CALL_32 = 8;

/** `push ebp; mov ebp,esp; call target; nop; pop ebp; ret` */
export function callingFunction32(rva: number, target: number): Buffer {
  const code = Buffer.from('558bece800000000905dc3', 'hex');
  code.writeInt32LE(target - (rva + AFTER_CALL_32), 4);
  return code;
}

/** Offset of EIP in a CPU that sleeps in `idleFunction32`. */
export const AFTER_HLT_32 = 4;

/** `push ebp; mov ebp,esp; hlt; jmp $-1; pop ebp; ret` */
export const idleFunction32 = (): Buffer => Buffer.from('558becf4ebfd5dc3', 'hex');
