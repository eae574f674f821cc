/** Writes a guest as a QEMU migration stream, by QEMU's docs and sources: shares nothing with the product's reader. */
import { deflateSync } from 'node:zlib';
import type { Guest, GuestCpu } from './guest.ts';
import type { Guest32 } from './x86/guest.ts';

export const u8 = (value: number) => Buffer.from([value]);
const u16 = (value: number) => {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16BE(value);
  return bytes;
};
export const u32 = (value: number) => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value >>> 0);
  return bytes;
};
export const u64 = (value: bigint | number) => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt.asUintN(64, BigInt(value)));
  return bytes;
};
export const name = (text: string) => Buffer.concat([u8(text.length), Buffer.from(text, 'latin1')]);

export interface StreamOptions {
  machineType?: string;
  /** How pages are written: plain, through zlib, or in a first version and a difference to it (xbzrle). */
  pages?: 'plain' | 'compressed' | 'xbzrle';
  /** A first round with other contents of all pages: the second one counts. */
  rounds?: 1 | 2;
  /** Leave out the JSON that describes the devices. */
  withoutDescription?: boolean;
  /** Leave out what says how much RAM is below 4 GiB. */
  withoutCmos?: boolean;
  /** No footers and no configuration, as before QEMU 2.4. */
  old?: boolean;
  /** Pages at fixed places (QEMU 9.0); stale bytes lie where a page is zero. */
  mappedRam?: boolean;
  /** RAM below 4 GiB; the rest lies from there on. */
  low?: number;
  /** Behind the stream, as on a Proxmox volume. */
  trailing?: Buffer;
  /** What the guest told its hypervisor. */
  hyperV?: { guestOsId: bigint; crash?: readonly bigint[] };
  /** QEMU's name of the guest's state. */
  runState?: string;
  /** In front of the stream, as libvirt's header. */
  front?: Buffer;
  /** A device in front of memory. */
  earlyDevice?: boolean;
  /** By QEMU for 32-bit guests alone, whose registers are smaller. */
  i386?: boolean;
}

/** The guest's RAM in one block, `pc.ram`. */
export function writeStream(guest: Guest | Guest32, options: StreamOptions = {}): Buffer {
  const low = options.low ?? guest.ramBytes;
  const ram = Buffer.alloc(guest.ramBytes);
  for (const [at, page] of guest.memory.pages) page.copy(ram, at < 2 ** 32 ? at : at - 2 ** 32 + low);
  const parts: Buffer[] = [options.front ?? Buffer.alloc(0), Buffer.from('QEVM\0\0\0\x03', 'latin1')];
  let length = parts[0]!.length + 8;
  const emit = (...bytes: Buffer[]) => {
    for (const piece of bytes) {
      parts.push(piece);
      length += piece.length;
    }
  };
  const footer = (id: number) => (options.old ? [] : [u8(0x7e), u32(id)]);
  if (!options.old) {
    const type = options.machineType ?? 'pc-i440fx-7.2';
    emit(u8(7), u32(type.length), Buffer.from(type, 'latin1'));
    if (options.mappedRam) emit(u8(5), name('configuration/capabilities'), u32(1), u32(1), name('mapped-ram'));
  }
  if (options.earlyDevice) {
    emit(u8(4), u32(77), name('virtio-mem-early'), u32(0), u32(1), Buffer.alloc(100, 0xee), ...footer(77));
  }
  emit(u8(1), u32(2), name('ram'), u32(0), u32(4));
  const video = { name: 'vga.vram', size: 0x10000 };
  emit(u64((ram.length + video.size) | 0x4));
  emit(name('pc.ram'), u64(ram.length));
  if (options.mappedRam) emit(...mapped(length, ram));
  emit(name(video.name), u64(video.size));
  if (options.mappedRam) emit(...mapped(length, Buffer.alloc(video.size)));
  emit(u64(0x10), ...footer(2));

  if (!options.mappedRam) {
    emit(u8(2), u32(2));
    if (options.rounds === 2) {
      for (let at = 0; at < ram.length; at += 4096) emit(...record(at, Buffer.alloc(4096, 0x5a), 'plain', at === 0));
    }
    for (let at = 0; at < ram.length; at += 4096) {
      emit(...record(at, ram.subarray(at, at + 4096), options.pages ?? 'plain', at === 0));
      // A section for each 4 MiB; the block's name is not repeated.
      if (at % 0x40_0000 === 0x20_0000) emit(u64(0x10), ...footer(2), u8(2), u32(2));
    }
    emit(u64(0x2), name(video.name), u8(0));
    emit(u64(0x10), ...footer(2));
  }
  emit(u8(3), u32(2), u64(0x10), ...footer(2));

  const description: object[] = [];
  guest.cpus.forEach((cpu, i) => {
    const told = toldSubsections(options.hyperV);
    const state = cpuState(cpu, i, { is32: 'pae' in guest, layout: options.i386 ? LAYOUT_32 : LAYOUT_64 });
    emit(u8(4), u32(100 + i), name('cpu'), u32(i), u32(12), state, ...told.bytes, ...footer(100 + i));
    description.push({
      name: 'cpu',
      instance_id: i,
      version: 12,
      fields: [{ name: 'all', size: options.i386 ? 1313 : 1817, type: 'buffer' }],
      subsections: told.description,
    });
  });
  if (!options.withoutCmos) {
    const cmos = Buffer.alloc(128);
    cmos.writeUInt16LE(Math.max(0, low - 0x100_0000) / 0x10000, 0x34);
    cmos.writeUIntLE((guest.ramBytes - low) / 0x10000, 0x5b, 3);
    if (low < 0x101_0000) cmos.writeUInt16LE((Math.min(low, 0x100_0000) - 0x10_0000) / 1024, 0x30);
    emit(u8(4), u32(200), name('mc146818rtc'), u32(0), u32(3), cmos, ...footer(200));
    description.push({ name: 'mc146818rtc', instance_id: 0, fields: [{ name: 'cmos_data', size: 128 }] });
  }
  if (options.runState !== undefined) {
    const state = Buffer.alloc(104);
    state.writeUInt32BE(options.runState.length + 1, 0);
    state.write(options.runState, 4, 'latin1');
    emit(u8(4), u32(201), name('globalstate'), u32(0), u32(1), state, ...footer(201));
    description.push({ name: 'globalstate', instance_id: 0, fields: [{ name: 'state', size: 104 }] });
  }
  emit(u8(0));
  if (!options.withoutDescription) {
    const json = Buffer.from(JSON.stringify({ page_size: 4096, devices: description }));
    emit(u8(6), u32(json.length), json);
  }
  if (options.trailing) emit(options.trailing);
  return Buffer.concat(parts);
}

