import { describe, expect, it } from 'vitest';
import { Elf2dmpError } from '../../src/core/errors.ts';
import { openSource } from '../../src/readers/registry.ts';
import { BufferSource } from '../../src/source/buffer.ts';
import { elfNote } from '../guest/elf.ts';
import fc, { noise } from '../support/properties.ts';
import { x64 } from '../support/registers.ts';

interface Load {
  paddr: number | bigint;
  bytes: Buffer;
  /** Default: bytes.length. */
  memsz?: number | bigint;
  /** Names the file offset instead of storing bytes. */
  offset?: number;
  vaddr?: bigint;
}

interface Recipe {
  loads?: Load[];
  notes?: Buffer;
  /** PT_NOTE goes after the PT_LOADs. */
  noteLast?: boolean;
  /** Count in section 0. */
  extended?: boolean;
  patch?: (file: Buffer) => void;
}

/** NT_PRPSINFO of 64-bit Linux, by literal offsets. */
function prpsinfo(name: string, command: string): Buffer {
  const desc = Buffer.alloc(136);
  desc.write(name, 40, 15, 'latin1');
  desc.write(command, 56, 79, 'latin1');
  return elfNote('CORE', 3, desc);
}

/** A file as QEMU lays it out, by literal offsets. */
function elf(recipe: Recipe = {}): Buffer {
  const { loads = [{ paddr: 0x1000, bytes: Buffer.alloc(0x1000, 1) }], notes = Buffer.alloc(0) } = recipe;
  const count = loads.length + 1;
  const head = Buffer.alloc(0xc0 + 56 * count);
  Buffer.from('7f454c46020101', 'hex').copy(head);
  head.writeUInt16LE(4, 0x10);
  head.writeUInt16LE(62, 0x12);
  head.writeUInt32LE(1, 0x14);
  head.writeBigUInt64LE(0xc0n, 0x20);
  head.writeBigUInt64LE(0x40n, 0x28);
  head.writeUInt16LE(8, 0x34);
  head.writeUInt16LE(56, 0x36);
  head.writeUInt16LE(recipe.extended ? 0xffff : count, 0x38);
  head.writeUInt16LE(64, 0x3a);
  head.writeUInt16LE(2, 0x3c);
  if (recipe.extended) head.writeUInt32LE(count, 0x40 + 0x2c);
  const body = [notes];
  let at = head.length + notes.length;
  const header = (
    index: number,
    type: number,
    offset: number,
    paddr: bigint,
    filesz: number,
    memsz: bigint,
    vaddr = paddr,
  ) => {
    const p = 0xc0 + 56 * index;
    head.writeUInt32LE(type, p);
    head.writeBigUInt64LE(BigInt(offset), p + 8);
    head.writeBigUInt64LE(vaddr, p + 0x10);
    head.writeBigUInt64LE(paddr, p + 0x18);
    head.writeBigUInt64LE(BigInt(filesz), p + 0x20);
    head.writeBigUInt64LE(memsz, p + 0x28);
  };
  const first = recipe.noteLast ? 0 : 1;
  header(recipe.noteLast ? loads.length : 0, 4, head.length, 0n, notes.length, BigInt(notes.length));
  loads.forEach((load, i) => {
    header(
      first + i,
      1,
      load.offset ?? at,
      BigInt(load.paddr),
      load.bytes.length,
      BigInt(load.memsz ?? load.bytes.length),
      load.vaddr,
    );
    if (load.offset === undefined) {
      body.push(load.bytes);
      at += load.bytes.length;
    }
  });
  const file = Buffer.concat([head, ...body]);
  recipe.patch?.(file);
  return file;
}

function note(name: string, type: number, desc: Buffer): Buffer {
  const pad = (b: Buffer) => Buffer.concat([b, Buffer.alloc((4 - (b.length % 4)) % 4)]);
  const nameBytes = Buffer.from(`${name}\0`);
  const header = Buffer.alloc(12);
  header.writeUInt32LE(nameBytes.length, 0);
  header.writeUInt32LE(desc.length, 4);
  header.writeUInt32LE(type, 8);
  return Buffer.concat([header, pad(nameBytes), pad(desc)]);
}

function cpuNote(
  size: number,
  values: { rip?: bigint; cr3?: bigint; kernelGs?: bigint; crash?: number; version?: number },
): Buffer {
  const desc = Buffer.alloc(size);
  desc.writeUInt32LE(values.version ?? 1, 0);
  desc.writeUInt32LE(size, 4);
  desc.writeBigUInt64LE(values.rip ?? 0n, 0x88);
  desc.writeBigUInt64LE(values.cr3 ?? 0n, 0x1a0);
  if (size >= 0x1b8) desc.writeBigUInt64LE(values.kernelGs ?? 0n, 0x1b0);
  if (size > 0x1b8) desc.writeUInt8(values.crash ?? 0, 0x1b8);
  return note('QEMU', 0, desc);
}

