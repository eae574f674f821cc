// Whose fault a crash is and what it is known by: pairs of guests that must be the same crash, or another.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { convert } from '../../src/operations/convert.ts';
import { inspect } from '../../src/operations/inspect.ts';
import { writeElf } from '../guest/elf.ts';
import { buildGuest, FAULT_AT, type Guest, type GuestOptions } from '../guest/guest.ts';

const dir = mkdtempSync(join(tmpdir(), 'elf2dmp-culprit-'));
afterAll(() => rmSync(dir, { recursive: true, force: true }));
const input = join(dir, 'vm.elf');

const DEMO = 0xfffff804_2c450000n;
type Crash = NonNullable<GuestOptions['crash']>;

const faultIn = (fault: keyof typeof FAULT_AT, more: Partial<Crash> = {}): GuestOptions => ({
  crash: { code: 0xd1, parameters: [0x10n, 2n, 0n, FAULT_AT[fault]], processor: 1, fault, ...more },
});

async function windowsOf(options: GuestOptions, change: (guest: Guest) => void = () => undefined) {
  const guest = buildGuest(options);
  change(guest);
  writeFileSync(input, writeElf(guest));
  return (await inspect({ input })).windows!;
}

const signatureOf = async (options: GuestOptions) => (await windowsOf(options)).signatures.rva;

describe('a fault in a driver', () => {
  it('has the driver as likely culprit, with the place and the rule', async () => {
    const { culprit, signatures } = await windowsOf(faultIn('DemoDispatch'));
    expect(culprit).toMatchObject({
      module: 'demo.sys',
      at: { module: 'demo.sys', offset: '0x10004', nearestExport: { name: 'DemoDispatch', offset: '0x4' } },
      reason: expect.stringMatching(/^parameter 4 has the address of the instruction at fault/),
    });
    expect(signatures).toEqual({
      symbols: null,
      rva: {
        basis: 'rva',
        text: '0xd1_0 demo+0x10000',
        hash: expect.stringMatching(/^[0-9a-f]{12}$/),
        builds: ['demo/5E0F1A2C20000'],
      },
    });
  });

  it('is seen on the stack where no parameter has it', async () => {
    // MEMORY_MANAGEMENT's stack says who noticed; this one's, who asked for what cannot be.
    const on = (code: number) => windowsOf(faultIn('DemoRead', { code, parameters: [1n, 2n, 3n, 4n] }));
    const { culprit, signatures } = await on(0x44);
    expect([culprit?.module, culprit?.reason, signatures.rva.text]).toEqual([
      'demo.sys',
      expect.stringMatching(/^on the stack of the crash/),
      '0x44 demo+0x10040',
    ]);
    const corrupt = await on(0x1a);
    expect([corrupt.culprit, corrupt.signatures.rva.text]).toEqual([null, '0x1a_1 demo+0x10040']);
  });

  it('is not blamed on either of two drivers that the rules name', async () => {
    const hal = 0xfffff804_1c200004n;
    const inHal = await windowsOf(faultIn('DemoRead', { parameters: [0n, 2n, 0n, hal] }));
    // The hal is Windows' own: the stack says who called it.
    expect(inHal.culprit).toMatchObject({ module: 'demo.sys', reason: expect.stringMatching(/^on the stack/) });
    const other = await windowsOf(faultIn('DemoRead', { parameters: [0n, 2n, 0n, hal] }), ({ kernel, truth }) => {
      const second = kernel.read(kernel.read(truth.psLoadedModuleList, 8).readBigUInt64LE(), 8).readBigUInt64LE();
      kernel.write(second + 0x400n, Buffer.from('foo.sys', 'utf16le'));
    });
    expect(other.culprit).toBeNull();
  });

  it('is in the dump what it is in the input, with any registers shown', async () => {
    const { culprit, signatures } = await windowsOf(faultIn('DemoDispatch'));
    for (const context of ['auto', 'cpu', 'captured'] as const) {
      const output = join(dir, `${context}.dmp`);
      const { windows } = await convert({ input, output, context });
      expect([windows.culprit, windows.signatures]).toEqual([culprit, signatures]);
      const back = (await inspect({ input: output })).windows!;
      expect([back.culprit, back.signatures]).toEqual([culprit, signatures]);
    }
  });

  it('is read from the parameter where the stack is not there', async () => {
    const { culprit, signatures } = await windowsOf({
      crash: { ...faultIn('DemoDispatch').crash!, captured: false },
      user: [1],
    });
    expect(culprit?.module).toBe('demo.sys');
    expect(signatures.rva.text).toBe('0xd1_0 demo+0x10000');
  });
});