/** vmstate_msr_hypercall_hypercall and vmstate_msr_hyperv_crash in QEMU's target/i386/machine.c. */
function toldSubsections(hyperV: StreamOptions['hyperV']): { bytes: Buffer[]; description: object[] } {
  if (!hyperV) return { bytes: [], description: [] };
  const { guestOsId, crash } = hyperV;
  const field = (text: string, count?: number) => ({ name: text, size: 8, ...(count ? { array_len: count } : {}) });
  const bytes = [u8(5), name('cpu/msr_hyperv_hypercall'), u32(1), u64(guestOsId), u64(0)];
  const fields = [field('env.msr_hv_guest_os_id'), field('env.msr_hv_hypercall')];
  const description: object[] = [{ vmsd_name: 'cpu/msr_hyperv_hypercall', version: 1, fields }];
  if (crash) {
    bytes.push(u8(5), name('cpu/msr_hyperv_crash'), u32(1), ...crash.map(u64));
    description.push({ vmsd_name: 'cpu/msr_hyperv_crash', version: 1, fields: [field('env.msr_hv_crash_params', 5)] });
  }
  return { bytes, description };
}

function record(at: number, page: Buffer, form: 'plain' | 'compressed' | 'xbzrle', first: boolean): Buffer[] {
  const head = (flags: number) => (first ? [u64(at | flags), name('pc.ram')] : [u64(at | flags | 0x20)]);
  const same = page.every((byte) => byte === page[0]);
  if (form === 'plain' && same) return [...head(0x2), u8(page[0]!)];
  if (form === 'plain') return [...head(0x8), Buffer.from(page)];
  if (form === 'compressed') {
    const packed = deflateSync(page);
    return [...head(0x100), u32(packed.length), packed];
  }
  // A first version that differs in two places, then the differences.
  const before = Buffer.from(page);
  for (const place of [16, 3000]) before.fill(0xd7, place, place + 40);
  const delta = Buffer.concat([
    leb(16),
    leb(40),
    page.subarray(16, 56),
    leb(3000 - 56),
    leb(40),
    page.subarray(3000, 3040),
    leb(4096 - 3040),
  ]);
  return [...head(0x8), before, u64(at | 0x40 | 0x20), u8(1), u16(delta.length), delta];
}

const leb = (value: number) => (value < 0x80 ? u8(value) : Buffer.from([(value & 0x7f) | 0x80, value >> 7]));

/** Header, bitmap and pages of a block whose entry's name and size end at `at`. */
function mapped(at: number, ram: Buffer): Buffer[] {
  const bitmapAt = at + 28;
  const pages = ram.length / 4096;
  const bitmap = Buffer.alloc(Math.ceil(pages / 64) * 8);
  const pagesAt = Math.ceil((bitmapAt + bitmap.length) / 0x100000) * 0x100000;
  const stored = Buffer.from(ram);
  for (let page = 0; page < pages; page++) {
    const bytes = stored.subarray(page * 4096, (page + 1) * 4096);
    if (bytes.some((byte) => byte !== 0)) bitmap[page >> 3]! |= 1 << (page & 7);
    else bytes.fill(0xaa);
  }
  const gap = Buffer.alloc(pagesAt - bitmapAt - bitmap.length);
  return [u32(1), u64(4096), u64(bitmapAt), u64(pagesAt), bitmap, gap, stored];
}

