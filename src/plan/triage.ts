/**
 * A triage dump (kernel minidump) as a plan: registers, stacks, modules and the memory around them, in at most 2 MiB.
 * What the debugger needs of it, and how that was found out, is in docs/triage.md.
 */
import { alignUp, isKernelAddress } from '../core/bits.ts';
import { Diagnostics, Elf2dmpError } from '../core/errors.ts';
import { Reason } from '../core/reason.ts';
import { bytes as bytesText, hex64, KIB, PAGE_SIZE } from '../core/units.ts';
import { DebugDirectory, DIRECTORY_DEBUG, DIRECTORY_EXCEPTION, DIRECTORY_EXPORT } from '../formats/pe.ts';
import {
  TRIAGE_FIELDS,
  TRIAGE_LIMIT,
  TRIAGE_UNLOADED_NAME,
  TRIAGE_VALID,
  TriageDataBlock,
  type TriageForm,
  triageForm,
} from '../formats/triage.ts';
import { DUMP_ATTRIBUTE_SECURE_KERNEL, DumpType } from '../formats/win-dump.ts';
import { KdVersion } from '../formats/win-kernel.ts';
import type { AddressSpace } from '../memory/address-space.ts';
import type { TriageCpuChoice } from '../options/choices.ts';
import { findFault } from '../windows/fault.ts';
import { type Module, moduleOf } from '../windows/modules.ts';
import { type PeImage, readPeImage } from '../windows/pe-image.ts';
import type { Processor } from '../windows/processors.ts';
import { type Stack, spacesOf, type WalkOptions, walkFrom, walkStack } from '../windows/stacks.ts';
import { currentThreadStack, isOnStack } from '../windows/thread-stack.ts';
import { readUnloadedModules } from '../windows/unloaded-modules.ts';
import type { Windows } from '../windows/windows.ts';
import type { Contexts, ShownContext } from './contexts.ts';
import type { Patch } from './patches.ts';
import type { DumpPlan, PlanValues, RevisedHeader } from './plan.ts';
import { PatchedMemory, type VirtualBlock, VirtualBlocks } from './virtual-blocks.ts';

/** What a caller may choose of a triage dump. */
export interface TriageChoices {
  /** Whose stacks it has. Default `crashing`: of the processor that the debugger opens on. */
  cpus?: TriageCpuChoice | undefined;
  /** Also user-mode stacks, with what names and unwinds them. Default false: no memory of user mode. */
  userStacks?: boolean | undefined;
}

/** What the dump is made from. */
export interface TriageSources {
  /** As in `PlanOptions`. */
  values: PlanValues | RevisedHeader;
  patches: readonly Patch[];
  contexts: Contexts;
}

/** Modules and their names may take this much: a guest has some 200, a damaged list any number. */
const DRIVERS_ROOM = 384 * KIB;
/** UTF-16 units of a path. */
const MAX_PATH = 260;
/** Of code, on both sides of an instruction pointer. */
const CODE_WINDOW = 0x100;
/** Of data, on both sides of an address in a register. */
const DATA_WINDOW = 0x80;
/** A processor's first fields, with its special registers in every build. */
const SMALL_PRCB = 0x200;
const MAX_TABLE = PAGE_SIZE;
const MAX_USER_STACK = 64 * KIB;
/** A module's export or exception directory beyond this is damaged. */
const MAX_DIRECTORY = 768 * KIB;
const RSDS_BYTES = 0x120;
const LAB_BYTES = 128;

/** Throws `Elf2dmpError` for a guest without processors. */
export function planTriage(windows: Windows, sources: TriageSources, choices: TriageChoices): DumpPlan {
  return new TriageWriter(windows, sources, choices).plan();
}

/** A part of the file that is also a block of memory. */
interface Part {
  address: bigint;
  bytes: Buffer;
}

