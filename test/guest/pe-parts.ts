/** What made-up images of both widths have alike, laid out by literal offsets. */

/** A size of 0: up to the end of the image. */
export type Section = readonly [name: string, rva: number, size: number, flags: number];

/** Sets an entry of the data directory. */
type SetDirectory = (index: number, rva: number, size: number) => void;

export function writeSections(image: Buffer, sections: readonly Section[], table: number): void {
  sections.forEach(([name, rva, size, flags], i) => {
    const at = table + 40 * i;
    const bytes = size === 0 ? image.length - rva : Math.min(size, image.length - rva);
    image.write(name, at, 'latin1');
    image.writeUInt32LE(bytes, at + 8);
    image.writeUInt32LE(rva, at + 12);
    image.writeUInt32LE(bytes, at + 16);
    image.writeUInt32LE(rva, at + 20);
    image.writeUInt32LE(flags, at + 36);
  });
}

export const directoriesAt =
  (image: Buffer, table: number): SetDirectory =>
  (index, rva, size) => {
    image.writeUInt32LE(rva, table + 8 * index);
    image.writeUInt32LE(size, table + 4 + 8 * index);
  };

interface Named {
  name: string;
  rva: number;
}

/** At 0x1000, sorted by name, as the linker writes them. */
export function writeExports(
  image: Buffer,
  { name, functions, data = [] }: { name: string; functions: readonly Named[]; data?: readonly Named[] },
  setDirectory: SetDirectory,
): void {
  const symbols = [...functions, ...data].sort((a, b) => (a.name < b.name ? -1 : 1));
  let text = 0x4000;
  const string = (value: string) => {
    const at = text;
    image.write(`${value}\0`, at, 'latin1');
    text += value.length + 1;
    return at;
  };
  image.writeUInt32LE(string(name), 0x1000 + 0xc);
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
  setDirectory(0, 0x1000, 0x6000);
}

/** The debug directory at 0x7000, with one CodeView entry. */
export function writeCodeView(
  image: Buffer,
  { pdb, guid, age }: { pdb: string; guid: Buffer; age: number },
  setDirectory: SetDirectory,
): void {
  image.writeUInt32LE(2, 0x7000 + 0xc);
  image.writeUInt32LE(24 + pdb.length + 1, 0x7000 + 0x10);
  image.writeUInt32LE(0x7100, 0x7000 + 0x14);
  image.writeUInt32LE(0x7100, 0x7000 + 0x18);
  image.write('RSDS', 0x7100, 'latin1');
  guid.copy(image, 0x7104);
  image.writeUInt32LE(age, 0x7114);
  image.write(`${pdb}\0`, 0x7118, 'latin1');
  setDirectory(6, 0x7000, 28);
}
