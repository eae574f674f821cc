// Where addresses lie, against what the guest's builder knows.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { describeParameter, describePlace } from '../../src/cli/text/processors.ts';
import { convert } from '../../src/operations/convert.ts';
import { inspect } from '../../src/operations/inspect.ts';
import { stacks } from '../../src/operations/stacks.ts';
import { verify } from '../../src/operations/verify.ts';
import type { AddressPlace } from '../../src/report/places.ts';
import { writeElf } from '../guest/elf.ts';
import { buildGuest, type Guest, type GuestOptions } from '../guest/guest.ts';
import { buildGuest32 } from '../guest/x86/guest.ts';

const dir = mkdtempSync(join(tmpdir(), 'elf2dmp-places-'));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const DEMO = 0xfffff804_2c450000n;

async function parametersOf(
  code: number,
  parameters: readonly [bigint, bigint, bigint, bigint],
  more: GuestOptions = {},
  change: (guest: Guest) => void = () => undefined,
) {
  const input = join(dir, 'vm.elf');
  const guest = buildGuest({ crash: { code, parameters, processor: 1 }, ...more });
  change(guest);
  writeFileSync(input, writeElf(guest));
  return (await inspect({ input })).windows!.bugCheck!.parameters;
}

describe('parameters', () => {
  it('have their meaning, their value in words, and the place of an address', async () => {
    expect(await parametersOf(0xd1, [0x10n, 2n, 1n, DEMO + 0x10004n])).toEqual([
      {
        value: '0x0000000000000010',
        meaning: 'address that was referenced',
        decoded: null,
        place: { in: 'null-page' },
      },
      { value: '0x0000000000000002', meaning: 'IRQL at that time', decoded: 'DISPATCH_LEVEL', place: null },
      { value: '0x0000000000000001', meaning: 'operation', decoded: 'write', place: null },
      {
        value: '0xfffff8042c460004',
        meaning: 'address of the instruction',
        decoded: null,
        place: {
          in: 'module',
          section: '.text',
          module: 'demo.sys',
          base: '0xfffff8042c450000',
          offset: '0x10004',
          nearestExport: { name: 'DemoDispatch', offset: '0x4' },
          symbol: null,
        },
      },
    ]);
  });

  it('of any kind of address', async () => {
    const crash = { code: 0xd1, parameters: [0n, 0n, 0n, 0n] as const, processor: 1 };
    const { truth } = buildGuest({ crash });
    const processor = truth.processors[1]!;
    const unloaded = truth.unloaded[0]!;
    const placeOf = async (address: bigint) => (await parametersOf(0xd1, [address, 0n, 0n, 0n]))[0]!.place;
    expect(await placeOf(processor.prcb + 0x40n)).toEqual({
      in: 'processor-region',
      processor: 1,
      offset: '0x1c0',
    });
    expect(await placeOf(truth.captured!.rsp + 8n)).toEqual({ in: 'stack', processor: 1 });
    expect(await placeOf(unloaded.from + 0x123n)).toEqual({
      in: 'unloaded-module',
      module: unloaded.name,
      offset: '0x123',
    });
    expect(await placeOf(0x7ff6_12340000n)).toEqual({ in: 'user' });
    expect(await placeOf(0x8000_00000000n)).toEqual({ in: 'non-canonical' });
    // Pool of the guest, and where there is nothing.
    expect(await placeOf(truth.processes[0]!.address)).toBeNull();
    expect(await placeOf(0xffffd000_00000000n)).toBeNull();
  });

  it('that are not said to be addresses have a place only in a module', async () => {
    const places = await parametersOf(0x7fff, [DEMO, 0n, 0x10n, 0x7ff6_12340000n]);
    expect(places.map(({ place }) => place?.in ?? null)).toEqual(['module', null, null, null]);
    expect(places[0]!.place).toMatchObject({ section: null, offset: '0x0', nearestExport: null });
  });

  it('have no canonical form beyond 48 bits, but with five levels of page tables', async () => {
    const places = await parametersOf(0xd1, [0x8000_00000000n, 0n, 0n, 0n], { la57: true });
    expect(places[0]!.place).toEqual({ in: 'user' });
  });
});

