/** ELF notes: shared by all formats that carry CPU states in them. */
import { alignUp } from '../core/bits.ts';
import type { Diagnostics } from '../core/errors.ts';
import { hex, MIB } from '../core/units.ts';
import { ElfNoteHeader } from '../formats/elf.ts';
import type { CpuState, Machine } from '../machines/machine.ts';
import type { ImageNote } from '../memory/image.ts';

/** Notes that are read: two for each of 4,096 CPUs, and room for more. */
export const MAX_NOTES = 65_536;
/** Bytes of all notes that are read; 4,096 CPUs take 3.3 MB. */
export const MAX_NOTE_BYTES = 64 * MIB;
const MAX_NAME = 4096;
const KEPT_HEAD = 0x2000;
const MAX_KEPT = 64;

export interface RawNote {
  name: string;
  type: number;
  desc: Buffer;
  /** File offset of the note's header. */
  offset: number;
}

/** Splits a note segment. Stops with a diagnostic at the first note that does not fit. */
export function* splitNotes(bytes: Buffer, fileOffset: number, diagnostics: Diagnostics): Generator<RawNote> {
  for (let at = 0; at + ElfNoteHeader.size <= bytes.length; ) {
    const { n_namesz, n_descsz, n_type } = ElfNoteHeader.read(bytes, at);
    const nameAt = at + ElfNoteHeader.size;
    const descAt = nameAt + alignUp(n_namesz, 4);
    const end = descAt + n_descsz;
    if (n_namesz > MAX_NAME || end > bytes.length) {
      diagnostics.add(
        'loss',
        'notes-damaged',
        `the note at file offset ${hex(fileOffset + at)} claims ${n_namesz} + ${n_descsz} bytes, but ${bytes.length - nameAt} are left: it and all later notes were not read`,
        { offset: hex(fileOffset + at) },
      );
      return;
    }
    yield {
      // The name's size counts its terminating zero.
      name: bytes.toString('latin1', nameAt, nameAt + n_namesz).replace(/\0.*$/s, ''),
      type: n_type,
      desc: bytes.subarray(descAt, end),
      offset: fileOffset + at,
    };
    at = alignUp(end, 4);
  }
}

/** CPU states, in the order of the notes, and the notes that are nobody's CPU. */
export function interpretNotes(notes: Iterable<RawNote>, machine: Machine, diagnostics: Diagnostics) {
  const cpus: CpuState[] = [];
  const others: ImageNote[] = [];
  let prstatus = 0;
  for (const note of notes) {
    if (note.name === 'QEMU' && note.type === 0) {
      const index = cpus.length;
      const parsed = machine.parseCpuNote(note.desc);
      const origin = `QEMU note at file offset ${hex(note.offset)}`;
      if (!parsed) {
        diagnostics.add(
          'loss',
          'cpu-note-short',
          `CPU ${index}: the ${origin} is too short to be a CPU state (${note.desc.length} bytes), its registers are unknown`,
          { offset: hex(note.offset) },
        );
      }
      cpus.push({ index, registers: parsed?.registers, crashed: parsed?.crashed, origin });
    } else if (note.name === 'CORE' && note.type === 1) {
      prstatus++;
    } else if (note.name !== 'CORE' && note.name !== 'LINUX' && others.length < MAX_KEPT) {
      // A copy: a part would keep all notes in memory.
      const head = Buffer.from(note.desc.subarray(0, KEPT_HEAD));
      others.push({ name: note.name, type: note.type, size: note.desc.length, head });
    }
  }
  if (prstatus > cpus.length) {
    diagnostics.add(
      'loss',
      'cpu-notes-missing',
      `the file has ${prstatus} CPU status notes, but ${cpus.length} "QEMU" notes: the control registers of the other CPUs are unknown`,
    );
  }
  return { cpus, notes: others };
}
