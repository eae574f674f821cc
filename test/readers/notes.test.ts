// Notes of a made-up machine, whose CPUs have one note of general registers and, some of them, more that belong to it.
import { describe, expect, it } from 'vitest';
import { Diagnostics } from '../../src/core/errors.ts';
import type { CpuNoteForm, Machine, Registers } from '../../src/machines/machine.ts';
import { X64 } from '../../src/machines/x64/index.ts';
import { interpretNotes, type RawNote } from '../../src/readers/notes.ts';

const note = (name: string, type: number, text: string): RawNote => ({
  name,
  type,
  desc: Buffer.from(text),
  offset: 0,
});

/** "Registers" that are the notes' texts. */
const form = (whole: boolean, label = 'NT_PRSTATUS', name = 'CORE'): CpuNoteForm => ({
  name,
  type: 1,
  label,
  more: [
    { name: 'CORE', type: 2 },
    { name: 'LINUX', type: 0x405 },
  ],
  whole,
  parse: (desc, more) =>
    desc.length === 0
      ? undefined
      : {
          registers: [desc, ...more].map((part) => part?.toString() ?? '-').join(' ') as unknown as Registers,
          crashed: undefined,
        },
});

function interpret(forms: CpuNoteForm[], ...notes: RawNote[]) {
  const diagnostics = new Diagnostics();
  const machine: Machine = { ...X64, cpuNotes: forms };
  const { cpus, notes: others } = interpretNotes(notes, machine, diagnostics);
  return { cpus: cpus.map((c) => c.registers), others, losses: diagnostics.list.map((d) => d.message) };
}

describe('notes of a CPU', () => {
  it('belong to the CPU whose first note came before them', () => {
    const { cpus, losses } = interpret(
      [form(true)],
      note('CORE', 1, 'a'),
      note('CORE', 2, 'fp-a'),
      note('LINUX', 0x405, 'sve-a'),
      note('CORE', 1, 'b'),
      note('LINUX', 0x405, 'sve-b'),
      note('CORE', 1, 'c'),
    );
    expect(cpus).toEqual(['a fp-a sve-a', 'b - sve-b', 'c - -']);
    // All that this machine's inputs have.
    expect(losses).toEqual([]);
  });

  it('are a loss where the machine has more in other forms', () => {
    const { cpus, losses } = interpret(
      [form(true, 'QEMU', 'QEMU'), form(false)],
      note('CORE', 1, 'a'),
      note('CORE', 1, 'b'),
      note('QEMU', 1, 'all of a'),
    );
    expect(cpus).toEqual(['all of a - -', 'b - -']);
    expect(losses).toEqual([
      'the file has 2 CPU status notes, but 1 with control registers: those of the other CPUs are unknown',
    ]);
  });

  it('fall back to the next form', () => {
    const { cpus, losses } = interpret(
      [form(true, 'QEMU', 'QEMU'), form(false)],
      note('CORE', 1, 'a'),
      note('QEMU', 1, ''),
    );
    expect(cpus).toEqual(['a - -']);
    expect(losses).toEqual([
      'CPU 0: the QEMU note at file offset 0x0 is no CPU state (0 bytes), only its general registers are known, from its NT_PRSTATUS note',
    ]);
  });

  it('keep other notes', () => {
    const { others } = interpret([form(true)], note('VMCOREINFO', 0, 'x'), note('CORE', 2, 'nobody'));
    expect(others.map(({ name }) => name)).toEqual(['VMCOREINFO']);
  });
});
