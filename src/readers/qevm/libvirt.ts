/** libvirt's save files (`virsh save`, memory snapshots): a header, the domain's XML, then a migration stream. */
import { Elf2dmpError } from '../../core/errors.ts';
import { hex, MIB } from '../../core/units.ts';
import {
  LIBVIRT_FORMATS,
  LIBVIRT_HEADER_SIZE,
  LIBVIRT_PART_MAGIC,
  LIBVIRT_SAVE_MAGIC,
  QEVM_MAGIC,
} from '../../formats/qevm.ts';
import { type ByteSource, readUpTo } from '../../source/source.ts';
import { closing, type Reader } from '../reader.ts';
import { openMigration } from './reader.ts';

/** The XML and libvirt's cookie: some kilobytes. Nothing of it is shown: it can hold passwords. */
const MAX_XML = 64 * MIB;

/** What a save file's header says. */
export interface LibvirtSave {
  format: (typeof LIBVIRT_FORMATS)[number];
  /** Where the stream begins, compressed or not. */
  stream: number;
}

/** undefined: not a save file. Throws `Elf2dmpError` for one that can't be read. */
export function readLibvirtHeader(head: Buffer, file: string): LibvirtSave | undefined {
  const magic = head.toString('latin1', 0, LIBVIRT_SAVE_MAGIC.length);
  if (magic !== LIBVIRT_SAVE_MAGIC && magic !== LIBVIRT_PART_MAGIC) return undefined;
  if (magic === LIBVIRT_PART_MAGIC) {
    throw new Elf2dmpError({
      code: 'libvirt-save-unfinished',
      kind: 'unsupported',
      message: 'a libvirt save file that was never finished',
      file,
      hint: 'save the guest again; if libvirt is still at it, wait',
    });
  }
  if (head.length < LIBVIRT_HEADER_SIZE) throw damagedHeader(file, 'the file ends in its header');
  // Written in the byte order of the host: a version that is small tells which.
  const little = head.readUInt32LE(16) < 0x10000;
  const word = (at: number) => (little ? head.readUInt32LE(at) : head.readUInt32BE(at));
  const format = LIBVIRT_FORMATS[word(28)];
  if (!format) throw damagedHeader(file, `it names a form of number ${word(28)}`);
  if (word(20) > MAX_XML) throw damagedHeader(file, `its XML takes ${hex(word(20))} bytes`);
  return { format, stream: LIBVIRT_HEADER_SIZE + word(20) };
}

const damagedHeader = (file: string, why: string) =>
  new Elf2dmpError({
    code: 'migration-stream-damaged',
    kind: 'corrupt',
    message: `a libvirt save file whose header can not be right: ${why}`,
    file,
    structure: '_virQEMUSaveHeader',
  });

export const libvirtSave: Reader = {
  format: 'libvirt-save',
  probe: (head) =>
    [LIBVIRT_SAVE_MAGIC, LIBVIRT_PART_MAGIC].includes(head.toString('latin1', 0, LIBVIRT_SAVE_MAGIC.length)),
  estimate: () => undefined,
  open: (source, also) => openLibvirtSave(source, also?.ramFile),
};

function openLibvirtSave(source: ByteSource, ramFile: string | undefined) {
  return closing(source, () => {
    const save = readLibvirtHeader(readUpTo(source, 0, LIBVIRT_HEADER_SIZE), source.name)!;
    const found = readUpTo(source, save.stream, QEVM_MAGIC.length);
    if (!found.equals(QEVM_MAGIC)) {
      throw new Elf2dmpError({
        code: 'migration-stream-damaged',
        kind: 'corrupt',
        message: 'a libvirt save file without a migration stream behind its header',
        file: source.name,
        offset: save.stream,
        expected: QEVM_MAGIC.toString('hex'),
        actual: found.toString('hex') || 'the end of the file',
      });
    }
    return openMigration(source, { format: 'libvirt-save', start: save.stream, ramFile });
  });
}