describe('a rule of Driver Verifier', () => {
  const broken = (parameters: Crash['parameters']) => windowsOf({ crash: { code: 0xc4, parameters, processor: 1 } });

  it.each([
    ['0xf6', [0xf6n, 0x1234n, 0xffffa58f_00000000n, DEMO + 0x10009n], 4],
    ['0xe3', [0xe3n, DEMO + 0x10009n, 0x10000n, 0n], 2],
    ['0xc5', [0xc5n, DEMO + 0x10009n, 0xffffffffn, 0n], 2],
    ['0xdd', [0xddn, DEMO + 0x10009n, DEMO, 1n], 2],
    ['0x2000', [0x2000n, DEMO + 0x10009n, 0n, 0n], 2],
  ] as const)('%s names the driver by the place that broke it', async (_, parameters, number) => {
    const { culprit, bugCheck, signatures } = await broken(parameters);
    expect(culprit).toMatchObject({
      module: 'demo.sys',
      at: { nearestExport: { name: 'DemoDispatch', offset: '0x9' } },
      reason: `parameter ${number}, the place that broke the rule, lies in it: 0xfffff8042c460009`,
    });
    expect(bugCheck?.parameters[0]?.decoded).not.toBeNull();
    expect(signatures.rva.text).toMatch(new RegExp(`^0xc4_${parameters[0].toString(16)} `));
  });

  it("names nobody where the place is Windows' own, or the rule has none", async () => {
    expect((await broken([0xe3n, 0xfffff804_1a2c7009n, 0x10000n, 0n])).culprit).toBeNull();
    expect((await broken([0x32n, 2n, DEMO + 0x10009n, 0n])).culprit).toBeNull();
  });
});

describe('a driver that is not loaded any more', () => {
  it('is the culprit where code ran in it', async () => {
    const [unloaded] = buildGuest({ crash: faultIn('DemoRead').crash! }).truth.unloaded;
    const crash: Crash = { code: 0xce, parameters: [unloaded!.from + 8n, 8n, unloaded!.from + 8n, 0n], processor: 1 };
    expect((await windowsOf({ crash })).culprit).toEqual({
      module: unloaded!.name,
      at: null,
      reason: 'parameter 1 lies in what it had before it was unloaded, at 0x8',
    });
  });
});

it.each<[string, number, Crash['parameters']]>([
  ['0x0A', 0xa, [0x10n, 2n, 1n, FAULT_AT.DemoRead]],
  ['0x50', 0x50, [0xffffa58f_7fff0000n, 2n, FAULT_AT.DemoRead, 2n]],
  ['0x1E', 0x1e, [0xffffffff_c0000005n, FAULT_AT.DemoRead, 0n, 0x10n]],
  ['0x8E', 0x8e, [0xc0000005n, FAULT_AT.DemoRead, 0n, 0n]],
  ['0xD5', 0xd5, [0xffffa58f_7fff0000n, 0n, FAULT_AT.DemoRead, 0n]],
])('the instruction at fault names the driver: %s', async (_, code, parameters) => {
  const { culprit, signatures } = await windowsOf(faultIn('DemoRead', { code, parameters }));
  expect([culprit?.module, culprit?.at?.nearestExport?.name]).toEqual(['demo.sys', 'DemoRead']);
  expect(signatures.rva.text).toMatch(/^0x[0-9a-f]+(_[0-9a-f]+)? demo\+0x10040$/);
});

