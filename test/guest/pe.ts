/** Made-up PE32+ images with exports, debug directory and unwind data, laid out by literal offsets. */

import { directoriesAt, type Section, writeCodeView, writeExports, writeSections } from './pe-parts.ts';

/** A function: code that allocates 0x28 bytes of stack, so that every frame is 0x30 bytes with its return address. */
export interface PeFunction {
  name: string;
  rva: number;
  code: Buffer;
  /** The processor enters it, with an error code. */
  trap?: boolean;
  /** Of ARM64 images: the second word of its .pdata entry. */
  unwind?: number;
}

export interface PeSpec {
  name: string;
  pdb: string;
  /** 16 bytes. */
  guid: Buffer;
  age: number;
  size: number;
  imageBase: bigint;
  timeDateStamp: number;
  functions: readonly PeFunction[];
  /** Of the version resource, four numbers each; none without. */
  version?: { file: readonly number[]; product: readonly number[] };
  /** Default: x64. */
  arm64?: boolean;
  /** Exported data. */
  data?: readonly { name: string; rva: number }[];
}

const SECTIONS: readonly Section[] = [
  ['.rdata', 0x1000, 0x7000, 0x48000040],
  ['.pdata', 0x8000, 0x1000, 0x48000040],
  ['.text', 0x10000, 0x10000, 0x68000020],
  ['KVASCODE', 0x20000, 0x1000, 0x68000020],
  ['.data', 0x30000, 0, 0xc8000040],
];

export function buildPe(spec: PeSpec): Buffer {
  const image = Buffer.alloc(spec.size);
  image.write('MZ', 0, 'latin1');
  image.writeUInt32LE(0x80, 0x3c);
  const nt = 0x80;
  image.write('PE\0\0', nt, 'latin1');
  image.writeUInt16LE(spec.arm64 ? 0xaa64 : 0x8664, nt + 4);
  const sections = SECTIONS.filter(([, rva]) => rva < spec.size);
  image.writeUInt16LE(sections.length, nt + 6);
  image.writeUInt32LE(spec.timeDateStamp, nt + 8);
  image.writeUInt16LE(0xf0, nt + 0x14);
  image.writeUInt16LE(0x22, nt + 0x16);
  image.writeUInt16LE(0x20b, nt + 0x18);
  image.writeUInt32LE(0x10000, nt + 0x28);
  image.writeBigUInt64LE(spec.imageBase, nt + 0x30);
  image.writeUInt32LE(0x1000, nt + 0x38);
  image.writeUInt32LE(0x200, nt + 0x3c);
  image.writeUInt16LE(10, nt + 0x40);
  image.writeUInt16LE(10, nt + 0x48);
  image.writeUInt32LE(spec.size, nt + 0x50);
  image.writeUInt32LE(0x1000, nt + 0x54);
  image.writeUInt32LE(0x12345, nt + 0x58);
  image.writeUInt16LE(1, nt + 0x5c);
  image.writeUInt32LE(16, nt + 0x84);
  writeSections(image, sections, nt + 0x108);
  const directory = directoriesAt(image, nt + 0x88);
  writeExports(image, spec, directory);
  writeCodeView(image, spec, directory);

  // Resources: an icon group before the version, as the types are sorted.
  if (spec.version) {
    const resource = 0x7400;
    const node = (at: number, entries: readonly [id: number, offset: number][]) => {
      image.writeUInt16LE(entries.length, resource + at + 0xe);
      entries.forEach(([id, offset], i) => {
        image.writeUInt32LE(id, resource + at + 0x10 + 8 * i);
        image.writeUInt32LE(offset, resource + at + 0x14 + 8 * i);
      });
    };
    node(0, [
      [14, 0x80000000 + 0x100],
      [16, 0x80000000 + 0x40],
    ]);
    node(0x40, [[1, 0x80000000 + 0x60]]);
    node(0x60, [[0x409, 0x80]]);
    image.writeUInt32LE(resource + 0xa0, resource + 0x80);
    image.writeUInt32LE(0x5c, resource + 0x84);
    const info = resource + 0xa0;
    image.writeUInt16LE(0x5c, info);
    image.writeUInt16LE(0x34, info + 2);
    image.write('VS_VERSION_INFO\0', info + 6, 'utf16le');
    image.writeUInt32LE(0xfeef04bd, info + 0x28);
    image.writeUInt32LE(0x10000, info + 0x2c);
    [...spec.version.file, ...spec.version.product].forEach((part, i) => {
      // The more significant half of each word comes behind.
      image.writeUInt16LE(part, info + 0x30 + 2 * (i ^ 1));
    });
    directory(2, resource, 0x200);
  }

  const functions = [...spec.functions].sort((a, b) => a.rva - b.rva);
  if (spec.arm64) {
    functions.forEach((f, i) => {
      f.code.copy(image, f.rva);
      image.writeUInt32LE(f.rva, 0x8000 + 8 * i);
      image.writeUInt32LE(f.unwind!, 0x8000 + 8 * i + 4);
    });
    directory(3, 0x8000, 8 * functions.length);
    return image;
  }
  // Unwind data: all functions share "allocates 0x28 bytes in a prologue of 4".
  image.set([0x01, 0x04, 0x01, 0x00, 0x04, 0x42, 0x00, 0x00], 0x7200);
  // The same behind a machine frame with an error code.
  if (spec.functions.some(({ trap }) => trap)) image.set([0x01, 0x04, 0x02, 0x00, 0x04, 0x42, 0x00, 0x1a], 0x7208);
  functions.forEach((f, i) => {
    f.code.copy(image, f.rva);
    image.writeUInt32LE(f.rva, 0x8000 + 12 * i);
    image.writeUInt32LE(f.rva + f.code.length, 0x8000 + 12 * i + 4);
    image.writeUInt32LE(f.trap ? 0x7208 : 0x7200, 0x8000 + 12 * i + 8);
  });
  directory(3, 0x8000, 12 * functions.length);
  return image;
}

/** Offset of the return address behind the call in `callingFunction`'s code. */
export const AFTER_CALL = 9;

/** `sub rsp,28h; call target; nop; add rsp,28h; ret` */
export function callingFunction(rva: number, target: number): Buffer {
  const code = Buffer.from('4883ec28e80000000090 4883c428c3'.replace(' ', ''), 'hex');
  code.writeInt32LE(target - (rva + 9), 5);
  return code;
}

/** Offset of the instruction that faults in `faultingFunction`. */
export const AT_FAULT = 4;

/** `sub rsp,28h; mov eax,[rcx]; nop; add rsp,28h; ret` */
export const faultingFunction = (): Buffer => Buffer.from('4883ec288b01904883c428c3', 'hex');

/** Offset of RIP in a CPU that sleeps in `idleFunction`. */
export const AFTER_HLT = 5;

/** `sub rsp,28h; hlt; jmp $-1; add rsp,28h; ret` */
export const idleFunction = (): Buffer => Buffer.from('4883ec28f4ebfd4883c428c3', 'hex');

/** Offset of RIP in a CPU that runs `spinningFunction`. */
export const AT_SPIN = 6;

/** `sub rsp,28h; pause; jmp $; add rsp,28h; ret` */
export const spinningFunction = (): Buffer => Buffer.from('4883ec28f390ebfe4883c428c3', 'hex');
