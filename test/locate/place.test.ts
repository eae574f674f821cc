import { describe, expect, it, vi } from 'vitest';
import { Reason } from '../../src/core/reason.ts';
import { pa, va } from '../../src/core/units.ts';
import { checkKdbg, decodeBlock, findKdbg } from '../../src/locate/kdbg.ts';
import { findKernel, kernelAt, kernelsAmongImages } from '../../src/locate/kernel.ts';
import { locateWindows } from '../../src/locate/locator.ts';
import { recoverKernel } from '../../src/locate/recover-kernel.ts';
import { givenRoot, headerRoot, loadedRoots, shadowedRoots } from '../../src/locate/roots.ts';
import { PAGING_4_LEVELS, PAGING_5_LEVELS } from '../../src/machines/x64/paging.ts';
import { AddressSpace } from '../../src/memory/address-space.ts';
import { openSource } from '../../src/readers/registry.ts';
import { BufferSource } from '../../src/source/buffer.ts';
import { Evidence } from '../../src/windows/evidence.ts';
import { type Arm64Guest, buildArm64Guest } from '../guest/arm64.ts';
import { writeArm64Elf } from '../guest/arm64-elf.ts';
import { writeElf } from '../guest/elf.ts';
import { buildGuest, type Guest } from '../guest/guest.ts';
import { PageTables } from '../guest/memory.ts';
import { knownGuest } from '../support/known-guest.ts';

/** Gives an image another name in its export directory. */
function rename(kernel: Guest['kernel'], base: bigint): void {
  const name = kernel.read(base + 0x100cn, 4).readUInt32LE();
  kernel.write(base + BigInt(name), Buffer.from('othersys.exe\0', 'latin1'));
}