describe('a bug check that says who did it', () => {
  const UNKNOWN = 0xffffa58f_7fff0000n;
  const IN_DEMO = DEMO + 0x10009n;
  const blamed = async (code: number, parameters: Crash['parameters']) => {
    // The driver is on every stack: what the rules make of that is what is tested.
    const { culprit } = await windowsOf(faultIn('DemoRead', { code, parameters }));
    return culprit && [culprit.module, culprit.reason];
  };
  const ON_STACK = expect.stringMatching(/^on the stack of the crash/);

  it.each<[string, number, Crash['parameters'], string]>([
    ['who does not answer', 0x116, [UNKNOWN, IN_DEMO, 0n, 0n], 'parameter 2, by which the driver is known, lies in it'],
    ['whose worker routine it is', 0xe1, [IN_DEMO, 2n, 0n, UNKNOWN], 'parameter 1, the worker routine, lies in it'],
    ['whose workload class it is', 0x1d6, [IN_DEMO, 2n, 0n, UNKNOWN], 'parameter 1, the worker routine, lies in it'],
    [
      'who kept the cancel lock',
      0x11b,
      [UNKNOWN, IN_DEMO, 0n, 0n],
      'parameter 2, the cancel routine that kept the lock, lies in it',
    ],
    [
      'whose callback it is',
      0x135,
      [0xc0000005n, UNKNOWN, IN_DEMO, 0n],
      "parameter 3, the driver's callback, lies in it",
    ],
    ['who allocates with no tag', 0xc2, [0x9bn, 0n, 0x40n, IN_DEMO], "parameter 4, the caller's address, lies in it"],
  ])('%s', async (_, code, parameters, reason) => {
    expect(await blamed(code, parameters)).toEqual(['demo.sys', `${reason}: 0xfffff8042c460009`]);
  });

  it.each<[string, number, Crash['parameters']]>([
    ['pool was allocated at a wrong IRQL', 0xc2, [8n, 5n, 0n, 0x40n]],
    ['one DPC took too long', 0x133, [0n, 0x501n, 0x500n, 0n]],
    ['a stack cookie was overwritten', 0x139, [2n, 0n, 0n, 0n]],
    ['an exception in a driver', 0x1e, [0xffffffff_c0000005n, 0n, 0n, 0x10n]],
  ])('its stack, where the code on it did that: %s', async (_, code, parameters) => {
    expect(await blamed(code, parameters)).toEqual(['demo.sys', ON_STACK]);
  });

  it.each<[string, number, Crash['parameters']]>([
    ['pool is corrupt', 0x19, [0x20n, UNKNOWN, UNKNOWN, 0n]],
    ['pool was freed twice', 0xc2, [7n, 0n, 0n, UNKNOWN]],
    ['a critical process ended', 0xef, [UNKNOWN, 0n, 0n, 0n]],
    ['a power transition timed out', 0x9f, [4n, 0x12cn, UNKNOWN, UNKNOWN]],
    ['a list entry is corrupt, the kernel noticed', 0x139, [3n, 0n, 0n, 0n]],
    ['all DPCs together took too long', 0x133, [1n, 0x1e00n, UNKNOWN, 0n]],
    ['a display driver that is not loaded', 0x116, [UNKNOWN, UNKNOWN, 0n, 0n]],
    ['the graphics kernel gave up', 0x113, [0x19n, 2n, 0n, 0n]],
    ['a file system found damage', 0x23, [0xe0100n, 0n, 0n, 0n]],
    ['a watchdog of win32k', 0x19c, [0x50n, 0n, 0n, 0n]],
  ])('nobody, where the stack says who noticed: %s', async (_, code, parameters) => {
    expect(await blamed(code, parameters)).toBeNull();
  });
});

describe('a power request that does not end', () => {
  const IRP = 0xffffa58f_66660010n;
  const DEVICE = IRP + 0x400n;
  const DRIVER = IRP + 0x800n;
  const crash: Crash = { code: 0x9f, parameters: [3n, DEVICE, 0xfffff804_1a2eb000n, IRP], processor: 1 };

  /** By literal offsets from wdm.h: three stack locations, of which the second is the current one. */
  const withRequest =
    (change: (kernel: Guest['kernel']) => void = () => undefined) =>
    ({ kernel }: Guest) => {
      kernel.mapNew(IRP & ~0xfffn, 0x1000);
      kernel.u16(IRP, 6);
      kernel.u8(IRP + 0x42n, 3);
      kernel.u8(IRP + 0x43n, 2);
      const location = IRP + 0xd0n + 0x48n;
      kernel.u64(IRP + 0xb8n, location);
      kernel.u8(location, 0x16);
      kernel.u64(location + 0x28n, DEVICE);
      kernel.u16(DEVICE, 3);
      kernel.u64(DEVICE + 8n, DRIVER);
      kernel.u16(DRIVER, 4);
      kernel.u64(DRIVER + 0x18n, DEMO);
      change(kernel);
    };

  it('is held by the driver of its current device', async () => {
    const { culprit } = await windowsOf({ crash }, withRequest());
    expect(culprit).toEqual({
      module: 'demo.sys',
      at: null,
      reason: 'parameter 4 is a power request (IRP), whose current stack location is of its device',
    });
  });

  it.each<[string, (kernel: Guest['kernel']) => void]>([
    ['no request', (kernel) => kernel.u16(IRP, 5)],
    ['a request that is not for power', (kernel) => kernel.u8(IRP + 0xd0n + 0x48n, 3)],
    ['another current location', (kernel) => kernel.u64(IRP + 0xb8n, IRP + 0xd0n)],
    ['a location beyond its last', (kernel) => kernel.u8(IRP + 0x43n, 4)],
    ['no device', (kernel) => kernel.u16(DEVICE, 0)],
    ['no driver object', (kernel) => kernel.u16(DRIVER, 0)],
    ['a driver that is not loaded', (kernel) => kernel.u64(DRIVER + 0x18n, DEMO + 0x1000n)],
    ["a driver of Windows' own", (kernel) => kernel.u64(DRIVER + 0x18n, 0xfffff804_1c1f0000n)],
  ])('names nobody with %s', async (_, change) => {
    expect((await windowsOf({ crash }, withRequest(change))).culprit).toBeNull();
  });
});