/** The thread that runs on a processor. */
interface Thread {
  thread: Part;
  process: Part | undefined;
  /** InitialStack; undefined where it can't be had. */
  initialStack: bigint | undefined;
}

class TriageWriter {
  readonly #windows: Windows;
  readonly #sources: TriageSources;
  readonly #choices: TriageChoices;
  readonly #memory: PatchedMemory;
  readonly #diagnostics = new Diagnostics();
  readonly #form: TriageForm;
  /** Whose processor the debugger opens on. */
  readonly #current: Processor;
  readonly #shown: ShownContext | undefined;

  constructor(windows: Windows, sources: TriageSources, choices: TriageChoices) {
    this.#windows = windows;
    this.#sources = sources;
    this.#choices = choices;
    this.#memory = new PatchedMemory(sources.patches);
    this.#form = triageForm(windows.image.machine.pointerSize);
    const { image } = windows;
    this.#shown = sources.contexts.opened;
    const current = this.#shown?.processor ?? windows.processors[0];
    if (!current || !windows.kdbg.fields.SizePrcb) {
      throw new Elf2dmpError({
        code: 'triage-no-processor',
        kind: 'corrupt',
        message: 'a triage dump is that of a processor, and none was found whose PRCB can be saved',
        file: image.file,
        hint: 'use --type full: it needs none',
      });
    }
    this.#current = current;
  }

  plan(): DumpPlan {
    const { image, kdbg } = this.#windows;
    const { patches } = this.#sources;
    const form = image.machine.dumpHeader;
    const prcb = this.#part('PRCB', this.#current.prcb, kdbg.fields.SizePrcb ?? 0);
    const running = this.#thread();
    const stack = this.#stack(running);
    const file = new FileLayout(form.size + this.#form.header.size);
    const mm = Buffer.alloc(this.#form.mm.size);
    this.#form.mm.write(mm, 0, { Version: 1, Size: mm.length });
    const MmOffset = file.add(mm);
    const UnloadedDriversOffset = file.add(this.#unloaded());
    const parts = [prcb, running?.process, running?.thread, stack].map((part) =>
      part ? { ...part, offset: file.add(part.bytes) } : undefined,
    );
    const DebuggerDataOffset = file.add(kdbg.block);
    const drivers = this.#drivers(file.end);
    const DriverListOffset = file.add(drivers.list);
    const StringPoolOffset = file.add(drivers.strings);
    const whole = parts.filter((part) => part !== undefined && part.bytes.length > 0);
    const room = TRIAGE_LIMIT - file.end - whole.length * TriageDataBlock.size - 64;
    const blocks = this.#blocks(room);
    const table = Buffer.alloc((blocks.length + whole.length) * TriageDataBlock.size);
    const DataBlocksOffset = file.add(table);
    const entries = [
      ...whole.map((part) => ({ Address: part!.address, Offset: part!.offset, Size: part!.bytes.length })),
      ...blocks.map(({ address, bytes }) => ({ Address: address, Offset: file.add(bytes), Size: bytes.length })),
    ];
    entries.forEach((entry, i) => {
      TriageDataBlock.write(table, i * TriageDataBlock.size, entry);
    });
    const ValidOffset = file.add(TRIAGE_VALID);
    const size = ValidOffset + TRIAGE_VALID.length;
    const [prcbAt, processAt, threadAt, stackAt] = parts.map((part) => part?.offset ?? 0);
    const bytes = file.assemble(size);
    this.#header(size).copy(bytes);
    this.#form.header.write(bytes, form.size, {
      SizeOfDump: size,
      ValidOffset,
      ContextOffset: form.layout.offsetOf('ContextRecord'),
      ExceptionOffset: form.layout.offsetOf('Exception'),
      MmOffset,
      UnloadedDriversOffset,
      PrcbOffset: prcbAt!,
      ProcessOffset: processAt!,
      ThreadOffset: threadAt!,
      CallStackOffset: stackAt!,
      CallStackSize: stack?.bytes.length ?? 0,
      TopOfStack: stack?.address ?? 0n,
      DriverListOffset,
      DriverCount: drivers.count,
      StringPoolOffset,
      StringPoolSize: drivers.strings.length,
      DebuggerDataOffset,
      DebuggerDataSize: kdbg.block.length,
      DataBlocksOffset,
      DataBlocksCount: entries.length,
      TriageOptions: 0xffff_ffff,
    });
    return {
      type: 'triage',
      segments: [{ kind: 'bytes', position: 0, bytes }],
      prefix: bytes,
      firstPage: size,
      extents: [],
      pages: 0,
      size,
      patches,
      diagnostics: this.#diagnostics.list,
    };
  }

  /** @param requiredSpace bytes of the whole file */
  #header(requiredSpace: number): Buffer {
    const { values } = this.#sources;
    const { dumpHeader: form } = this.#windows.image.machine;
    const described = { extents: [], pages: 0, dumpType: DumpType.triage, requiredSpace };
    // What the header of a dump says beside its type stays, with its bug check where memory has none.
    if ('header' in values) {
      const changes = { ...values.changes, MiniDumpFields: TRIAGE_FIELDS };
      return form.revise(values.header, { ...described, attributes: undefined }, changes);
    }
    const attributes = values.secureKernel ? DUMP_ATTRIBUTE_SECURE_KERNEL : undefined;
    return form.encode({ ...values, ...described, miniDumpFields: TRIAGE_FIELDS, attributes });
  }