describe('page-table roots', () => {
  it('are those that the CPUs have loaded', () => {
    const { image, truth } = knownGuest();
    expect([...loadedRoots(image, new Evidence())].map(({ tables }) => tables.root)).toContain(truth.root);
  });

  it('lie behind the shadow roots of CPUs in user mode', () => {
    const { image, truth } = knownGuest({ kernelRootAt: 0x9000, user: [0, 1] });
    const behind = [...shadowedRoots(image, new Evidence())].map(({ tables }) => tables);
    expect(behind).toHaveLength(2);
    for (const { root, mode } of behind) {
      const space = new AddressSpace(image, pa(root), mode);
      expect(space.read(truth.samples[0]!.virtual, 8)).toEqual(truth.samples[0]!.bytes.subarray(0, 8));
    }
  });

  it('in a KPCR map it as the loaded ones do, and have a KPCR there', () => {
    const at = 0x9000n;
    const { image, truth } = knownGuest({ kernelRootAt: Number(at), user: [0, 1] }, ({ kernel, truth }) => {
      const { kpcr } = truth.processors[0]!;
      // Tables with another page there, and tables that lack the KPCR.
      const [elsewhere, without] = [new PageTables(kernel.memory), new PageTables(kernel.memory)];
      elsewhere.map(kpcr, kernel.translate(kpcr)!);
      elsewhere.mapNew(kpcr + at, 0x1000);
      without.map(kpcr + at, kernel.translate(kpcr + at)!);
      kernel.u64(kpcr + at + 8n, BigInt(elsewhere.root));
      kernel.u64(kpcr + at + 0x10n, BigInt(without.root));
    });
    const roots = [...shadowedRoots(image, new Evidence())].map(({ tables }) => tables.root);
    expect(roots).toHaveLength(2);
    expect(knownGuest({ kernelRootAt: Number(at), user: [0, 1] }).truth.root).toBe(truth.root);
    for (const root of roots) {
      const space = new AddressSpace(image, pa(root), PAGING_4_LEVELS);
      expect(space.translate(truth.kernelBase)).toBeDefined();
    }
  });

  it('are the one that is named', () => {
    const { image, truth } = knownGuest();
    expect([...givenRoot(image, truth.root)].map(({ tables }) => tables.root)).toEqual([truth.root]);
  });

  it('go into the header as that of the process in which the guest crashed', async () => {
    const crash = { code: 0xd1, parameters: [1n, 2n, 3n, 4n], processor: 1 } as const;
    /** The header's root where the bug check saved a CR3, and the CPU, if there is one, has the kernel's. */
    const headerOf = async (root: (truth: Guest['truth']) => number, withoutNotes: boolean) => {
      const guest = buildGuest({ crash });
      const { kernel, truth } = guest;
      const special = truth.processors[1]!.specialRegisters;
      kernel.u64(special, 0x80050031n);
      kernel.u64(special + 0x10n, BigInt(root(truth)));
      kernel.u64(special + 0x18n, 0x6f8n);
      const image = openSource(new BufferSource(writeElf(guest, { withoutNotes })));
      return [(await locateWindows(image)).headerRoot, root(truth)];
    };
    const own = (truth: Guest['truth']) => truth.processes.at(-1)!.root;
    const [header, root] = await headerOf(own, true);
    expect(header).toBe(root);
    // The CPU's own registers are newer.
    expect((await headerOf(own, false))[0]).toBe(buildGuest({ crash }).truth.root);
    // What does not map the kernel is not a root.
    expect((await headerOf(() => 0x5000, true))[0]).toBe(buildGuest({ crash }).truth.root);
  });

  it('go into the header as they are where paging has four levels', () => {
    const { image, space, truth } = knownGuest();
    expect([headerRoot(space, image.diagnostics), image.diagnostics.list]).toEqual([pa(truth.root), []]);
  });

  it('go into the header as the table of kernel addresses where paging has five levels', () => {
    const guest = buildGuest({ la57: true });
    const { truth } = guest;
    const image = openSource(new BufferSource(writeElf(guest)));
    const space = new AddressSpace(image, pa(truth.root), PAGING_5_LEVELS);
    const root = Number(guest.kernel.topEntry(511) & 0x000f_ffff_ffff_f000n);
    expect(headerRoot(space, image.diagnostics)).toBe(root);
    const shown = new AddressSpace(image, pa(root), PAGING_4_LEVELS);
    expect(shown.translate(truth.kernelBase)).toBe(guest.kernel.translate(truth.kernelBase));
    expect(image.diagnostics.list.map(({ code }) => code)).toEqual(['five-level-paging']);
  });
});