/** Where fields of vmstate_x86_cpu lie, as real streams have them. */
interface Layout {
  size: number;
  word: number;
  rip: number;
  fpu: number;
  segments: number;
  segment: number;
  cr0: number;
  dr0: number;
  a20Mask: number;
  xmm0: number;
  /** Of 64-bit guests alone. */
  efer?: number;
  xcr0: number;
}

const LAYOUT_64: Layout = {
  ...{ size: 1817, word: 8, rip: 128, fpu: 148, segments: 236, segment: 20, cr0: 456, dr0: 488, a20Mask: 552 },
  ...{ xmm0: 560, efer: 816, xcr0: 1545 },
};
const LAYOUT_32: Layout = {
  ...{ size: 1313, word: 4, rip: 32, fpu: 44, segments: 132, segment: 16, cr0: 304, dr0: 320, a20Mask: 352 },
  ...{ xmm0: 360, xcr0: 1169 },
};

function cpuState(cpu: GuestCpu, index: number, { is32, layout }: { is32: boolean; layout: Layout }): Buffer {
  const state = Buffer.alloc(layout.size);
  const word = (at: number, value: bigint) => {
    if (layout.word === 8) state.writeBigUInt64BE(BigInt.asUintN(64, value), at);
    else state.writeUInt32BE(Number(BigInt.asUintN(32, value)), at);
  };
  const r = cpu.regs;
  const low = [r.rax, r.rcx, r.rdx, r.rbx, r.rsp, r.rbp, r.rsi, r.rdi];
  const high = [r.r8, r.r9, r.r10, r.r11, r.r12, r.r13, r.r14, r.r15];
  (layout.word === 8 ? [...low, ...high] : low).forEach((value, i) => {
    word(layout.word * i, value);
  });
  word(layout.rip, r.rip);
  word(layout.rip + layout.word, r.rflags);
  const segment = (n: number, selector: number, base: bigint, limit: number, flags: number) => {
    const at = layout.segments + layout.segment * n;
    state.writeUInt32BE(selector, at);
    word(at + 4, base);
    state.writeUInt32BE(limit >>> 0, at + 4 + layout.word);
    state.writeUInt32BE(flags >>> 0, at + 8 + layout.word);
  };
  const user = (cpu.cs & 3) === 3;
  const long = user ? 0x20fb00 : 0x209b00;
  const [code, data] = is32 ? [user ? 0xcffb00 : 0xcf9b00, user ? 0xcff300 : 0xcf9300] : [long, 0xcff300];
  [
    [cpu.es, 0n, data],
    [cpu.cs, 0n, code],
    [cpu.ss, 0n, user ? 0xcff300 : 0x409300],
    [cpu.ds, 0n, data],
    [cpu.fs, cpu.fsBase, 0x40f300],
    [cpu.gs, cpu.gsBase, data],
  ].forEach(([selector, base, flags], i) => {
    segment(i, Number(selector), BigInt(base!), 0xffffffff, Number(flags));
  });
  // LDTR, TR, GDTR, IDTR.
  segment(7, cpu.tr, 0n, 0x67, 0x8b00);
  segment(8, 0, cpu.gdt.base, cpu.gdt.limit, 0);
  segment(9, 0, cpu.idt.base, cpu.idt.limit, 0);
  word(layout.cr0, cpu.cr0);
  word(layout.cr0 + 2 * layout.word, cpu.cr3);
  word(layout.cr0 + 3 * layout.word, cpu.cr4);
  // 32-bit guests have them differ by CPU.
  if (is32) {
    word(layout.dr0, 0x1122_3340n + BigInt(index));
    word(layout.dr0 + 7 * layout.word, 0x401n);
    for (let i = 0; i < 8; i++) {
      state.writeBigUInt64BE(0x1122_3344_5566_7700n + BigInt(16 * index + i), layout.xmm0 + 16 * i);
    }
    state.writeBigUInt64BE(7n, layout.xcr0);
  }
  state.writeInt32BE(-1, layout.a20Mask);
  if (layout.efer !== undefined) {
    // Long mode, where the CPU pages.
    word(layout.efer, !is32 && cpu.cr0 >> 31n === 1n ? 0xd01n : 0n);
    word(layout.efer + 40, cpu.kernelGsBase);
  }
  // x87: the top of the stack is physical register 6; each physical register holds its own number.
  state.writeUInt16BE(0x37f, layout.fpu);
  state.writeUInt16BE(6 << 11, layout.fpu + 2);
  state.writeUInt16BE(0xc0, layout.fpu + 4);
  for (let i = 0; i < 8; i++) {
    state.writeUInt8(i, layout.fpu + 8 + 10 * i + 7);
    // What a 32-bit guest has there is a number: 1.0, and what follows.
    if (is32) state.writeBigUInt64BE((1n << 63n) + BigInt(i), layout.fpu + 8 + 10 * i);
    if (is32) state.writeUInt16BE(0x3fff, layout.fpu + 8 + 10 * i + 8);
  }
  state.writeUInt32BE(0x1f80, layout.a20Mask + 4);
  return state;
}
