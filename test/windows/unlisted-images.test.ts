// Module lists whose links agree, though an image that is loaded was cut out.
import { describe, expect, it } from 'vitest';
import { locateWindows } from '../../src/locate/locator.ts';
import { openSource } from '../../src/readers/registry.ts';
import { BufferSource } from '../../src/source/buffer.ts';
import { buildArm64Guest } from '../guest/arm64.ts';
import { writeArm64Elf } from '../guest/arm64-elf.ts';
import { writeElf } from '../guest/elf.ts';
import { addFunctionTable, buildGuest, type Guest, linkIn } from '../guest/guest.ts';
import type { PageTables } from '../guest/memory.ts';

type Listed = Pick<Guest, 'truth'> & { kernel: Pick<PageTables, 'read' | 'write' | 'u64' | 'u32'> };

const entriesOf = ({ kernel, truth: { psLoadedModuleList: head } }: Listed): bigint[] => {
  const entries: bigint[] = [];
  for (let at = kernel.read(head, 8).readBigUInt64LE(); at !== head; at = kernel.read(at, 8).readBigUInt64LE())
    entries.push(at);
  return entries;
};

/** Takes one entry out, as both its neighbours will have it. @returns where it was */
function cut(guest: Listed, index: number): bigint {
  const entries = entriesOf(guest);
  const [entry] = entries.splice(index, 1);
  const own = guest.kernel.read(entry!, 16);
  linkIn(guest.kernel as PageTables, guest.truth.psLoadedModuleList, entries);
  guest.kernel.write(entry!, own);
  return entry!;
}

async function doubts(change: (guest: Guest) => void): Promise<string> {
  const guest = buildGuest({ processors: 3 });
  change(guest);
  const { diagnostics } = await locateWindows(openSource(new BufferSource(writeElf(guest))));
  return diagnostics.list.flatMap(({ code, message }) => (code === 'modules-doubtful' ? [message] : [])).join();
}

const hex = (value: bigint) => `0x${value.toString(16)}`;

describe('an image that was cut out of the list', () => {
  it.each([1, 2])('is found by its entry, which is beside others (%i)', async (index) => {
    let expected = '';
    const said = await doubts((guest) => {
      const { name, base } = guest.truth.modules[index]!;
      expected = `${name} at ${hex(base)} is not on it, but an entry for it is at ${hex(cut(guest, index))}`;
    });
    expect(said).toContain(expected);
  });

  it('is found by its entry where only the link to the head of the list is left', async () => {
    const said = await doubts((guest) => {
      const entry = cut(guest, guest.truth.modules.length - 1);
      guest.kernel.u64(entry + 8n, entry);
    });
    expect(said).toContain('is not on it, but an entry for it is at ');
  });

  it('is found by its entry in a guest of ARM64', async () => {
    const guest = buildArm64Guest({ seed: 3 });
    const entry = cut(guest as unknown as Listed, 1);
    const { diagnostics } = await locateWindows(openSource(new BufferSource(writeArm64Elf(guest))));
    expect(diagnostics.list.map(({ message }) => message)).toContainEqual(
      expect.stringContaining(`is not on it, but an entry for it is at ${hex(entry)}`),
    );
  });

  const erased = (guest: Guest) => guest.kernel.write(cut(guest, 1), Buffer.alloc(0xa0));

  it("is found in the kernel's table of functions", async () => {
    expect(await doubts(addFunctionTable)).toBe('');
    const said = await doubts((guest) => {
      addFunctionTable(guest);
      erased(guest);
    });
    expect(said).toMatch(/hal.dll at 0x\w+ is not on it, but the kernel's table of functions at 0x\w+ has it/);
  });

  it('is found by what another one imports of it', async () => {
    const withImport = ({ kernel, truth: { modules } }: Guest) => {
      const [, hal, demo] = modules;
      const nt = demo!.base + BigInt(kernel.read(demo!.base + 0x3cn, 4).readUInt32LE());
      kernel.u32(nt + 0x88n + 12n * 8n, 0x9000);
      kernel.u32(nt + 0x8cn + 12n * 8n, 16);
      kernel.u64(demo!.base + 0x9000n, hal!.base + 0x10000n);
    };
    expect(await doubts(withImport)).toBe('');
    const said = await doubts((guest) => {
      withImport(guest);
      erased(guest);
    });
    expect(said).toMatch(/hal.dll at 0x\w+ is not on it, but demo.sys imports 0x\w+ of it/);
  });

  it('is found where a CPU runs in it', async () => {
    const said = await doubts((guest) => {
      erased(guest);
      guest.cpus[0]!.regs.rip = guest.truth.modules[1]!.base + 0x10000n;
    });
    expect(said).toMatch(/hal.dll at 0x\w+ is not on it, but processor \d runs in it, at 0x\w+/);
  });

  it('is nothing where each knows the same', async () => {
    expect(await doubts(() => undefined)).toBe('');
  });
});
