/**
 * Contradictions between two sources that both look true: nothing is damaged beyond recognition, one of two witnesses
 * lies. What is shown without a word has to be what the guest was built with.
 */
import { encodeWord, RVA } from '../guest/guest.ts';
import { random } from '../guest/memory.ts';
import type { Depth, Mutation, Recipe } from './mutate.ts';
import type { Subject } from './subjects.ts';

/** Where a machine has what: offsets in structures, and bytes of a pointer. */
interface Layout {
  pointer: 4 | 8;
  module: { base: bigint; size: bigint };
  kpcr: readonly bigint[];
  /** NtBuildNumber in SharedUserData. */
  sharedBuild: bigint;
  /** KdDebuggerDataBlock in the header that a VMCOREINFO note holds. */
  noteKdbg: number;
  bugCheckBytes: number;
  /** Processors have an IDT and a GDT. */
  tables: boolean;
  /**
   * File offsets, by CPU, of the register that leads to its KPCR, and of one that a program can load with any KPCR's
   * address; undefined where it has none.
   */
  registers(subject: Subject): { kpcr: number | undefined; program: number | undefined }[];
}

const X64: Layout = {
  pointer: 8,
  module: { base: 0x30n, size: 0x40n },
  kpcr: [0x18n, 0x20n, 0x38n, 0n],
  sharedBuild: 0xfffff780_00000260n,
  noteKdbg: 0x80,
  bugCheckBytes: 40,
  tables: true,
  registers: (subject) =>
    qemuNotes(subject).map((at, i) => {
      const [gs, other] = [at + GS_BASE, at + KERNEL_GS_BASE];
      return inUser(subject, i) ? { kpcr: other, program: gs } : { kpcr: gs, program: other };
    }),
};

const ARM64: Layout = {
  ...X64,
  tables: false,
  // Lock array, thread, TPIDR_EL1, roots, vectors.
  kpcr: [0x28n, 0x988n, 0x9e0n, 0xa88n, 0xa90n, 0xcd0n],
  registers: (subject) =>
    prstatusNotes(subject).map((at, i) => {
      const x18 = at + 0x70 + 8 * 18;
      return inUser(subject, i) ? { kpcr: undefined, program: x18 } : { kpcr: x18, program: undefined };
    }),
};

const X86: Layout = {
  pointer: 4,
  module: { base: 0x18n, size: 0x20n },
  kpcr: [0x1cn, 0x20n, 0x38n, 0x3cn],
  sharedBuild: 0xffffffff_ffdf0260n,
  noteKdbg: 0x60,
  bugCheckBytes: 20,
  tables: true,
  registers: () => [],
};

const inUser = ({ guest: { cpus } }: Subject, cpu: number): boolean => ((cpus[cpu]?.cs ?? 0) & 3) === 3;

/** What a contradiction can be made with. */
interface Maker {
  subject: Subject;
  layout: Layout;
  /** A pointer as this machine keeps it. */
  pointer(value: bigint): Buffer;
  below(n: number): number;
  pick<T>(list: readonly T[]): T;
  /** Replaces memory at a kernel address; nothing where it is not in the file. */
  set(virtual: bigint, bytes: Buffer): void;
  /** Replaces bytes of the file. */
  setFile(offset: number, bytes: Buffer): void;
  /** Makes descriptor 0x30 of a 32-bit processor's table lead elsewhere. */
  descriptor(gdt: bigint, base: bigint): void;
}

const GS_BASE = 0x108;
const KERNEL_GS_BASE = 0x1b0;

const word = (value: bigint): Buffer => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt.asUintN(64, value));
  return bytes;
};

const dword = (value: number): Buffer => word(BigInt(value)).subarray(0, 4);

/** File offsets of the QEMU notes' descriptors, in the order of CPUs. */
function qemuNotes({ file }: Subject): number[] {
  const found: number[] = [];
  for (
    let at = file.indexOf('QEMU\0', 0, 'latin1');
    at >= 0 && at < 0x10000;
    at = file.indexOf('QEMU\0', at + 1, 'latin1')
  ) {
    found.push(at + 8);
  }
  return found;
}

