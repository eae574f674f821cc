/** ELF notes: shared by all formats that carry CPU states in them. */
import { alignUp } from '../core/bits.ts';
import type { Diagnostics } from '../core/errors.ts';
import { hex, MIB } from '../core/units.ts';
import { ElfNoteHeader } from '../formats/elf.ts';
import type { CpuNoteFormat, CpuState, Machine } from '../machines/machine.ts';
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

/**
 * CPU states, in the order of the notes, and the notes that are nobody's CPU. A CPU whose own note is
 * missing or unusable has at least the general registers of its NT_PRSTATUS: writers keep one order.
 */
export function interpretNotes(notes: Iterable<RawNote>, machine: Machine, diagnostics: Diagnostics) {
  const states: RawNote[] = [];
  const prstatus: RawNote[] = [];
  const others: ImageNote[] = [];
  const is = (note: RawNote, format: CpuNoteFormat) => note.name === format.name && note.type === format.type;
  let format: CpuNoteFormat | undefined;
  for (const note of notes) {
    format ??= machine.cpuNotes.find((f) => is(note, f));
    if (format && is(note, format)) states.push(note);
    else if (is(note, machine.prstatus)) prstatus.push(note);
    else if (note.name !== 'CORE' && note.name !== 'LINUX' && others.length < MAX_KEPT) {
      // A copy: a part would keep all notes in memory.
      const head = Buffer.from(note.desc.subarray(0, KEPT_HEAD));
      others.push({ name: note.name, type: note.type, size: note.desc.length, head });
    }
  }
  const cpus: CpuState[] = [];
  let lacking = 0;
  for (let index = 0; index < Math.max(states.length, prstatus.length); index++) {
    const [state, general] = [states[index], prstatus[index]];
    const parsed = state && format?.parse(state.desc);
    if (parsed && state) {
      cpus.push({ index, ...parsed, origin: `${state.name} note at file offset ${hex(state.offset)}` });
      continue;
    }
    const fallback = general && machine.prstatus.parse(general.desc);
    if (state) {
      diagnostics.add(
        'loss',
        'cpu-note-short',
        `CPU ${index}: the ${state.name} note at file offset ${hex(state.offset)} is no CPU state (${state.desc.length} bytes), ${fallback ? 'only its general registers are known, from its NT_PRSTATUS note' : 'its registers are unknown'}`,
        { offset: hex(state.offset) },
      );
    } else lacking++;
    const origin = fallback ? `NT_PRSTATUS note at file offset ${hex(general.offset)}` : 'no usable note';
    cpus.push({ index, registers: fallback?.registers, crashed: undefined, origin });
  }
  if (lacking > 0) {
    diagnostics.add(
      'loss',
      'cpu-notes-missing',
      `the file has ${prstatus.length} CPU status notes, but ${states.length} with control registers: those of the other CPUs are unknown`,
    );
  }
  return { cpus, notes: others };
}
