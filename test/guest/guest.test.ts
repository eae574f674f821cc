// Holds the builder to the facts that it is built from, by a walker and a decoder of its own.
import { describe, expect, it } from 'vitest';
import { buildGuest, encodeWord, type Guest, type GuestOptions } from './guest.ts';

const MASK64 = 2n ** 64n - 1n;

/** Walks page tables the way the manual words it, a level at a time. */
function walk(guest: Guest, cr3: bigint, virtual: bigint): number | undefined {
  const read = (at: bigint) => guest.memory.read(Number(at), 8).readBigUInt64LE();
  const field = (shift: bigint) => ((virtual >> shift) & 0x1ffn) * 8n;
  const next = (entry: bigint) => entry & 0xfffff_ffff_f000n;
  let table = next(cr3);
  const la57 = ((guest.cpus.find((c) => c.started)?.cr4 ?? 0n) & 0x1000n) !== 0n;
  if (la57) {
    const pml5e = read(table + field(48n));
    if (!(pml5e & 1n)) return undefined;
    table = next(pml5e);
  }
  const pml4e = read(table + field(39n));
  if (!(pml4e & 1n)) return undefined;
  const pdpte = read(next(pml4e) + field(30n));
  if (!(pdpte & 1n)) return undefined;
  if (pdpte & 0x80n) return Number((pdpte & 0xfffff_c000_0000n) + (virtual & 0x3fff_ffffn));
  const pde = read(next(pdpte) + field(21n));
  if (!(pde & 1n)) return undefined;
  if (pde & 0x80n) return Number((pde & 0xfffff_ffe0_0000n) + (virtual & 0x1f_ffffn));
  const pte = read(next(pde) + field(12n));
  return pte & 1n ? Number(next(pte) + (virtual & 0xfffn)) : undefined;
}

/** Memory as the kernel sees it. */
function reader(guest: Guest, cr3 = BigInt(guest.truth.root)) {
  const bytes = (virtual: bigint, length: number): Buffer => {
    const parts: Buffer[] = [];
    for (let done = 0; done < length; ) {
      const physical = walk(guest, cr3, virtual + BigInt(done));
      if (physical === undefined) throw new Error(`0x${(virtual + BigInt(done)).toString(16)} is not mapped`);
      const count = Math.min(length - done, 0x1000 - (physical % 0x1000));
      parts.push(guest.memory.read(physical, count));
      done += count;
    }
    return Buffer.concat(parts);
  };
  return {
    bytes,
    u64: (at: bigint) => bytes(at, 8).readBigUInt64LE(),
    u32: (at: bigint) => bytes(at, 4).readUInt32LE(),
    u16: (at: bigint) => bytes(at, 2).readUInt16LE(),
    text: (at: bigint) => bytes(at, 64).toString('latin1').split('\0')[0]!,
  };
}

const SHARED = 0xfffff780_00000000n;
const KINDS: readonly [string, GuestOptions][] = [
  ['4 KiB pages', {}],
  ['2 MiB pages', { kernelPages: '2m' }],
  ['a 1 GiB page', { kernelPages: '1g' }],
  ['5 levels', { la57: true }],
  ['Windows 11', { build: 'win11' }],
  ['Windows 7', { build: 'win7' }],
  ['Server 2003', { build: 'server2003' }],
  ['crashed', { crash: { code: 0xd1, parameters: [0x10n, 2n, 0n, 3n], processor: 1 } }],
];

describe('the KDBG encoding', () => {
  it.each([
    [0xfffff80000222040n, 0x6be21bba0c0f248bn],
    [0x000003804742444bn, 0xb2fa0a5a32f0db49n],
    [0xfffff80000220000n, 0x63e21bba0c0f249bn],
  ])('makes %i into %i, as the C tool decodes it', (plain, encoded) => {
    expect(encodeWord(plain, 0x8642097531fedcban, 0x0f1e2d3c4b5a6978n, 0xfffff80000222610n)).toBe(encoded);
  });
});