it("a driver that takes a name of Windows' own, but for the extension, is blamed by its whole name", async () => {
  for (const name of ['nt.sys', 'hal.sys']) {
    const { culprit, signatures } = await windowsOf(faultIn('DemoDispatch'), ({ kernel, truth }) => {
      const hal = kernel.read(kernel.read(truth.psLoadedModuleList, 8).readBigUInt64LE(), 8).readBigUInt64LE();
      const demo = kernel.read(hal, 8).readBigUInt64LE();
      kernel.u16(demo + 0x58n, 2 * name.length);
      kernel.write(demo + 0x400n, Buffer.from(name, 'utf16le'));
    });
    expect([culprit?.module, signatures.rva.text]).toEqual([name, `0xd1_0 ${name}+0x10000`]);
  }
});

it('nothing is said where only Windows is on the stack', async () => {
  const { culprit, signatures } = await windowsOf({
    crash: { code: 0xa, parameters: [0n, 2n, 1n, 0n], processor: 0 },
  });
  expect(culprit).toBeNull();
  expect(signatures.rva.text).toMatch(/^0xa_1 nt\+0x[0-9a-f]+/);
});

const BASE = faultIn('DemoDispatch');

describe('signatures are the same', () => {
  it.each<[string, GuestOptions]>([
    ['on another boot: other physical pages, other registers', { ...BASE, seed: 99, ramMiB: 24 }],
    ['with the kernel at another address', { ...BASE, kernelPages: '2m' }],
    ['with more processors in another order', { ...BASE, processors: 4, order: [2, 0, 3, 1] }],
    ['on another processor', { ...faultIn('DemoDispatch', { processor: 0 }) }],
    [
      'at another address that was referenced',
      faultIn('DemoDispatch', { parameters: [0xffffa58f_00000010n, 2n, 0n, FAULT_AT.DemoDispatch] }),
    ],
    ['with KVA shadow', { ...BASE, kernelRootAt: 0x9000 }],
    ['with 5-level paging', { ...BASE, la57: true }],
    ['without a captured frame', faultIn('DemoDispatch', { captured: false })],
    ['with the code as KeBugCheckEx of some builds keeps it', faultIn('DemoDispatch', { code: 0x100000d1 })],
  ])('%s', async (_, options) => {
    expect(await signatureOf(options)).toEqual(await signatureOf(BASE));
  });
});

describe('signatures are others', () => {
  it.each<[string, GuestOptions]>([
    ['for another function', faultIn('DemoRead')],
    ['for another bug check', faultIn('DemoDispatch', { code: 0xa })],
    ['for a write', faultIn('DemoDispatch', { parameters: [0x10n, 2n, 1n, FAULT_AT.DemoDispatch] })],
    ['for a crash of Windows', { crash: { code: 0xd1, parameters: [0x10n, 2n, 0n, 0n], processor: 1 } }],
    ['for a guest that runs', {}],
  ])('%s', async (_, options) => {
    expect((await signatureOf(options)).hash).not.toBe((await signatureOf(BASE)).hash);
  });

  it('for another driver with the same code', async () => {
    const { signatures } = await windowsOf(BASE, ({ kernel, truth }) => {
      const hal = kernel.read(kernel.read(truth.psLoadedModuleList, 8).readBigUInt64LE(), 8).readBigUInt64LE();
      const demo = kernel.read(hal, 8).readBigUInt64LE();
      kernel.write(demo + 0x400n, Buffer.from('deno.sys', 'utf16le'));
    });
    expect(signatures.rva.text).toBe('0xd1_0 deno+0x10000');
    expect(signatures.rva.hash).not.toBe((await signatureOf(BASE)).hash);
  });

  it('for another build of the driver, whose functions may lie elsewhere', async () => {
    const rebuilt = (await windowsOf(BASE, ({ kernel }) => kernel.u32(0xfffff804_2c450088n, 0x5f000000))).signatures
      .rva;
    const base = await signatureOf(BASE);
    expect([rebuilt.text, rebuilt.builds]).toEqual([base.text, ['demo/5F00000020000']]);
    expect(rebuilt.hash).not.toBe(base.hash);
  });
});