/** File offsets of an ARM64 guest's NT_PRSTATUS, in the order of CPUs. */
function prstatusNotes({ file, guest: { cpus } }: Subject): number[] {
  const name = Buffer.from('8801000001000000434f524500000000', 'hex');
  const found: number[] = [];
  for (let at = file.indexOf(name); at >= 0 && found.length < cpus.length; at = file.indexOf(name, at + 1)) {
    found.push(at + name.length);
  }
  return found;
}

/** Entries of a list, from its head on. */
function entriesOf({ subject: { guest }, layout }: Maker, head: bigint): bigint[] {
  const next = (at: bigint) =>
    layout.pointer === 8
      ? guest.kernel.read(at, 8).readBigUInt64LE()
      : BigInt.asUintN(64, BigInt(guest.kernel.read(at, 4).readInt32LE()));
  const entries: bigint[] = [];
  for (let at = next(head); at !== head; at = next(at)) entries.push(at);
  return entries;
}

/** KDBG fields that reach the header, or say where something is written. */
const KDBG_FIELDS = [0x48, 0x50, 0x88, 0xc0, 0x218, 0x270, 0x2bc, 0x2f2, 0x2e4, 0x2e6, 0x338] as const;

const MAKERS: readonly ((m: Maker) => void)[] = [
  moduleLink,
  modulesCutOut,
  framesExchanged,
  sizeOfKdbg,
  entriesOverwritten,
  kpcrsExchanged,
  // A program has loaded another processor's KPCR into GS.
  ({ subject, layout, pick, setFile, descriptor }) => {
    const { truth } = subject.guest;
    if (layout.pointer === 4) {
      for (const p of truth.processors) descriptor(p.gdt, pick(truth.processors).kpcr);
      return;
    }
    for (const { program } of layout.registers(subject)) {
      if (program !== undefined) setFile(program, word(pick(truth.processors).kpcr));
    }
  },
  // Two CPUs name one KPCR.
  ({ subject, layout, pick, setFile, descriptor }) => {
    const { truth } = subject.guest;
    if (layout.pointer === 4) {
      descriptor(pick(truth.processors).gdt, pick(truth.processors).kpcr);
      return;
    }
    const own = layout.registers(subject).flatMap(({ kpcr }) => kpcr ?? []);
    if (own.length > 0) setFile(pick(own), word(pick(truth.processors).kpcr));
  },
  // One bit of a field of the KDBG, which may be encoded: then it is another bit.
  ({ subject, pick, below, set }) => {
    const { truth, kernel } = subject.guest;
    const at = pick(KDBG_FIELDS);
    if (at + 2 > truth.kdbgBlock.length) return;
    const bytes = Buffer.from(kernel.read(truth.kdbg + BigInt(at & ~7), 8));
    bytes[below(8)]! ^= 1 << below(8);
    set(truth.kdbg + BigInt(at & ~7), bytes);
  },
  moduleFields,
  // A copy of the KDBG elsewhere in the image.
  ({ subject, below, set }) => {
    const { truth, kernel } = subject.guest;
    set(truth.kernelBase + BigInt(0x3b000 + 0x400 * below(16)), kernel.read(truth.kdbg, truth.kdbgBlock.length));
  },
  // The KDBG is lost, and the note names any address for it.
  ({ subject, layout, pointer, pick, set, setFile }) => {
    const { truth } = subject.guest;
    set(truth.kdbg, Buffer.alloc(truth.kdbgBlock.length));
    const note = subject.file.indexOf('VMCOREINFO\0', 0, 'latin1');
    if (note >= 0) setFile(note + 12 + layout.noteKdbg, pointer(pick([...truth.exports.values()])));
  },
  // Entries of KiProcessorBlock, KPCRs, or frames' pointers exchanged.
  ({ subject, layout, pointer, pick, below, set }) => {
    const { truth, build } = subject.guest;
    const [a, b] = [pick(truth.processors), pick(truth.processors)];
    const block = truth.kdbgBlock.readBigUInt64LE(0x218);
    switch (below(3)) {
      case 0:
        set(block + BigInt(layout.pointer * a.number), pointer(b.prcb));
        if (below(2) === 0) set(block + BigInt(layout.pointer * b.number), pointer(a.prcb));
        return;
      case 1:
        return set(
          a.kpcr + pick(layout.kpcr),
          pointer(pick(layout.tables ? [b.kpcr, b.prcb, b.idt, b.gdt] : [b.kpcr, b.prcb])),
        );
      default:
        if (build.prcbContext !== undefined) set(a.prcb + BigInt(build.prcbContext), pointer(b.context));
    }
  },
  // A build number.
  ({ subject, layout, pick, set }) => {
    const { truth } = subject.guest;
    set(
      pick([truth.kernelBase + 0x36200n, layout.sharedBuild, truth.kernelBase + 0x33002n]),
      Buffer.from([0x34, 0x12]),
    );
  },
  // The bug check's data, as memory that was erased reads.
  ({ subject, layout, pick, set }) =>
    set(subject.guest.truth.kdbgBlock.readBigUInt64LE(0x88), Buffer.alloc(layout.bugCheckBytes, pick([0, 0xff]))),
];

