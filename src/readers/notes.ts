/** ELF notes: shared by all formats that carry CPU states in them. */
import { alignUp } from '../core/bits.ts';
import type { Diagnostics } from '../core/errors.ts';
import { hex, MIB } from '../core/units.ts';
import { ElfNoteHeader } from '../formats/elf.ts';
import type { CpuNoteForm, CpuState, Machine, NoteKind } from '../machines/machine.ts';
import type { ImageNote } from '../memory/image.ts';

/** Notes that are read: two for each of 4,096 CPUs, and room for more. */
export const MAX_NOTES = 65_536;

/** Bytes of all notes that are read; 4,096 CPUs take 3.3 MB. */
export const MAX_NOTE_BYTES = 64 * MIB;
const MAX_NAME = 4096;
const KEPT_HEAD = 0x2000;
const MAX_KEPT = 64;

/** An ELF note as it is in the file. */
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

/** The notes of one CPU in one form. */
interface NotedCpu {
  note: RawNote;
  /** As `CpuNoteForm.more`. */
  more: (RawNote | undefined)[];
}

const is = (note: RawNote, { name, type }: NoteKind) => note.name === name && note.type === type;

/**
 * CPU states, in the order of the notes, and the notes that are nobody's CPU. A CPU whose best note is
 * missing or unusable has what the next form knows of it: writers keep one order of CPUs in all forms.
 */
export function interpretNotes(
  notes: Iterable<RawNote>,
  machine: Machine,
  diagnostics: Diagnostics,
): { cpus: CpuState[]; notes: ImageNote[] } {
  const forms = machine.cpuNotes.map((form) => ({ form, cpus: [] as NotedCpu[] }));
  const others: ImageNote[] = [];
  let last: { form: CpuNoteForm; cpu: NotedCpu } | undefined;
  for (const note of notes) {
    const own = forms.find(({ form }) => is(note, form));
    const part = last?.form.more.findIndex((kind) => is(note, kind)) ?? -1;
    if (own) {
      last = { form: own.form, cpu: { note, more: own.form.more.map(() => undefined) } };
      own.cpus.push(last.cpu);
    } else if (last && part >= 0) {
      last.cpu.more[part] ??= note;
    } else if (note.name !== 'CORE' && note.name !== 'LINUX' && others.length < MAX_KEPT) {
      // A copy: a part would keep all notes in memory.
      const head = Buffer.from(note.desc.subarray(0, KEPT_HEAD));
      others.push({ name: note.name, type: note.type, size: note.desc.length, head });
    }
  }
  const count = Math.max(0, ...forms.map(({ cpus }) => cpus.length));
  const cpus = Array.from({ length: count }, (_, index) =>
    readCpu(
      index,
      forms.flatMap(({ form, cpus }) => (cpus[index] ? [{ form, cpu: cpus[index] }] : [])),
      diagnostics,
    ),
  );
  const whole = Math.max(0, ...forms.map(({ form, cpus }) => (form.whole ? cpus.length : 0)));
  if (whole < count) {
    diagnostics.add(
      'loss',
      'cpu-notes-missing',
      `the file has ${count} CPU status notes, but ${whole} with control registers: those of the other CPUs are unknown`,
    );
  }
  return { cpus, notes: others };
}

/** @param noted the CPU's notes, the form that says most first */
function readCpu(
  index: number,
  noted: readonly { form: CpuNoteForm; cpu: NotedCpu }[],
  diagnostics: Diagnostics,
): CpuState {
  const short: { label: string; note: RawNote }[] = [];
  let state: CpuState = { index, registers: undefined, crashed: undefined, origin: 'no usable note' };
  let known = 'its registers are unknown';
  for (const { form, cpu } of noted) {
    const parsed = form.parse(
      cpu.note.desc,
      cpu.more.map((part) => part?.desc),
    );
    if (parsed) {
      const { doubt, ...note } = parsed;
      if (doubt !== undefined) {
        diagnostics.add(
          'loss',
          'cpu-note-doubtful',
          `CPU ${index}: its ${form.label} note at file offset ${hex(cpu.note.offset)} cannot be believed: ${doubt}, and it has ${cpu.note.desc.length}`,
          { offset: hex(cpu.note.offset) },
        );
      }
      state = { index, ...note, origin: `${form.label} note at file offset ${hex(cpu.note.offset)}` };
      known = `${form.whole ? 'its' : 'only its general'} registers are known, from its ${form.label} note`;
      break;
    }
    if (form.whole) short.push({ label: form.label, note: cpu.note });
  }
  for (const { label, note } of short) {
    diagnostics.add(
      'loss',
      'cpu-note-short',
      `CPU ${index}: the ${label} note at file offset ${hex(note.offset)} is no CPU state (${note.desc.length} bytes), ${known}`,
      { offset: hex(note.offset) },
    );
  }
  return state;
}
