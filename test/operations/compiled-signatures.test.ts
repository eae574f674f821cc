// Signatures of code from a real compiler that crashed in a real QEMU: pairs that must be equal or differ, by symbols and
// by RVA each.
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { convert } from '../../src/operations/convert.ts';
import { inspect } from '../../src/operations/inspect.ts';
import type { WindowsInfo } from '../../src/report/windows.ts';
import { type CompiledVariant, compileImages, compilerAvailable } from '../guest/compiled.ts';
import { buildGuest, type GuestOptions } from '../guest/guest.ts';
import { dumpWithQemu, qemuAvailable } from '../support/qemu.ts';

/** A guest: how it differs from the first, and whether its signatures do. */
interface Case {
  variant?: CompiledVariant;
  options?: GuestOptions;
  /** The driver has another name, of as many letters. */
  rename?: string;
  rva: 'same' | 'another';
  symbols: 'same' | 'another';
}

const CASES: Readonly<Record<string, Case>> = {
  'on another boot': { options: { seed: 77, ramMiB: 24 }, rva: 'same', symbols: 'same' },
  'at other addresses': { variant: { slide: 0x1_2340_0000n }, rva: 'same', symbols: 'same' },
  'on another of four processors, in another order': {
    variant: { crashing: 2 },
    options: { processors: 4, order: [2, 0, 3, 1] },
    rva: 'same',
    symbols: 'same',
  },
  'with processors in user mode': {
    options: { processors: 4, order: [3, 1, 0, 2], user: [2, 3] },
    rva: 'same',
    symbols: 'same',
  },
  'in a driver that was built again': { variant: { rebuilt: true }, rva: 'another', symbols: 'same' },
  'in another driver': { rename: 'deno.sys', rva: 'another', symbols: 'another' },
  'in another function': { variant: { dispatch: 'DemoFaultToo' }, rva: 'another', symbols: 'another' },
};

describe.skipIf(!compilerAvailable() || !qemuAvailable())('signatures of compiled code', () => {
  let dir: string;
  let first: WindowsInfo;
  let count = 0;

  async function crash({ variant = {}, options = {}, rename }: Partial<Case>): Promise<WindowsInfo> {
    const [input, symbols] = [join(dir, `${count}.elf`), join(dir, `symbols${count++}`)];
    mkdirSync(symbols);
    const crashing = variant.crashing ?? 0;
    const compiled = compileImages(symbols, { dispatch: 'DemoFault', ...variant, crashing });
    const fault = compiled.drivers[0]!.exports.get('DemoTouch')!;
    const guest = buildGuest({
      compiled,
      processors: 2,
      ...options,
      crash: { code: 0xd1, parameters: [0x10n, 2n, 0n, fault], processor: crashing, captured: false },
    });
    if (rename) {
      const next = (entry: bigint) => guest.kernel.read(entry, 8).readBigUInt64LE();
      // BaseDllName's text, of the entry behind the kernel's.
      guest.kernel.write(next(next(guest.truth.psLoadedModuleList)) + 0x400n, Buffer.from(rename, 'utf16le'));
    }
    await dumpWithQemu(guest, input);
    const { windows } = await inspect({ input, symbols });
    expect((await inspect({ input })).windows!.signatures).toEqual({ rva: windows!.signatures.rva, symbols: null });
    return windows!;
  }

  beforeAll(async () => {
    dir = mkdtempSync(join(tmpdir(), 'elf2dmp-compiled-signatures-'));
    first = await crash({});
  });
  afterAll(() => rmSync(dir, { recursive: true, force: true }));

  it('are the functions of the driver, from the fault to what called the driver', () => {
    expect(first.bugCheck?.processor).toBe(0);
    expect(first.culprit).toMatchObject({ module: 'demo.sys', at: { symbol: { name: 'DemoTouch', offset: '0x0' } } });
    expect(first.signatures.symbols?.text).toBe('0xd1_0 demo!DemoTouch|demo!DemoRead|demo!DemoFault');
    expect(first.signatures.rva.text).toMatch(/^0xd1_0 demo\+0x[0-9a-f]+\|demo\+0x[0-9a-f]+\|demo\+0x[0-9a-f]+$/);
    expect(first.signatures.rva.builds).toEqual([expect.stringMatching(/^demo\/5E0BE100[0-9a-f]+$/)]);
  });

  it('are in the report of a conversion too', async () => {
    const output = join(dir, 'out.dmp');
    const { windows } = await convert({ input: join(dir, '0.elf'), output, symbols: join(dir, 'symbols0') });
    expect([windows.culprit, windows.signatures]).toEqual([first.culprit, first.signatures]);
  });

  it.each(Object.entries(CASES))('%s', async (_, each) => {
    const { culprit, signatures } = await crash(each);
    expect(culprit?.module).toBe(each.rename ?? 'demo.sys');
    const relation = (a: string, b: string | undefined) => (a === b ? 'same' : 'another');
    expect({
      rva: relation(first.signatures.rva.hash, signatures.rva.hash),
      symbols: relation(first.signatures.symbols!.hash, signatures.symbols?.hash),
    }).toEqual({ rva: each.rva, symbols: each.symbols });
  });
});