/** A link of the module list that leads to another of its entries, or back to the head. */
function moduleLink(maker: Maker): void {
  const { subject, layout, pointer, pick, below, set } = maker;
  const { psLoadedModuleList: head } = subject.guest.truth;
  const all = [head, ...entriesOf(maker, head)];
  set(pick(all) + BigInt(layout.pointer * below(2)), pointer(pick(all)));
}

/** A module's base or size. */
function moduleFields(maker: Maker): void {
  const { subject, layout, pointer, pick, below, set } = maker;
  const entry = pick(entriesOf(maker, subject.guest.truth.psLoadedModuleList));
  if (below(2) === 0) set(entry + layout.module.size, dword(0x1000 * (1 + below(0x100))));
  else set(entry + layout.module.base, pointer(pick(subject.guest.truth.modules).base));
}

/** Entries taken out of the module list as the kernel does it: all links agree. */
function modulesCutOut(maker: Maker): void {
  const { subject, layout, pointer, below, set } = maker;
  const { psLoadedModuleList: head } = subject.guest.truth;
  const entries = entriesOf(maker, head);
  const kept = entries.filter((_, i) => i === 0 || below(2) === 0);
  const ring = [head, ...(kept.length === entries.length ? kept.slice(0, -1) : kept)];
  ring.forEach((at, i) => {
    const next = ring[(i + 1) % ring.length]!;
    set(at, pointer(next));
    set(next + BigInt(layout.pointer), pointer(at));
  });
}

/** Two processors have each other's frame. */
function framesExchanged({ subject, pointer, pick, set }: Maker): void {
  const { truth, build } = subject.guest;
  const a = pick(truth.processors);
  const b = pick(truth.processors.filter((other) => other !== a).concat(truth.processors.length === 1 ? a : []));
  if (build.prcbContext === undefined) return;
  set(a.prcb + BigInt(build.prcbContext), pointer(b.context));
  set(b.prcb + BigInt(build.prcbContext), pointer(a.context));
}

/** KiProcessorBlock overwritten, or a part of it. */
function entriesOverwritten({ subject, layout, pick, below, set }: Maker): void {
  const { truth } = subject.guest;
  const bytes = Buffer.alloc(layout.pointer * (1 + below(truth.processors.length)), pick([0, 0xa7]));
  set(truth.kdbgBlock.readBigUInt64LE(0x218) + BigInt(layout.pointer * below(2)), bytes);
}