describe('an address in pool', () => {
  const POOL = 0xfffffa80_01234000n;
  const TAGS = ['Irp ', 'Demo', 'File'];

  /** Blocks of 0x100 bytes of nonpaged pool up to the page's end, the tags by turns. */
  function pageOfPool(pointerSize: 4 | 8): Buffer {
    const page = Buffer.alloc(0x1000);
    for (let at = 0; at < 0x1000; at += 0x100) {
      const units = 0x100 / (2 * pointerSize);
      page.writeUInt16LE(at === 0 ? 0 : units, at);
      // Type 2: nonpaged, in use.
      page.writeUInt16LE(units | (2 << (pointerSize === 8 ? 8 : 9)), at + 2);
      page.write(TAGS[(at / 0x100) % 3]!, at + 4, 'latin1');
    }
    return page;
  }

  it('has the tag and the block, in the dump and in its triage dump as well', async () => {
    const [input, output, triage] = ['vm.elf', 'vm.dmp', 'mini.dmp'].map((name) => join(dir, name)) as [
      string,
      string,
      string,
    ];
    const parameters = [POOL + 0x123n, 2n, 0n, DEMO + 0x10004n] as const;
    const guest = buildGuest({ build: 'win7', crash: { code: 0xd1, parameters, processor: 1 } });
    guest.kernel.mapNew(POOL, 0x1000);
    guest.kernel.write(POOL, pageOfPool(8));
    writeFileSync(input, writeElf(guest));
    await convert({ input, output, force: true });
    await convert({ input: output, output: triage, type: 'triage', force: true });
    for (const from of [input, output, triage]) {
      const [first] = (await inspect({ input: from })).windows!.bugCheck!.parameters;
      expect([from, first!.place]).toEqual([
        from,
        {
          in: 'pool',
          pool: 'nonpaged',
          block: { address: '0xfffffa8001234100', size: 0x100, offset: '0x23', tag: 'Demo', free: false },
        },
      ]);
      expect(describeParameter(first!)).toBe(
        "address that was referenced: in nonpaged pool, tag 'Demo', +0x23 in the block of 0x100 bytes at 0xfffffa8001234100",
      );
    }
  });

  it('of a 32-bit guest', async () => {
    const input = join(dir, 'x86.elf');
    const crash = { code: 0xd1, parameters: [0x85432210, 2, 0, 0] as const, processor: 1 };
    const guest = buildGuest32({ build: 'win7', crash });
    guest.kernel.mapNew(0x85432000, 0x1000);
    guest.kernel.write(0x85432000, pageOfPool(4));
    writeFileSync(input, writeElf(guest));
    const [first] = (await inspect({ input })).windows!.bugCheck!.parameters;
    expect(first!.place).toEqual({
      in: 'pool',
      pool: 'nonpaged',
      block: { address: '0xffffffff85432200', size: 0x100, offset: '0x10', tag: 'File', free: false },
    });
  });

  it('is not named since headers are not linked', async () => {
    const parameters = await parametersOf(0xd1, [POOL + 0x123n, 0n, 0n, 0n], {}, ({ kernel }) => {
      kernel.mapNew(POOL, 0x1000);
      kernel.write(POOL, pageOfPool(8));
    });
    expect(parameters[0]!.place).toBeNull();
  });
});

it.each<[string, AddressPlace]>([
  ['in paged pool', { in: 'pool', pool: 'paged', block: null }],
  [
    'in a free block of pool, +0x8 in the block of 0x20 bytes at 0xfffffa8001234000',
    {
      in: 'pool',
      pool: null,
      block: { address: '0xfffffa8001234000', size: 0x20, offset: '0x8', tag: null, free: true },
    },
  ],
])('a place in words: %s', (words, place) => {
  expect(describePlace(place)).toBe(words);
});

it("a dump's own header has the places too, and so has its exception", async () => {
  const [input, output] = [join(dir, 'vm.elf'), join(dir, 'vm.dmp')];
  const crash = { code: 0xd1, parameters: [0x10n, 2n, 1n, DEMO + 0x10004n] as const, processor: 1 };
  writeFileSync(input, writeElf(buildGuest({ crash })));
  const { dump } = await convert({ input, output, force: true });
  expect(dump.exception).toMatchObject({
    at: { module: 'ntoskrnl.exe', nearestExport: { name: 'KeBugCheckEx', offset: '0x0' } },
  });
  const back = await inspect({ input: output });
  const { parameters } = back.input.dumpHeader!.bugCheck;
  expect(parameters).toEqual(back.windows!.bugCheck!.parameters);
  expect(parameters[3]!.place).toMatchObject({ in: 'module', module: 'demo.sys', offset: '0x10004' });
  for (const { input: same } of [await stacks({ input: output }), await verify({ dump: output })]) {
    expect(same!.dumpHeader).toEqual(back.input.dumpHeader);
  }
});
