import { describe, expect, it } from 'vitest';
import { Reason } from '../../src/core/reason.ts';
import { locateWindows } from '../../src/locate/locator.ts';
import { planConversion } from '../../src/plan/conversion.ts';
import { openSource } from '../../src/readers/registry.ts';
import { BufferSource } from '../../src/source/buffer.ts';
import { type ElfOptions, writeElf } from '../guest/elf.ts';
import { buildGuest, type Guest } from '../guest/guest.ts';

const locate = (guest: Guest, options?: ElfOptions) =>
  locateWindows(openSource(new BufferSource(writeElf(guest, options))));
const noteOf = (windows: Awaited<ReturnType<typeof locate>>) =>
  windows.evidence.filter((a) => a.step === 'VMCOREINFO note').map((a) => [a.method, a.accepted]);

describe('the VMCOREINFO note of Windows', () => {
  it('bears out what memory shows', async () => {
    const windows = await locate(buildGuest({ vmcoreinfo: 'good' }));
    expect(noteOf(windows)).toEqual([
      ['crash dump header', true],
      ['comparison with memory', true],
    ]);
    expect(windows.diagnostics.list).toEqual([]);
  });

  it('is at odds with memory: memory is believed, and it is said', async () => {
    const guest = buildGuest({ vmcoreinfo: 'stale' });
    const windows = await locate(guest);
    expect(noteOf(windows).at(-1)).toEqual(['comparison with memory', false]);
    const [warning, ...more] = windows.diagnostics.list;
    expect(more).toEqual([]);
    expect(warning).toMatchObject({ severity: 'warning', code: 'vmcoreinfo-disagrees' });
    expect(warning!.message).toMatch(
      /PsLoadedModuleList 0x\w+ there, 0x\w+ in memory; NumberProcessors 0x3 there, 0x2/,
    );
    expect(windows.kdbg.fields.PsLoadedModuleList).toBe(guest.truth.psLoadedModuleList);
  });

  it('is right with the value of MmPfnDatabase, and with the base build of an enablement package', async () => {
    const guest = buildGuest({ vmcoreinfo: 'good' });
    const { kernel, truth } = guest;
    const header = guest.vmcoreinfo!.note.subarray(24);
    kernel.read(truth.pfnDatabaseVariable, 8).copy(header, 0x18);
    kernel.u32(0xfffff780_00000260n, 19045);
    const windows = await locate(guest);
    expect(windows.version.build).toBe(19045);
    expect(windows.diagnostics.list).toEqual([]);
  });

  it('leads to the root and the kernel where there are no CPU states, without a search', async () => {
    const guest = buildGuest({ vmcoreinfo: 'good', startBlock: false });
    const windows = await locate(guest, { withoutNotes: true });
    expect(windows.root).toBe(guest.truth.root);
    expect(windows.kernel.base).toBe(guest.truth.kernelBase);
    expect(windows.evidence.some((a) => a.method === 'search of memory')).toBe(false);
  });

  it('has what Windows counts as RAM when its own list is gone', async () => {
    const guest = buildGuest({ vmcoreinfo: 'good' });
    const variable = guest.kernel.translate(guest.truth.kdbgBlock.readBigUInt64LE(0x270))!;
    guest.memory.page(variable).writeBigUInt64LE(0n, variable % 0x1000);
    expect((await locate(guest)).physicalMemory).toEqual(
      guest.truth.physicalMemory.map((run) => ({ start: run.basePage * 0x1000, size: run.pageCount * 0x1000 })),
    );
  });

  it.each([
    ['is cut short', (note: Buffer) => note.writeUInt32LE(0x1000, 4), 0x1000],
    ['is of another machine', (note: Buffer) => note.writeUInt32LE(0xaa64, 24 + 0x30), 0x2000],
  ])('is left aside when it %s', async (_, damage, size) => {
    const guest = buildGuest({ vmcoreinfo: 'good' });
    damage(guest.vmcoreinfo!.note);
    guest.vmcoreinfo!.note = guest.vmcoreinfo!.note.subarray(0, 24 + size);
    const windows = await locate(guest);
    expect(noteOf(windows).map(([, accepted]) => accepted)).toEqual([false]);
    expect(windows.kernel.base).toBe(guest.truth.kernelBase);
  });

  it.each(['root', 'KDBG copy', 'runs'])('does no harm with a wild %s', async (what) => {
    const guest = buildGuest({ vmcoreinfo: 'good' });
    const header = guest.vmcoreinfo!.note.subarray(24);
    const at = { root: 0x10, 'KDBG copy': 0x40, runs: 0x88 }[what]!;
    for (const value of [0n, 1n, 0xfffff800_00000000n, 0xffffffff_ffffffffn]) {
      header.writeBigUInt64LE(value, at);
      const windows = await locate(guest);
      expect(windows.kernel.base).toBe(guest.truth.kernelBase);
      expect(windows.physicalMemory).toHaveLength(guest.truth.physicalMemory.length);
    }
  });

  it('leads to the copy of a lost KDBG, and its address for the KDBG itself is not believed', async () => {
    const guest = buildGuest({ vmcoreinfo: 'good', decoys: false });
    guest.kernel.write(guest.truth.kdbg, Buffer.alloc(guest.truth.kdbgBlock.length));
    const header = guest.vmcoreinfo!.note.subarray(24);
    // Any kernel address.
    header.writeBigUInt64LE(guest.truth.exports.get('KeBugCheckEx')!, 0x80);
    const windows = await locate(guest);
    expect(windows.kdbg).toMatchObject({ address: header.readBigUInt64LE(0x40), encoded: false });
    expect(windows.diagnostics.list).toMatchObject([{ severity: 'warning', code: 'kdbg-copy-used' }]);
    const { plan } = planConversion(windows);
    expect(plan.patches.filter(({ what }) => what === 'KDBG')).toEqual([]);
    expect(plan.prefix.readBigUInt64LE(0x80)).toBe(windows.kdbg.address);
    const places = guest.truth.processors.flatMap((p) => [p.context, p.specialRegisters]);
    for (const { what, virtual } of plan.patches) {
      expect(
        places.some((at) => virtual >= at && virtual < at + 0x4d0n),
        what,
      ).toBe(true);
    }
  });

  it('leads to no copy without its tag', async () => {
    const guest = buildGuest({ vmcoreinfo: 'good', decoys: false });
    guest.kernel.write(guest.truth.kdbg, Buffer.alloc(guest.truth.kdbgBlock.length));
    guest.kernel.u32(guest.vmcoreinfo!.note.readBigUInt64LE(24 + 0x40) + 0x10n, 0x5a5a_5a5a);
    await expect(locate(guest)).rejects.toMatchObject({ code: 'kdbg-not-found' });
  });

  it('names page tables: that they map the KDBG elsewhere is said', async () => {
    const guest = buildGuest({ vmcoreinfo: 'good' });
    guest.vmcoreinfo!.note.writeBigUInt64LE(0x5000n, 24 + 0x10);
    const windows = await locate(guest);
    expect(windows.root).toBe(guest.truth.root);
    expect(windows.diagnostics.list.map(({ code, message }) => `${code}: ${message}`)).toEqual([
      expect.stringMatching(
        /^vmcoreinfo-disagrees: .*: DirectoryTableBase 0x5000 there maps the KDBG elsewhere than 0x/,
      ),
    ]);
  });

  it.each([
    ['lack pages that Windows uses', (header: Buffer) => header.writeBigUInt64LE(0xf00n, 0x98 + 16)],
    [
      'are of another size',
      (header: Buffer, pages: bigint) =>
        [0x90, 0xa0 + 16].map((at) => header.writeBigUInt64LE(header.readBigUInt64LE(at) + pages, at)),
    ],
  ])('is not believed about RAM where its runs %s', async (_, damage) => {
    const guest = buildGuest({ vmcoreinfo: 'good' });
    const variable = guest.kernel.translate(guest.truth.kdbgBlock.readBigUInt64LE(0x270))!;
    guest.memory.page(variable).writeBigUInt64LE(0n, variable % 0x1000);
    damage(guest.vmcoreinfo!.note.subarray(24), 0x1000n);
    expect((await locate(guest)).physicalMemory).toBeInstanceOf(Reason);
  });
});