const open = (file: Buffer) => openSource(new BufferSource(file, 'test.elf'));

function failure(file: Buffer): Elf2dmpError {
  try {
    open(file);
  } catch (error) {
    if (error instanceof Elf2dmpError) return error;
    throw error;
  }
  throw new Error('it opened');
}

const codes = (image: ReturnType<typeof open>) => image.diagnostics.list.map((d) => d.code);

describe('ELF core files', () => {
  it('takes addresses from p_paddr, sorts runs and joins neighbours', () => {
    const bytes = noise(0x3000);
    const image = open(
      elf({
        loads: [
          { paddr: 0x10000, bytes: bytes.subarray(0x2000), vaddr: 0xfffff80000000000n },
          { paddr: 0x1000, bytes: bytes.subarray(0, 0x1000), vaddr: 0x5000n },
          { paddr: 0x2000, bytes: bytes.subarray(0x1000, 0x2000) },
        ],
      }),
    );
    expect(image.runs.map((r) => [r.start, r.size])).toEqual([
      [0x1000, 0x2000],
      [0x10000, 0x1000],
    ]);
    const target = Buffer.alloc(0x2000);
    expect(image.readSync(0x1000, target)).toBe(true);
    expect(target).toEqual(bytes.subarray(0, 0x2000));
    expect(image.diagnostics.list).toEqual([]);
  });

  it('reads CPU notes by their size: without kernel_gs_base, with it, and with a crash flag', () => {
    const notes = Buffer.concat([
      note('CORE', 1, Buffer.alloc(336)),
      cpuNote(432, { rip: 1n, cr3: 0x1000n }),
      cpuNote(440, { rip: 2n, kernelGs: 0xfffff80000001000n }),
      cpuNote(448, { rip: 3n, kernelGs: 5n, version: 2, crash: 1 }),
      cpuNote(512, { rip: 4n, version: 2 }),
    ]);
    const { cpus } = open(elf({ notes, noteLast: true }));
    expect(cpus.map((c) => x64(c.registers)?.rip)).toEqual([1n, 2n, 3n, 4n]);
    expect(cpus.map((c) => x64(c.registers)?.kernelGsBase)).toEqual([undefined, 0xfffff80000001000n, 5n, 0n]);
    expect(cpus.map((c) => c.crashed)).toEqual([undefined, undefined, true, false]);
    expect(x64(cpus[0]!.registers)?.control?.cr3).toBe(0x1000n);
  });

  it('reports a CPU note that is too short and keeps the others', () => {
    const notes = Buffer.concat([
      cpuNote(432, { rip: 1n }),
      note('QEMU', 0, Buffer.alloc(100)),
      cpuNote(440, { rip: 3n }),
    ]);
    const image = open(elf({ notes }));
    expect(image.cpus.map((c) => x64(c.registers)?.rip)).toEqual([1n, undefined, 3n]);
    expect(codes(image)).toEqual(['cpu-note-short']);
  });

  it('reports CPUs that have only a status note', () => {
    const image = open(elf({ notes: note('CORE', 1, Buffer.alloc(336)) }));
    expect(codes(image)).toEqual(['cpu-notes-missing']);
  });

  it('stops at a note that claims more than there is', () => {
    const bad = note('QEMU', 0, Buffer.alloc(440));
    bad.writeUInt32LE(0xffffffff, 4);
    const image = open(elf({ notes: Buffer.concat([cpuNote(440, { rip: 7n }), bad]) }));
    expect(image.cpus).toHaveLength(1);
    expect(codes(image)).toEqual(['notes-damaged']);
  });

  it('takes the number of headers from section 0 when there are too many for the ELF header', () => {
    const loads = Array.from({ length: 70_000 }, (_, i) => ({ paddr: i * 0x2000, bytes: Buffer.alloc(16, i) }));
    const image = open(elf({ loads, extended: true }));
    expect(image.runs).toHaveLength(70_000);
    const target = Buffer.alloc(16);
    expect(image.readSync(69_999 * 0x2000, target)).toBe(true);
    expect(target[0]).toBe(69_999 & 0xff);
  });

  it('takes p_filesz < p_memsz for absent memory, not zeros', () => {
    const image = open(elf({ loads: [{ paddr: 0x1000, bytes: Buffer.alloc(0x1000, 1), memsz: 0x3000 }] }));
    expect(image.has(0x2000)).toBe(false);
    expect(codes(image)).toEqual(['memory-absent']);
  });

  it('uses what a cut file still holds', () => {
    const file = elf({
      loads: [
        { paddr: 0x1000, bytes: Buffer.alloc(0x4000, 1) },
        { paddr: 0x8000, bytes: Buffer.alloc(0x1000, 1) },
      ],
    });
    const image = open(file.subarray(0, file.length - 0x2800));
    expect(image.runs.map((r) => [r.start, r.size])).toEqual([[0x1000, 0x2800]]);
    expect(image.diagnostics.losses.map((d) => d.code)).toEqual(['input-truncated']);
  });

  it('uses overlapping headers that share their bytes once', () => {
    const bytes = noise(0x4000);
    const at = 0xc0 + 56 * 3;
    const image = open(
      elf({
        loads: [
          { paddr: 0x1000, bytes },
          { paddr: 0x2000, bytes: Buffer.alloc(0x1000), offset: at + 0x1000 },
        ],
      }),
    );
    expect(image.runs.map((r) => [r.start, r.size])).toEqual([[0x1000, 0x4000]]);
    expect(image.diagnostics.list).toEqual([]);
  });

  it('warns when headers claim the same memory with different bytes', () => {
    const image = open(
      elf({
        loads: [
          { paddr: 0x1000, bytes: Buffer.alloc(0x2000, 1) },
          { paddr: 0x2000, bytes: Buffer.alloc(0x2000, 2) },
        ],
      }),
    );
    const target = Buffer.alloc(0x3000);
    expect(image.readSync(0x1000, target)).toBe(true);
    expect([target[0x1fff], target[0x2000]]).toEqual([1, 2]);
    expect(codes(image)).toEqual(['elf-overlap']);
  });

  it('leaves out addresses beyond 52 bits', () => {
    const image = open(
      elf({
        loads: [
          { paddr: 0x1000, bytes: Buffer.alloc(0x1000) },
          { paddr: 2n ** 52n - 0x1000n, bytes: Buffer.alloc(0x2000) },
        ],
      }),
    );
    expect(image.runs.map((r) => [r.start, r.size])).toEqual([
      [0x1000, 0x1000],
      [2 ** 52 - 0x1000, 0x1000],
    ]);
    expect(codes(image)).toEqual(['address-beyond-52-bits']);
  });
});