/** Two CPUs lead to each other's KPCR. */
function kpcrsExchanged({ subject, layout, pick, setFile }: Maker): void {
  const own = layout.registers(subject).flatMap(({ kpcr }) => kpcr ?? []);
  if (own.length < 2) return;
  const a = pick(own);
  const b = pick(own.filter((other) => other !== a));
  setFile(a, subject.file.subarray(b, b + 8));
  setFile(b, subject.file.subarray(a, a + 8));
}

/** KDBG.Size a little off, in a block that is encoded like any other. */
function sizeOfKdbg({ subject, pick, below, set }: Maker): void {
  const { truth, kernel } = subject.guest;
  const plain = Buffer.from(truth.kdbgBlock.subarray(0x10, 0x18));
  plain.writeUInt32LE(truth.kdbgBlock.length + 8 * (1 + below(8)) * pick([1, -1]), 4);
  if (!truth.kdbgEncoded) {
    set(truth.kdbg + 0x10n, plain);
    return;
  }
  const variable = (rva: number) => kernel.read(truth.kernelBase + BigInt(rva), 8).readBigUInt64LE();
  const at = truth.kernelBase + BigInt(RVA.KdpDataBlockEncoded);
  const [never, always] = [variable(RVA.KiWaitNever), variable(RVA.KiWaitAlways)];
  set(truth.kdbg + 0x10n, word(encodeWord(plain.readBigUInt64LE(), never, always, at)));
}

function layoutOf({ frame }: Subject): Layout {
  if (frame === undefined) return X64;
  return frame.bytes === 4 ? X86 : ARM64;
}

/** One contradiction or two: a pure function of the seed. */
export function makeContradiction(all: readonly Subject[], seed: number, depth: Depth = 'all'): Recipe {
  const next = random(seed);
  const below = (n: number) => Math.floor(next() * n);
  const pick = <T>(list: readonly T[]): T => list[below(list.length)]!;
  const subject = pick(all.filter(({ offsetOf }) => offsetOf !== undefined));
  const mutations: Mutation[] = [];
  const setFile = (offset: number, bytes: Buffer) => mutations.push({ offset, bytes: bytes.toString('hex') });
  const set = (virtual: bigint, bytes: Buffer) => {
    for (let at = 0; at < bytes.length; ) {
      const address = virtual + BigInt(at);
      const piece = bytes.subarray(at, at + Math.min(bytes.length - at, 0x1000 - Number(address & 0xfffn)));
      const physical = subject.guest.kernel.translate(address);
      const offset = physical === undefined ? undefined : subject.offsetOf?.(physical);
      if (offset !== undefined) setFile(offset, piece);
      at += piece.length;
    }
  };
  const layout = layoutOf(subject);
  const pointer = (value: bigint) => word(value).subarray(0, layout.pointer);
  const descriptor = (gdt: bigint, base: bigint) => {
    const [low, high] = [word(base).readUInt32LE(), subject.guest.kernel.read(gdt + 0x34n, 4).readUInt32LE()];
    const bytes = word((BigInt((high & 0x00ffff00) | (low & 0xff000000) | ((low >>> 16) & 0xff)) << 32n) | 0x3748n);
    bytes.writeUInt16LE(low & 0xffff, 2);
    set(gdt + 0x30n, bytes);
  };
  let makers = MAKERS;
  for (let count = 1 + below(2); count > 0; count--) {
    const make = pick(makers);
    make({ subject, layout, pointer, below, pick, set, setFile, descriptor });
    // Twice the same can undo itself, and an entry that was taken out and then lost its base has no witness.
    const done = make === modulesCutOut || make === moduleFields ? [modulesCutOut, moduleFields] : [make];
    // CPUs whose registers are exchanged have one witness or two: none of them may be lost as well.
    if (make === kpcrsExchanged) break;
    makers = makers.filter((maker) => !done.includes(maker) && maker !== kpcrsExchanged);
  }
  return { subject: subject.name, mutations, depth, oracle: true, contradiction: true };
}