describe('the kernel', () => {
  it('is found from an address in its code', () => {
    const { space, truth } = knownGuest();
    const addresses = [{ address: va(truth.exports.get('PoIdle')!), why: 'test' }];
    expect(findKernel(space, addresses, new Evidence())).toMatchObject({ base: truth.kernelBase });
  });

  it('is not the image below an address that lies behind its end', () => {
    const { space, kernel, truth } = knownGuest();
    const evidence = new Evidence();
    const address = va(truth.kernelBase + BigInt(kernel.size) + 0x1000n);
    expect(findKernel(space, [{ address, why: 'test' }], evidence)).toBeUndefined();
    expect(evidence.attempts.at(-1)?.detail).toMatch(/^an image at 0x\w+ ends below it$/);
  });

  it('is so by its CodeView record, whatever its exports say', () => {
    const { space, truth } = knownGuest({}, ({ kernel, truth }) => rename(kernel, truth.kernelBase));
    const evidence = new Evidence();
    const found = findKernel(space, [{ address: va(truth.exports.get('PoIdle')!), why: 'test' }], evidence);
    expect(found).toMatchObject({ base: truth.kernelBase, exportName: 'othersys.exe' });
    expect(evidence.attempts.at(-1)?.detail).toMatch(/its names differ, and no other image has the kernel's/);
    expect(kernelAt(space, truth.kernelBase)).not.toBeInstanceOf(Reason);
  });

  it('is the image whose names agree, where another one has its PDB name', () => {
    const { space, truth } = knownGuest({}, ({ kernel, truth }) =>
      kernel.write(truth.modules.at(-1)!.base + 0x7118n, Buffer.from('ntkrnlmp.pdb\0', 'latin1')),
    );
    const addresses = [truth.modules.at(-1)!.base + 0x10000n, truth.exports.get('PoIdle')!];
    const evidence = new Evidence();
    const found = findKernel(
      space,
      addresses.map((address) => ({ address: va(address), why: 'test' })),
      evidence,
    );
    expect(found).toMatchObject({ base: truth.kernelBase });
    expect(evidence.attempts.map(({ accepted }) => accepted)).toEqual([false, true]);
  });

  it('has no name where those pages are missing, and the caller says that it is there', () => {
    const { space, truth } = knownGuest({}, ({ kernel, truth }) => {
      for (const rva of [0x1000n, 0x7000n]) kernel.setEntry(truth.kernelBase + rva, 0n);
    });
    expect(kernelAt(space, truth.kernelBase)).toMatchObject({ exportName: undefined, pdb: undefined });
    expect(
      findKernel(space, [{ address: va(truth.exports.get('PoIdle')!), why: 'test' }], new Evidence()),
    ).toBeUndefined();
  });

  it('is not where no image begins, nor where a driver does', () => {
    const { space, truth } = knownGuest();
    expect(kernelAt(space, truth.kernelBase + 0x1000n)).toBeInstanceOf(Reason);
    expect(kernelAt(space, truth.modules.at(-1)!.base)).toBeInstanceOf(Reason);
  });
});

describe('images where ARM64 maps them', () => {
  const known = (change: (guest: Arm64Guest) => void = () => undefined) => {
    const guest = buildArm64Guest();
    change(guest);
    const image = openSource(new BufferSource(writeArm64Elf(guest)));
    return { guest, space: new AddressSpace(image, pa(guest.truth.root), image.machine.pagingModes[0]!) };
  };
  const end = ({ truth }: Pick<Arm64Guest, 'truth'>) => truth.kernelBase + BigInt(truth.kernelSize) - 1n;

  it('are the kernel’s alone, found by the first bytes of a page, and looked for once', () => {
    const other = 0xfffff810_00000000n;
    const { guest, space } = known(({ kernel }) => kernel.mapNew(other, 0x10000));
    const [peeks, walks] = [vi.spyOn(space, 'peek'), vi.spyOn(space, 'walk')];
    const found = [...kernelsAmongImages(space)];
    expect(found).toEqual([{ address: end(guest), why: expect.stringMatching(/^end of ntoskrnl\.exe/) }]);
    expect(peeks.mock.calls.filter(([address]) => address >= other)).toEqual([]);
    walks.mockClear();
    expect([...kernelsAmongImages(space)]).toEqual(found);
    expect(walks).not.toHaveBeenCalled();
  });

  it('begin in no other: a copy of the kernel in a driver’s data is none', () => {
    const { guest, space } = known(({ kernel, truth }) =>
      kernel.write(truth.modules[1]!.base + 0x14000n, kernel.read(truth.kernelBase, 0x9000)),
    );
    expect([...kernelsAmongImages(space)].map(({ address }) => address)).toEqual([end(guest)]);
  });

  it('are all there where a caller had enough before', () => {
    // The driver has a kernel's PDB name.
    const { space } = known(({ kernel, truth }) =>
      kernel.write(truth.modules[1]!.base + 0x7118n, Buffer.from('ntkrnlmp.pdb\0', 'latin1')),
    );
    for (const _ of kernelsAmongImages(space)) break;
    expect([...kernelsAmongImages(space)]).toHaveLength(2);
  });
});

describe('a kernel whose header says nothing', () => {
  const recovered = (change: (guest: Guest) => void) => {
    const guest = buildGuest();
    change(guest);
    const { truth } = guest;
    const image = openSource(new BufferSource(writeElf(guest)));
    const space = new AddressSpace(image, pa(truth.root), PAGING_4_LEVELS);
    const addresses = [{ address: va(truth.exports.get('PoIdle')!), why: 'test' }];
    const found = recoverKernel(space, addresses, new Evidence());
    return { base: found?.base, codes: image.diagnostics.list.map(({ code }) => code), truth };
  };
  const withoutHeader = ({ kernel, truth }: Guest) => kernel.write(truth.kernelBase, Buffer.alloc(0x1000, 0x5a));

  it('is where its KDBG says, if the first module is there', () => {
    const { base, codes, truth } = recovered(withoutHeader);
    expect([base, codes]).toEqual([truth.kernelBase, ['kernel-header-missing']]);
    const other = recovered((guest) => {
      withoutHeader(guest);
      const first = guest.kernel.read(guest.truth.psLoadedModuleList, 8).readBigUInt64LE();
      guest.kernel.u64(first + 0x30n, guest.truth.kernelBase + 0x1000n);
    });
    expect(other.base).toBeUndefined();
  });

  it('is not an image that has another name', () => {
    const { base } = recovered(({ kernel, truth }) => {
      rename(kernel, truth.kernelBase);
      kernel.write(truth.kernelBase + 0x7118n, Buffer.from('othersys.pdb\0', 'latin1'));
    });
    expect(base).toBeUndefined();
  });
});

describe('the KDBG', () => {
  it.each(['win7', 'win10'] as const)('of %s is found, decoded and checked', (build) => {
    const { space, kernel, truth } = knownGuest({ build });
    const kdbg = findKdbg(space, kernel, new Evidence());
    expect([kdbg?.address, kdbg?.encoded]).toEqual([truth.kdbg, truth.kdbgEncoded]);
    expect(kdbg?.block.equals(truth.kdbgBlock)).toBe(true);
  });

  it('is none where no list links back and no PRCB is led to: a stale copy', () => {
    const { space, kernel, kdbg, truth } = knownGuest();
    // KPCR.Self and CurrentPrcb look like links, and lead to no entry that links back.
    const head = truth.processors[0]!.kpcr + 0x18n;
    const taken = (more: Partial<typeof kdbg.fields>) =>
      checkKdbg(
        space,
        kernel,
        { kdbg: { ...kdbg, fields: { ...kdbg.fields, ...more } }, method: 'test' },
        new Evidence(),
      );
    const stale = { PsLoadedModuleList: head, PsActiveProcessHead: head, KiProcessorBlock: 0n };
    expect(taken({})).toBeDefined();
    expect(taken({ ...stale, PsActiveProcessHead: truth.psActiveProcessHead })).toBeDefined();
    expect(taken(stale)).toBeUndefined();
    // Another kernel's is none either, whatever its lists.
    expect(taken({ KernBase: truth.kernelBase + 0x1000n })).toBeUndefined();
  });

  it('decodes only with its own rotation', () => {
    const encoded = Buffer.from(Array.from({ length: 0x40 }, (_, i) => i));
    expect(decodeBlock(encoded, 1n, 3).equals(decodeBlock(encoded, 1n, 4))).toBe(false);
  });
});

it('Windows is found with evidence of each step', async () => {
  const { image, truth } = knownGuest();
  const windows = await locateWindows(image);
  expect([windows.root, windows.kernel.base, windows.kdbg.address]).toEqual([truth.root, truth.kernelBase, truth.kdbg]);
  const steps = new Set(windows.evidence.filter(({ accepted }) => accepted).map(({ step }) => step));
  expect([...steps]).toEqual(expect.arrayContaining(['page-table root', 'kernel image', 'KDBG']));
});

it('Windows is found behind KVA shadow', async () => {
  const { image, truth } = knownGuest({ kernelRootAt: 0x9000, user: [0, 1] });
  const { kernel, evidence } = await locateWindows(image);
  expect(kernel.base).toBe(truth.kernelBase);
  const roots = evidence.filter(({ step, accepted }) => step === 'page-table root' && accepted);
  expect(roots.map(({ method }) => method)).toContainEqual(
    expect.stringMatching(/^KPCR of CPU \d at .*the word at \+0x9000,/),
  );
});

describe('Windows that was stopped early in boot', () => {
  /** SharedUserData has no version, build and product yet. */
  const early = ({ kernel }: Guest) => {
    for (const offset of [0x260n, 0x264n, 0x26cn, 0x270n]) kernel.u32(0xfffff780_00000000n + offset, 0);
  };
  const opened = (withoutNotes: boolean, change: (guest: Guest) => void = early) => {
    const guest = buildGuest({ startBlock: false, decoys: false });
    change(guest);
    return { image: openSource(new BufferSource(writeElf(guest, { withoutNotes }))), truth: guest.truth };
  };
  const unset = [expect.objectContaining({ severity: 'loss', code: 'shared-data-unset' })];

  it('is found by its kernel, whose KDBG names its base', async () => {
    const { image, truth } = opened(false);
    const windows = await locateWindows(image);
    expect([windows.root, windows.kernel.base, windows.version.build]).toEqual([truth.root, truth.kernelBase, 19041]);
    expect(image.diagnostics.list).toEqual(unset);
    expect([windows.shared.productType, windows.shared.systemTime]).toEqual([0, truth.systemTime]);
  });

  it('is found without CPU states where root and kernel are given, or by a search', async () => {
    for (const given of [true, false]) {
      const { image, truth } = opened(true);
      const options = given ? { dtb: truth.root, kernelBase: truth.kernelBase } : {};
      expect((await locateWindows(image, options)).kdbg.address).toBe(truth.kdbg);
      expect(image.diagnostics.list).toEqual(unset);
    }
  });

  it('has no times where the page holds something else', async () => {
    const { image, truth } = opened(false, ({ kernel }) =>
      kernel.write(0xfffff780_00000000n, Buffer.alloc(0x340, 0x5a)),
    );
    const { shared, kernel } = await locateWindows(image);
    expect(kernel.base).toBe(truth.kernelBase);
    expect([shared.systemTime, shared.interruptTime, shared.systemRoot]).toEqual([undefined, undefined, '']);
  });

  it('is not found where the kernel has no KDBG', async () => {
    const { image } = opened(false, (guest) => {
      early(guest);
      guest.kernel.write(guest.truth.kdbg, Buffer.alloc(guest.truth.kdbgBlock.length));
    });
    await expect(locateWindows(image)).rejects.toMatchObject({ code: 'windows-not-found' });
  });
});

describe('what the caller names', () => {
  const failureOf = async (options: Parameters<typeof locateWindows>[1], open: 'auto' | 'raw' = 'auto') => {
    const source = new BufferSource(writeElf(buildGuest()), 'guest');
    const error = await locateWindows(openSource(source, { format: open }), options).then(
      () => undefined,
      (error: unknown) => error,
    );
    return error as { code: string; message: string; details: { hint: string } };
  };

  it('is said to be wrong where it is, and not that the guest has no Windows', async () => {
    const root = await failureOf({ dtb: 0x1000 });
    expect(root).toMatchObject({ code: 'windows-not-found' });
    expect(root.message).toContain('the root that --dtb names does not lead to SharedUserData');
    expect(root.details.hint).toContain('leave out --dtb');
    const kernel = await failureOf({ kernelBase: 0xfffff800_00000000n });
    expect(kernel).toMatchObject({ code: 'kernel-not-found' });
    expect(kernel.message).toContain('is not where --kernel-base says');
    expect(kernel.details.hint).toContain('leave out --kernel-base');
  });

  it('is raw memory whatever the file has, which is not said to have no header', async () => {
    const { message } = await failureOf({}, 'raw');
    expect(message).toContain('read as raw memory, it shows no Windows');
    expect(message).not.toContain('no header');
  });
});
