/** Made-up PE32 images with exports and a debug directory, laid out by literal offsets. */

import { directoriesAt, type Section, writeCodeView, writeExports, writeSections } from '../pe-parts.ts';

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

const SECTIONS: readonly Section[] = [
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
  writeSections(image, sections, nt + 0xf8);
  const directory = directoriesAt(image, nt + 0x78);
  writeExports(image, spec, directory);
  writeCodeView(image, spec, directory);

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