describe.each(KINDS)('a guest: %s', (_, options) => {
  const guest = buildGuest(options);
  const { truth, build } = guest;
  const r = reader(guest);
  const kdbg16 = (offset: number) => BigInt(truth.kdbgBlock.readUInt16LE(offset));
  const kdbg64 = (offset: number) => truth.kdbgBlock.readBigUInt64LE(offset);

  it('is the same each time', () => {
    const again = buildGuest(options);
    expect([...again.pages.keys()]).toEqual([...guest.pages.keys()]);
    for (const [at, page] of guest.pages) expect(again.pages.get(at)!.equals(page)).toBe(true);
    expect(buildGuest({ ...options, seed: 99 }).truth.root).not.toBe(truth.root);
  });

  it('has no memory where firmware lives', () => {
    const low = [...guest.pages.keys()].filter((at) => at < 0x2000 || (at >= 0xa0000 && at < 0x100000));
    expect(low).toEqual([]);
    expect(Math.max(...guest.pages.keys())).toBeLessThan(guest.ramBytes);
  });

  it('has a kernel image with its name, exports and PDB', () => {
    const base = truth.kernelBase;
    expect(r.bytes(base, 2).toString()).toBe('MZ');
    const nt = base + BigInt(r.u32(base + 0x3cn));
    expect(r.u32(nt)).toBe(0x4550);
    expect([r.u16(nt + 4n), r.u16(nt + 0x18n)]).toEqual([0x8664, 0x20b]);
    expect(r.u32(nt + 0x50n)).toBe(truth.kernelSize);
    const exports = base + BigInt(r.u32(nt + 0x88n));
    expect(r.text(base + BigInt(r.u32(exports + 0xcn)))).toBe('ntoskrnl.exe');
    const names = Array.from({ length: r.u32(exports + 0x18n) }, (_, i) => {
      const name = r.text(base + BigInt(r.u32(base + BigInt(r.u32(exports + 0x20n) + 4 * i))));
      const ordinal = r.u16(base + BigInt(r.u32(exports + 0x24n) + 2 * i));
      return [name, base + BigInt(r.u32(base + BigInt(r.u32(exports + 0x1cn) + 4 * ordinal)))] as const;
    });
    expect(names.map(([name]) => name)).toEqual(names.map(([name]) => name).sort());
    for (const [name, address] of truth.exports) expect(new Map(names).get(name)).toBe(address);
    expect(r.u32(new Map(names).get('NtBuildNumber')!)).toBe((0xf0000000 | build.build) >>> 0);
    const debug = base + BigInt(r.u32(nt + 0xb8n));
    expect(r.u32(debug + 0xcn)).toBe(2);
    const codeView = base + BigInt(r.u32(debug + 0x14n));
    expect(r.bytes(codeView, 4).toString()).toBe('RSDS');
    expect(r.text(codeView + 0x18n)).toBe('ntkrnlmp.pdb');
  });

  it('has the KDBG in memory, encoded or plain', () => {
    const stored = r.bytes(truth.kdbg, build.kdbgSize);
    expect(truth.kdbgEncoded).toBe(build.encoded && !options.crash);
    if (truth.kdbgEncoded) {
      const [w, a, e] = [
        r.u64(truth.kernelBase + 0x37000n),
        r.u64(truth.kernelBase + 0x37010n),
        truth.kernelBase + 0x37020n,
      ];
      expect(stored.includes('KDBG')).toBe(false);
      for (let at = 0; at < stored.length; at += 8) {
        const x = stored.readBigUInt64LE(at) ^ w;
        const n = w & 63n;
        const rotated = ((x << n) | (x >> (64n - n))) & MASK64;
        const swapped = Buffer.alloc(8);
        swapped.writeBigUInt64BE(rotated ^ e);
        stored.writeBigUInt64LE(swapped.readBigUInt64LE() ^ a, at);
      }
    }
    expect(r.bytes(truth.kernelBase + 0x37020n, 1)[0]).toBe(truth.kdbgEncoded ? 1 : 0);
    expect(stored).toEqual(truth.kdbgBlock);
    expect(stored.toString('latin1', 0x10, 0x14)).toBe('KDBG');
    expect(stored.readUInt32LE(0x14)).toBe(stored.length);
    expect(kdbg64(0x18)).toBe(truth.kernelBase);
  });

  it('has lists that link both ways, with the modules and processes on them', () => {
    const ring = (head: bigint) => {
      const entries: bigint[] = [];
      for (let at = head; ; ) {
        const next = r.u64(at);
        expect(r.u64(next + 8n)).toBe(at);
        if (next === head) return entries;
        entries.push(next);
        at = next;
        expect(entries.length).toBeLessThan(100);
      }
    };
    const name = (entry: bigint) => r.bytes(r.u64(entry + 0x60n), r.u16(entry + 0x58n)).toString('utf16le');
    expect(ring(kdbg64(0x48)).map((e) => ({ name: name(e), base: r.u64(e + 0x30n), size: r.u32(e + 0x40n) }))).toEqual(
      truth.modules.map(({ name, base, size }) => ({ name, base, size })),
    );
    for (const { base } of truth.modules) expect(r.bytes(base, 2).toString()).toBe('MZ');
    const processes = ring(kdbg64(0x50)).map((e) => e - BigInt(build.eprocess.links));
    expect(processes.map((p) => r.text(p + BigInt(build.eprocess.name)))).toEqual([
      'System',
      'smss.exe',
      'notepad.exe',
    ]);
    expect(r.u64(processes[0]! + kdbg16(0x2ae))).toBe(BigInt(truth.root));
  });

  it('has processors whose structures name themselves, and CPUs that run them', () => {
    expect(new Set(truth.processors.map((p) => p.cpu)).size).toBe(truth.processors.length);
    for (const p of truth.processors) {
      const cpu = guest.cpus[p.cpu]!;
      expect(r.u64(kdbg64(0x218) + BigInt(8 * p.number))).toBe(p.prcb);
      expect(r.u32(p.prcb + kdbg16(0x2be))).toBe(p.number);
      expect(r.u64(p.kpcr + kdbg16(0x2e2))).toBe(p.kpcr);
      expect(r.u64(p.kpcr + kdbg16(0x2e4))).toBe(p.prcb);
      expect(p.kpcr + kdbg16(0x2e6)).toBe(p.prcb);
      expect([r.u64(p.kpcr), r.u64(p.kpcr + 0x38n)]).toEqual([cpu.gdt.base, cpu.idt.base]);
      expect(cpu.gsBase).toBe(p.kpcr);
      expect(p.specialRegisters).toBe(p.prcb + kdbg16(0x2f2));
      expect(p.context).toBe(
        build.prcbContext === undefined ? p.prcb + kdbg16(0x2bc) : r.u64(p.prcb + BigInt(build.prcbContext)),
      );
      // The code that the CPU runs, the gates of its IDT, its TSS.
      expect(r.bytes(cpu.regs.rip - 1n, 1)[0]).toBe(0xf4);
      for (const vector of [0, 3, 14, 255]) {
        const gate = r.bytes(cpu.idt.base + BigInt(16 * vector), 16);
        const handler =
          BigInt(gate.readUInt16LE(0)) | (BigInt(gate.readUInt16LE(6)) << 16n) | (BigInt(gate.readUInt32LE(8)) << 32n);
        expect(r.bytes(handler, 5).toString('hex')).toBe(`6a${Buffer.from([vector]).toString('hex')}f4ebfd`);
        expect(gate.readUInt16LE(2)).toBe(0x10);
      }
      const tss = r.bytes(cpu.gdt.base + BigInt(cpu.tr), 16);
      expect(BigInt(tss.readUIntLE(2, 3)) | (BigInt(tss[7]!) << 24n) | (BigInt(tss.readUInt32LE(8)) << 32n)).toBe(
        cpu.trBase,
      );
    }
  });

  it('has the times, versions and bug check of the truth', () => {
    expect(r.u64(SHARED + 8n)).toBe(truth.upTime);
    expect(r.u32(SHARED + 0x14n + 4n)).toBe(r.u32(SHARED + 0x14n + 8n));
    expect(BigInt(r.u32(SHARED + 0x14n)) | (BigInt(r.u32(SHARED + 0x18n)) << 32n)).toBe(truth.systemTime);
    expect(r.u32(SHARED + 0x260n)).toBe(build.sharedBuild ? build.build : 0);
    expect([r.u32(SHARED + 0x264n), r.u32(SHARED + 0x2d0n)]).toEqual([truth.productType, truth.suiteMask]);
    const version = r.u64(truth.processors[0]!.kpcr + 0x108n);
    // Null on x64 [a real 19041], but in the oldest kernels.
    expect(version !== 0n).toBe(build.build === 3790);
    const block = version || truth.kernelBase + 0x33000n;
    expect(r.u16(block + 2n)).toBe(build.build);
    expect(r.u64(r.u64(block + 0x20n))).toBe(truth.kdbg);
    const bugCheck = Array.from({ length: 5 }, (_, i) => r.u64(kdbg64(0x88) + BigInt(8 * i)));
    if (truth.bugCheck) expect(bugCheck).toEqual([BigInt(truth.bugCheck.code), ...truth.bugCheck.parameters]);
    else expect(bugCheck[0]).toBe(0n);
    const descriptor = r.u64(kdbg64(0x270));
    expect(r.u32(descriptor)).toBe(truth.physicalMemory.length);
    for (const s of truth.samples) expect(r.bytes(s.virtual, s.bytes.length)).toEqual(s.bytes);
  });
});