  /** Structure of which pages may be missing: they are zeros then, and a loss. */
  #part(what: string, address: bigint, size: number): Part {
    const bytes = Buffer.alloc(size);
    let missing = 0;
    for (let at = 0; at < size; ) {
      const count = Math.min(size - at, PAGE_SIZE - Number((address + BigInt(at)) & 0xfffn));
      const piece = this.#read(address + BigInt(at), count);
      if (piece) piece.copy(bytes, at);
      else missing += count;
      at += count;
    }
    if (missing > 0) {
      this.#diagnostics.add(
        'loss',
        'triage-part-missing',
        `${bytesText(missing)} of the ${what} at ${hex64(address)} are not in the input: the dump has zeros there`,
        { virtual: hex64(address) },
      );
    }
    return { address, bytes };
  }

  #read(address: bigint, length: number): Buffer | undefined {
    return this.#memory.read(this.#windows.space, address, length);
  }

  #pointer(address: bigint): bigint | undefined {
    const value = this.#windows.space.readPointer(address);
    return value !== undefined && isKernelAddress(value) ? value : undefined;
  }

  #thread(): Thread | undefined {
    const { fields } = this.#windows.kdbg;
    const { OffsetPrcbCurrentThread: threadAt, OffsetKThreadApcProcess: processAt, SizeEThread, SizeEProcess } = fields;
    const address = threadAt ? this.#pointer(this.#current.prcb + BigInt(threadAt)) : undefined;
    if (address === undefined || !SizeEThread || !this.#read(address, 8)) {
      this.#diagnostics.add(
        'warning',
        'triage-thread-unknown',
        `the thread that runs on processor ${this.#current.number} was not found: the dump has neither it nor its process`,
      );
      return undefined;
    }
    const process = processAt ? this.#pointer(address + BigInt(processAt)) : undefined;
    const known = process !== undefined && SizeEProcess && this.#read(process, 8);
    const { OffsetKThreadInitialStack: initialAt } = fields;
    return {
      thread: this.#part('ETHREAD', address, SizeEThread),
      process: known ? this.#part('EPROCESS', process, SizeEProcess) : undefined,
      initialStack: initialAt ? this.#pointer(address + BigInt(initialAt)) : undefined,
    };
  }

  /** From the stack pointer up to the thread's first frame; without a known end, as far as memory is present. */
  #stack(running: Thread | undefined): Part | undefined {
    if (!this.#shown) return undefined;
    const { stackPointer } = this.#windows.image.machine.viewContext(this.#shown.frame);
    return isKernelAddress(stackPointer)
      ? this.#kernelStack(stackPointer, running?.initialStack, this.#current.prcb)
      : undefined;
  }

  #kernelStack(top: bigint, initial: bigint | undefined, prcb: bigint): Part {
    const { space, kdbg, image } = this.#windows;
    const most = BigInt(image.machine.kernelStackSize);
    const bounds = currentThreadStack(space, kdbg.fields, prcb);
    const bases = [
      bounds && isOnStack(bounds, top) ? bounds.base : undefined,
      initial === undefined ? undefined : (initial + 0xfffn) & ~0xfffn,
    ];
    const base = bases.find((each) => each !== undefined && top < each && each - top <= most);
    const end = base ?? top + most;
    const pieces: Buffer[] = [];
    for (let at = top; at < end; ) {
      const next = (at & ~0xfffn) + 0x1000n;
      const piece = this.#read(at, Number((next < end ? next : end) - at));
      if (!piece) break;
      pieces.push(piece);
      at = next;
    }
    return { address: top, bytes: Buffer.concat(pieces) };
  }

  #unloaded(): Buffer {
    const found = readUnloadedModules(this.#windows.space, this.#windows.kdbg.fields);
    const modules = found instanceof Reason ? [] : found;
    const { unloadedCount, unloadedDriver } = this.#form;
    const list = Buffer.alloc(unloadedCount.size + modules.length * unloadedDriver.size);
    unloadedCount.write(list, 0, { Count: BigInt(modules.length) });
    modules.forEach(({ name, from, to }, i) => {
      const text = Buffer.from(name.slice(0, TRIAGE_UNLOADED_NAME), 'utf16le');
      unloadedDriver.write(list, unloadedCount.size + i * unloadedDriver.size, {
        Name: { Length: text.length, MaximumLength: text.length, Buffer: 0n },
        NameBuffer: text,
        StartAddress: from,
        EndAddress: to,
      });
    });
    return list;
  }

  /** The list of modules for file offset `at` (aligned), and the strings behind it. */
  #drivers(at: number): { list: Buffer; strings: Buffer; count: number } {
    const { modules } = this.#windows;
    const { driver } = this.#form;
    const named = modules.map((module) => ({ module, text: stringOf(module) }));
    let room = DRIVERS_ROOM;
    const fitting = named.filter(({ text }) => {
      room -= driver.size + text.length;
      return room >= 0;
    });
    if (fitting.length < named.length) {
      this.#diagnostics.add(
        'loss',
        'triage-too-large',
        `${named.length - fitting.length} of ${named.length} modules do not fit in a triage dump`,
      );
    }
    // Where the loader notes time stamps differs between builds: believed if the kernel's is its header's.
    const { kernel } = this.#windows;
    const stamps = modules.some((m) => m.base === kernel.base && m.timeDateStamp === kernel.timeDateStamp);
    const list = Buffer.alloc(fitting.length * driver.size);
    let next = alignUp(alignUp(at, ALIGNMENT) + list.length, ALIGNMENT);
    fitting.forEach(({ module, text }, i) => {
      driver.write(list, i * driver.size, { NameOffset: next, ...this.#driver(module, stamps) });
      next += text.length;
    });
    return { list, strings: Buffer.concat(fitting.map(({ text }) => text)), count: fitting.length };
  }

  #driver({ base, size, checkSum, timeDateStamp }: Module, stamps: boolean) {
    const image = this.#image(base);
    return {
      DllBase: base as bigint,
      SizeOfImage: size,
      CheckSum: image?.checkSum ?? checkSum,
      TimeDateStamp: image?.timeDateStamp ?? (stamps ? timeDateStamp : 0),
    };
  }

  #image(base: bigint, space: AddressSpace = this.#windows.space): PeImage | undefined {
    const image = readPeImage(space, base, space.image.machine.imageFileMachine);
    return image instanceof Reason ? undefined : image;
  }

  /** Most important first: what there is no room for is left out. */
  #blocks(room: number): VirtualBlock[] {
    const { userStacks = false, cpus = 'crashing' } = this.#choices;
    const blocks = new VirtualBlocks(this.#memory, { room, user: userStacks });
    const { contexts } = this.#sources;
    this.#addKernel(blocks);
    const { shown } = contexts;
    const known = shown.filter(({ source }) => source !== 'unknown');
    for (const each of shown) this.#addProcessor(blocks, each.processor);
    const walked = known
      .filter((each) => each === this.#shown || cpus === 'all')
      .sort((a, b) => Number(b === this.#shown) - Number(a === this.#shown));
    // Without a stack in it, the kernel is still to be named.
    const modules = new Set<bigint>([this.#windows.kernel.base]);
    for (const each of known) this.#addCode(blocks, each);
    for (const each of walked) this.#addStack(blocks, each, modules);
    this.#addFault(blocks, modules);
    for (const value of this.#windows.crash?.bugCheck.parameters ?? []) {
      const module = moduleOf(this.#windows.modules, value);
      if (module) modules.add(module.base);
    }
    for (const base of modules) this.#addModule(blocks, base);
    this.#addParameters(blocks);
    for (const each of walked) this.#addRegisters(blocks, each);
    if (blocks.refused > 0) {
      this.#diagnostics.add(
        'warning',
        'triage-cut',
        `${bytesText(blocks.refused)} around stacks and registers do not fit in a triage dump and were left out`,
      );
    }
    return blocks.list();
  }

  #addKernel(blocks: VirtualBlocks): void {
    const { space, kdbg, processors, version, image, kernel } = this.#windows;
    const { KiProcessorBlock, KiBugCheckData, NtBuildLab } = kdbg.fields;
    const { pointerSize } = image.machine;
    const last = processors.reduce((most, { number }) => Math.max(most, number), 0);
    if (KiProcessorBlock !== undefined) blocks.add(space, KiProcessorBlock, pointerSize * (last + 1));
    if (KiBugCheckData !== undefined) blocks.add(space, KiBugCheckData, 5 * pointerSize);
    blocks.add(space, image.machine.sharedUserData, PAGE_SIZE);
    blocks.add(space, kernel.base, PAGE_SIZE);
    if (NtBuildLab !== undefined) blocks.add(space, NtBuildLab, LAB_BYTES);
    if (version.kdVersionBlock !== undefined) blocks.add(space, version.kdVersionBlock, KdVersion.size);
  }

  /** What switching to a processor takes: its first fields, the pointer to its frame, and the frame. */
  #addProcessor(blocks: VirtualBlocks, processor: Processor): void {
    const { space, kdbg, image } = this.#windows;
    const { machine } = image;
    const { prcb, kpcr, context, specialRegisters, cpu } = processor;
    blocks.add(space, prcb, SMALL_PRCB);
    blocks.add(space, kpcr, machine.kpcr.size);
    if (specialRegisters !== undefined) blocks.add(space, specialRegisters, machine.specialRegistersSize);
    const { OffsetPrcbContext, OffsetPrcbNumber } = kdbg.fields;
    // Behind the pointer are the flags of a new frame.
    if (OffsetPrcbContext) blocks.add(space, prcb + BigInt(OffsetPrcbContext), 2 * machine.pointerSize);
    if (OffsetPrcbNumber) blocks.add(space, prcb + BigInt(OffsetPrcbNumber), 4);
    if (typeof context === 'bigint') blocks.add(space, context, machine.contextSize);
    this.#addThread(blocks, processor);
    const gdt = cpu?.registers && machine.descriptorTable?.(cpu.registers);
    if (gdt) blocks.add(space, gdt.base, Math.min(gdt.size, MAX_TABLE));
  }

  /** What the debugger looks up of the thread that a processor runs, and of its process. */
  #addThread(blocks: VirtualBlocks, { prcb }: Processor): void {
    const { space, kdbg, image } = this.#windows;
    const { fields } = kdbg;
    const { pointerSize } = image.machine;
    const thread = fields.OffsetPrcbCurrentThread
      ? this.#pointer(prcb + BigInt(fields.OffsetPrcbCurrentThread))
      : undefined;
    if (thread === undefined) return;
    const { OffsetKThreadTeb, OffsetKThreadInitialStack, OffsetKThreadApcProcess } = fields;
    for (const offset of [OffsetKThreadTeb, OffsetKThreadInitialStack, OffsetKThreadApcProcess]) {
      if (offset) blocks.add(space, thread + BigInt(offset), pointerSize);
    }
    const { OffsetKThreadApcProcess: processAt, OffsetEprocessDirectoryTableBase: rootAt } = fields;
    const process = processAt ? this.#pointer(thread + BigInt(processAt)) : undefined;
    if (process !== undefined && rootAt) blocks.add(space, process + BigInt(rootAt), pointerSize);
  }

  #addCode(blocks: VirtualBlocks, { processor, frame }: ShownContext): void {
    const { instructionPointer } = this.#windows.image.machine.viewContext(frame);
    this.#around(blocks, processor, instructionPointer, CODE_WINDOW);
  }

  #around(blocks: VirtualBlocks, processor: Processor, address: bigint, window: number): void {
    const reach = BigInt(window);
    if (address < reach || address > MAX_ADDRESS - reach) return;
    for (const space of spacesOf(this.#windows, processor)) blocks.add(space, address - reach, 2 * window);
  }

  /** All that our own walk reads: stack, headers, unwind data, code. The debugger's reads the same. */
  #addStack(blocks: VirtualBlocks, { processor, frame }: ShownContext, modules: Set<bigint>): void {
    const { space, image } = this.#windows;
    const { frames } = this.#walk(blocks, (options) => walkStack(this.#windows, processor, frame, options));
    const { stackPointer } = image.machine.viewContext(frame);
    if (processor !== this.#current && isKernelAddress(stackPointer)) {
      const { bytes } = this.#kernelStack(stackPointer, this.#initialStack(processor), processor.prcb);
      blocks.add(space, stackPointer, bytes.length);
    }
    const user = frames.filter((each) => !isKernelAddress(each.stackPointer));
    const [first, last] = [user[0], user.at(-1)];
    if (first && last && last.stackPointer >= first.stackPointer) {
      const length = Math.min(MAX_USER_STACK, Number(last.stackPointer - first.stackPointer) + PAGE_SIZE);
      for (const from of spacesOf(this.#windows, processor)) blocks.add(from, first.stackPointer, length);
    }
    this.#addFrames(blocks, { processor, frames }, modules);
  }

  /** Keeps all that a walk reads. */
  #walk(blocks: VirtualBlocks, walk: (options: WalkOptions) => Stack): Stack {
    const reads: [AddressSpace, bigint, number][] = [];
    const stack = walk({ onRead: (from, address, length) => reads.push([from, address, length]) });
    for (const each of reads) blocks.add(...each);
    return stack;
  }

  #addFrames(
    blocks: VirtualBlocks,
    { processor, frames }: Pick<Stack, 'processor' | 'frames'>,
    modules: Set<bigint>,
  ): void {
    for (const { instructionPointer, module, certain } of frames) {
      this.#around(blocks, processor, instructionPointer, CODE_WINDOW);
      if (module && certain && isKernelAddress(module.base)) modules.add(module.base);
    }
  }

  /** The stack at the fault, from registers that the crash keeps: the debugger's `.trap` and `.cxr` show it. */
  #addFault(blocks: VirtualBlocks, modules: Set<bigint>): void {
    const fault = findFault(this.#windows);
    const processor = this.#windows.crash?.processor ?? this.#current;
    if (!fault) return;
    blocks.add(this.#windows.space, fault.address, this.#windows.image.machine.contextSize);
    this.#addFrames(
      blocks,
      this.#walk(blocks, (options) => walkFrom(this.#windows, processor, fault.state, options)),
      modules,
    );
  }

  #initialStack(processor: Processor): bigint | undefined {
    const { OffsetPrcbCurrentThread: threadAt, OffsetKThreadInitialStack: initialAt } = this.#windows.kdbg.fields;
    const thread = threadAt ? this.#pointer(processor.prcb + BigInt(threadAt)) : undefined;
    return thread !== undefined && initialAt ? this.#pointer(thread + BigInt(initialAt)) : undefined;
  }

  /** What names a module and matches its PDB, its exports, and its exception directory: the debugger reads all of it. */
  #addModule(blocks: VirtualBlocks, base: bigint): void {
    const { space } = this.#windows;
    const image = this.#image(base);
    if (!image) return;
    const at = (rva: number) => base + BigInt(rva);
    blocks.add(space, base, PAGE_SIZE);
    const debug = image.directories[DIRECTORY_DEBUG];
    if (debug && debug.size <= PAGE_SIZE) {
      blocks.add(space, at(debug.rva), debug.size);
      const entries = space.read(at(debug.rva), debug.size);
      for (let i = 0; entries && i + DebugDirectory.size <= entries.length; i += DebugDirectory.size) {
        const { AddressOfRawData: rva, SizeOfData: size } = DebugDirectory.read(entries, i);
        if (rva !== 0 && rva < image.size) blocks.add(space, at(rva), Math.min(size, RSDS_BYTES));
      }
    }
    for (const index of [DIRECTORY_EXCEPTION, DIRECTORY_EXPORT]) {
      const directory = image.directories[index];
      if (directory && directory.rva + directory.size <= image.size && directory.size <= MAX_DIRECTORY) {
        blocks.add(space, at(directory.rva), directory.size);
      }
    }
  }

  #addParameters(blocks: VirtualBlocks): void {
    const { space, crash } = this.#windows;
    for (const value of crash?.bugCheck.parameters ?? []) {
      if (isKernelAddress(value)) blocks.add(space, value & ~0xfffn, PAGE_SIZE);
    }
  }

  #addRegisters(blocks: VirtualBlocks, { processor, frame }: ShownContext): void {
    const { integers } = this.#windows.image.machine.frameState(frame);
    for (const value of integers) {
      if (value !== undefined && isKernelAddress(value)) this.#around(blocks, processor, value, DATA_WINDOW);
    }
  }
}

const MAX_ADDRESS = 2n ** 64n - 1n;

/** As the dump's string pool has it. */
function stringOf({ path, name }: Module): Buffer {
  const text = (path || name).slice(0, MAX_PATH);
  const bytes = Buffer.alloc(alignUp(4 + 2 * text.length + 2, 8));
  bytes.writeUInt32LE(text.length);
  bytes.write(text, 4, 'utf16le');
  return bytes;
}

const ALIGNMENT = 16;

/** Parts of a file one after the other, each aligned. */
class FileLayout {
  readonly #parts: { offset: number; bytes: Buffer }[] = [];
  end: number;

  constructor(end: number) {
    this.end = end;
  }

  /** Returns the part's offset. The bytes may be filled in later. */
  add(bytes: Buffer): number {
    const offset = alignUp(this.end, ALIGNMENT);
    this.#parts.push({ offset, bytes });
    this.end = offset + bytes.length;
    return offset;
  }

  assemble(size: number): Buffer {
    const file = Buffer.alloc(size);
    for (const { offset, bytes } of this.#parts) bytes.copy(file, offset);
    return file;
  }
}
