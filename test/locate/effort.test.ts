// How much is read to locate Windows, and that reading less finds the same.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { locateWindows } from '../../src/locate/locator.ts';
import { openSource } from '../../src/readers/registry.ts';
import { BufferSource } from '../../src/source/buffer.ts';
import { type ElfOptions, writeElf } from '../guest/elf.ts';
import { GENERATIONS, type GenerationName } from '../guest/generations.ts';
import type { Guest } from '../guest/guest.ts';
import { buildTrueGuest } from '../guest/true-guest.ts';
import { CASES, guestOf } from '../matrix/cases.ts';

const MIB = 1 << 20;
const SAMPLES = join(import.meta.dirname, '../../samples');

const locate = (file: Buffer) => locateWindows(openSource(new BufferSource(file, 'guest.elf')));

describe('locating Windows reads', () => {
  const samples = readdirSync(SAMPLES).filter((name) => /^(crashed|live)-.*\.elf\.gz$/.test(name));

  // No file has the system registers of ARM64: memory is searched up to the first processor's data, which are at 2 MiB.
  it.each(samples.map((name) => [name.includes('arm64') ? 4 : 2, name] as const))(
    'less than %i MiB of %s',
    async (most, name) => {
      const { image } = await locate(gunzipSync(readFileSync(join(SAMPLES, name))));
      expect(image.bytesRead).toBeLessThan(most * MIB);
    },
  );

  it.each(Object.keys(GENERATIONS) as GenerationName[])('less than 4 MiB of a guest of true size: %s', async (name) => {
    const guest = buildTrueGuest({ generation: name });
    const { image, kdbg } = await locate(writeElf(guest));
    expect(kdbg.address).toBe(guest.truth.kdbg);
    expect(image.bytesRead).toBeLessThan(4 * MIB);
  });
});

/** No section of the kernel can be written to, by its headers: then its data is no longer known. */
function hideData({ kernel, truth: { kernelBase } }: Guest): boolean {
  if (kernel.translate(kernelBase) === undefined || kernel.read(kernelBase, 2).toString() !== 'MZ') return false;
  const nt = kernelBase + BigInt(kernel.read(kernelBase + 0x3cn, 4).readUInt32LE());
  const table = nt + 24n + BigInt(kernel.read(nt + 0x14n, 2).readUInt16LE());
  for (let i = kernel.read(nt + 6n, 2).readUInt16LE() - 1; i >= 0; i--) {
    const flags = table + BigInt(40 * i + 36);
    kernel.u32(flags, kernel.read(flags, 4).readUInt32LE() & 0x7fff_ffff);
  }
  return true;
}

/** What was found; evidence but for what the rest of the image may add to the KDBG's. */
async function found(guest: Guest, elf: ElfOptions | undefined) {
  try {
    const { kdbg, kernel, version, crash, processors, modules, evidence, diagnostics } = await locate(
      writeElf(guest, elf),
    );
    const accepted = evidence.filter((attempt) => attempt.accepted);
    const cpus = processors.map(({ number, kpcr, cpu }) => [number, kpcr, cpu?.index]);
    return { kdbg, kernel, version, crash, cpus, modules, accepted, diagnostics: diagnostics.list };
  } catch (error) {
    return String(error);
  }
}

/** Cases of one guest differ by how its memory reaches us. */
const guests = new Map(
  CASES.map((c) => {
    const made = [c.guest, c.trueGuest, c.elf, c.change?.toString()];
    return [JSON.stringify(made, (_, value) => (typeof value === 'bigint' ? `${value}` : value)), c];
  }),
);

describe('the KDBG is the same where only the kernel’s data is searched and where all of its image is', () => {
  it.each([...guests.values()].map((c) => [c.name, c] as const))('%s', async (_, c) => {
    const guest = guestOf(c);
    c.change?.(guest);
    const fast = await found(guest, c.elf);
    if (!hideData(guest)) return;
    const slow = await found(guest, c.elf);
    expect(fast).toEqual(slow);
  });
});