describe('notes without end', () => {
  it('are read up to a number, in bounded memory', () => {
    const image = open(elf({ notes: Buffer.alloc(4 << 20) }));
    expect(codes(image)).toContain('notes-too-many');
  });

  it('share one budget, however many headers list them', () => {
    const notes = Buffer.alloc(48 << 20);
    notes.writeUInt32LE(notes.length - 12, 4);
    const file = elf({
      notes,
      loads: [
        { paddr: 0x1000, bytes: Buffer.alloc(0x1000) },
        { paddr: 0, bytes: Buffer.alloc(0), offset: 0 },
      ],
    });
    // The second PT_LOAD becomes another PT_NOTE over the same bytes.
    file.copy(file, 0xc0 + 56 * 2, 0xc0, 0xc0 + 56);
    expect(codes(open(file))).toContain('notes-too-large');
  });
});

describe('files that are refused', () => {
  const cases: [name: string, file: Buffer, code: string, kind: string][] = [
    ['an empty file', Buffer.alloc(0), 'input-empty', 'corrupt'],
    ['text', Buffer.from('hello'), 'input-unknown', 'unsupported'],
    ['the first bytes of an ELF file', elf().subarray(0, 10), 'elf-truncated-header', 'corrupt'],
    ['half an ELF header', elf().subarray(0, 40), 'elf-bad-header', 'corrupt'],
    ['a file cut within its program headers', elf().subarray(0, 0xd0), 'elf-truncated-phdrs', 'corrupt'],
    ['a file cut before its memory', elf().subarray(0, 0xc0 + 2 * 56), 'elf-no-memory', 'corrupt'],
    ['a 32-bit core', elf({ patch: (f) => f.writeUInt8(1, 4) }), 'elf-32-bit', 'unsupported'],
    ['a big-endian core', elf({ patch: (f) => f.writeUInt8(2, 5) }), 'elf-big-endian', 'unsupported'],
    ['a program', elf({ patch: (f) => f.writeUInt16LE(2, 0x10) }), 'elf-not-core', 'unsupported'],
    ['a PowerPC core', elf({ patch: (f) => f.writeUInt16LE(21, 0x12) }), 'elf-machine', 'unsupported'],
    ['an impossible header size', elf({ patch: (f) => f.writeUInt16LE(32, 0x36) }), 'elf-phentsize', 'corrupt'],
    ['no program headers', elf({ patch: (f) => f.writeUInt16LE(0, 0x38) }), 'elf-no-memory', 'unsupported'],
    [
      'four billion program headers',
      elf({ extended: true, patch: (f) => f.writeUInt32LE(0xffffffff, 0x6c) }),
      'elf-phnum',
      'corrupt',
    ],
    [
      'a section table outside the file',
      elf({ extended: true, patch: (f) => f.writeBigUInt64LE(1n << 62n, 0x28) }),
      'elf-section-missing',
      'corrupt',
    ],
    [
      'program headers outside the file',
      elf({ patch: (f) => f.writeBigUInt64LE(1n << 63n, 0x20) }),
      'elf-truncated-phdrs',
      'corrupt',
    ],
    [
      'an offset of 2^63',
      elf({ patch: (f) => f.writeBigUInt64LE(1n << 63n, 0xc0 + 56 + 8) }),
      'elf-phdr-range',
      'corrupt',
    ],
    [
      'a size of 2^64-1',
      elf({ patch: (f) => f.writeBigUInt64LE(2n ** 64n - 1n, 0xc0 + 56 + 0x20) }),
      'elf-phdr-range',
      'corrupt',
    ],
    [
      'a migration stream of another version',
      Buffer.concat([Buffer.from('QEVM'), Buffer.alloc(100)]),
      'migration-stream-damaged',
      'corrupt',
    ],
    [
      'a libvirt save file without a stream',
      Buffer.concat([Buffer.from('LibvirtQemudSave'), Buffer.alloc(100)]),
      'migration-stream-damaged',
      'corrupt',
    ],
    ['a crash dump', Buffer.concat([Buffer.from('PAGEDU64'), Buffer.alloc(100)]), 'already-dmp', 'unsupported'],
    [
      'a qcow2 image with a header of zeros',
      Buffer.concat([Buffer.from('QFI\xfb', 'latin1'), Buffer.alloc(100)]),
      'qcow2-damaged',
      'corrupt',
    ],
    [
      'a core file of a process',
      elf({
        loads: [{ paddr: 0, bytes: Buffer.alloc(0x3000, 1) }],
        notes: prpsinfo('qemu-system-x86', '/usr/bin/qemu-system-x86_64 -m 64'),
      }),
      'process-core',
      'unsupported',
    ],
    ['a gzip file', Buffer.from([0x1f, 0x8b, 8, 0, 0]), 'compressed-gzip', 'unsupported'],
  ];
  for (const [name, file, code, kind] of cases) {
    it(name, () => {
      const error = failure(file);
      expect([error.code, error.kind]).toEqual([code, kind]);
      expect(error.message).toContain('test.elf: ');
      // What was expected and what was found, or at the least what to do.
      expect(error.details.hint ?? error.details.expected).toBeTruthy();
    });
  }

  it.each([
    ['qemu-system-x86', '/usr/bin/qemu-system-x86_64 -m 64', 'qemu-system-x86_64', true],
    ['qemu-kvm', '/usr/libexec/qemu-kvm -name guest=a', 'qemu-kvm', true],
    ['sleep', 'sleep 10', 'sleep', false],
  ])('tells where the RAM may be in a core file of QEMU: %s', (name, command, program, guest) => {
    const loads = [
      { paddr: 0, bytes: Buffer.alloc(0x1000, 1) },
      { paddr: 0, bytes: Buffer.alloc(0x3000, 1) },
    ];
    const file = elf({ loads, notes: prpsinfo(name, command) });
    const { message, details } = failure(file);
    expect(message).toContain(`a core file of a process (${program}), not of a guest`);
    const ram = file.length - 0x3000;
    const how = `tail -c +${ram + 1} FILE | head -c 12288 > ram`;
    expect(details.hint?.includes(how)).toBe(guest);
  });

  it('gives a typed error or an image for any damage to a file', () => {
    const good = elf({ notes: Buffer.concat([cpuNote(440, { rip: 1n }), cpuNote(440, { rip: 2n })]) });
    fc.assert(
      fc.property(
        fc.nat(good.length),
        fc.array(fc.tuple(fc.nat(0xc0 + 56 * 2 + 0x400), fc.nat(255)), { maxLength: 4 }),
        (cut, changes) => {
          const file = Buffer.from(good.subarray(0, cut));
          for (const [at, value] of changes) if (at < file.length) file[at] = value;
          try {
            const image = open(file);
            for (const run of image.runs) {
              const target = Buffer.alloc(Math.min(run.size, 64));
              expect(image.readSync(run.start, target)).toBe(true);
            }
          } catch (error) {
            if (!(error instanceof Elf2dmpError)) throw error;
          }
        },
      ),
      { numRuns: 2000 },
    );
  });
});