describe('a guest', () => {
  it('has a kernel that is scattered in physical memory, with 4 KiB pages', () => {
    const guest = buildGuest();
    const pages = Array.from({ length: 16 }, (_, i) =>
      walk(guest, BigInt(guest.truth.root), guest.truth.kernelBase + BigInt(i << 12)),
    );
    expect(pages.some((at, i) => i > 0 && at !== pages[i - 1]! + 0x1000)).toBe(true);
  });

  it('has page tables that map themselves in one slot', () => {
    for (const seed of [1, 2, 3]) {
      const guest = buildGuest({ seed });
      const root = guest.memory.read(guest.truth.root, 0x1000);
      const slots = Array.from({ length: 512 }, (_, i) => i).filter(
        (i) => Number(root.readBigUInt64LE(8 * i) & 0xfffff_ffff_f000n) === guest.truth.root,
      );
      expect(slots.length).toBe(1);
    }
  });

  it('is caught in user mode with TEB and KPCR in gs and kernel gs, on its own code and stack', () => {
    const guest = buildGuest({ user: [0] });
    const p = guest.truth.processors[0]!;
    const cpu = guest.cpus[p.cpu]!;
    const user = reader(guest, cpu.cr3);
    expect([cpu.cs, cpu.ss, cpu.kernelGsBase]).toEqual([0x33, 0x2b, p.kpcr]);
    expect(user.bytes(cpu.regs.rip, 2).toString('hex')).toBe('ebfe');
    user.bytes(cpu.gsBase, 8);
    user.bytes(cpu.regs.rsp, 8);
    expect(user.u64(p.kpcr + 0x18n)).toBe(p.kpcr);
    expect(user.u32(SHARED + 0x264n)).toBe(1);
  });

  it.each([0x7000, 0x9000, 0xa000])('hides the kernel behind KVA shadow, its root at KPCR+%i', (kernelRootAt) => {
    const guest = buildGuest({ user: [0, 1], kernelRootAt });
    const { kernelBase, processors } = guest.truth;
    for (const p of processors) {
      const cpu = guest.cpus[p.cpu]!;
      expect(walk(guest, cpu.cr3, SHARED)).toBeUndefined();
      expect(walk(guest, cpu.cr3, kernelBase)).toBeUndefined();
      expect(walk(guest, cpu.cr3, guest.truth.kdbg)).toBeUndefined();
      const shadow = reader(guest, cpu.cr3);
      const gate = shadow.bytes(cpu.idt.base, 16);
      expect(BigInt(gate.readUInt16LE(0)) | (BigInt(gate.readUInt16LE(6)) << 16n)).toBe(
        (kernelBase + 0x20000n) & 0xffff_ffffn,
      );
      const value = shadow.u64(p.kpcr + BigInt(kernelRootAt));
      expect(value >> 63n).toBe(1n);
      expect(value & 0xfffn).not.toBe(0n);
      expect(
        reader(guest, value & 0xfffff_ffff_f000n)
          .bytes(kernelBase, 2)
          .toString(),
      ).toBe('MZ');
    }
  });

  it('crashes with a captured frame in KeBugCheckEx while its CPU is elsewhere', () => {
    const crash = { code: 0xc000021a, parameters: [1n, 2n, 3n, 4n], processor: 1, signExtended: true } as const;
    const guest = buildGuest({ crash });
    const r = reader(guest);
    expect(r.u64(guest.truth.kdbgBlock.readBigUInt64LE(0x88))).toBe(0xffffffff_c000021an);
    const p = guest.truth.processors[1]!;
    const captured = guest.truth.captured!;
    expect(r.u32(p.context + 0x30n)).toBe(0x10000f);
    expect([r.u64(p.context + 0xf8n), r.u64(p.context + 0x98n)]).toEqual([captured.rip, captured.rsp]);
    // As a real 19041's: the first byte, its return address on top of the stack.
    expect(captured.rip).toBe(guest.truth.exports.get('KeBugCheckEx'));
    expect(r.u64(captured.rsp)).toBe(p.returns[1]);
    expect(guest.cpus[p.cpu]!.regs.rip).not.toBe(captured.rip);
  });

  it('has decoys: tags that are not the KDBG', () => {
    const tags = (guest: Guest) =>
      [...guest.pages.values()].reduce((n, page) => n + page.toString('latin1').split('KDBG').length - 1, 0);
    expect(tags(buildGuest())).toBeGreaterThanOrEqual(5);
    expect(tags(buildGuest({ decoys: false }))).toBe(0);
    expect(tags(buildGuest({ decoys: false, kdbg: 'plain' }))).toBe(1);
  });

  it('can have CPUs that were never started, and some outside Windows', () => {
    const guest = buildGuest({ processors: 3, neverStarted: 2, foreign: [0] });
    expect(guest.cpus.map((c) => c.started)).toEqual([true, true, true, false, false]);
    const r = reader(guest);
    expect(r.u64(guest.truth.kdbgBlock.readBigUInt64LE(0x218) + 24n)).toBe(0n);
    const foreign = guest.cpus[guest.truth.processors[0]!.cpu]!;
    expect(walk(guest, foreign.cr3, SHARED)).toBeUndefined();
    expect(walk(guest, foreign.cr3, foreign.gsBase)).toBeDefined();
  });
});
