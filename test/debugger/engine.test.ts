// What the debugger's engine does with a dump, where elf2dmp depends on it; docs/debugger.md has the whole list. If a
// newer engine fails one of these, the product's reason for writing dumps the way it does has changed.
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  askDebugger,
  attempt,
  complaints,
  debuggerAvailable,
  instruction,
  modules,
  openInDebugger,
  registers,
  system,
  text,
  vertarget,
  virtualMemory,
} from './debugger.ts';
import {
  AT,
  bitmapDump,
  buildTinyDump,
  fullDump,
  OFFSET,
  type TinyDump,
  tinyRegisters,
  USER,
  va,
  writeContext,
} from './tiny-dump.ts';

const AMD64 = 0x8664;
const I386 = 0x14c;
const prcb = (cpu: number) => AT.pcr[cpu]! + OFFSET.prcb;
const special = (cpu: number) => prcb(cpu) + OFFSET.processorState;

describe.skipIf(!debuggerAvailable())("the debugger's engine", () => {
  let directory: string;
  let count = 0;
  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), 'elf2dmp-engine-'));
  });
  afterAll(() => rm(directory, { recursive: true, force: true }));

  /** A tiny dump with changes, as a file. */
  const dump = async (change: (tiny: TinyDump) => void, write = fullDump) => {
    const tiny = buildTinyDump({ code: 0xd1, parameters: [1n, 2n, 3n, 4n] });
    change(tiny);
    const path = join(directory, `${count++}.dmp`);
    await writeFile(path, write(tiny));
    return path;
  };

  it('starts at the processor whose RSP is the one of the context in the header', async () => {
    const path = await dump(({ header }) =>
      writeContext(header, 0x348, { ...tinyRegisters(0), rsp: tinyRegisters(1)['rsp']! }),
    );
    const { rip } = await askDebugger(path, { rip: text('r rip') });
    expect(rip).toContain(`rip=${tinyRegisters(1)['rip']!.toString(16)}`);
  });

  it('takes 32-bit code on the first processor for a 32-bit machine, unless it starts at another', async () => {
    const wow64 = { ...tinyRegisters(0), cs: 0x23n, ss: 0x2bn, rip: 0x77001000n };
    const ask = { system: system(), at1: attempt('u @rip L1', 1) };
    const first = await askDebugger(
      await dump(({ memory, header }) => {
        writeContext(memory, AT.context[0], wow64);
        writeContext(header, 0x348, wow64);
      }),
      ask,
    );
    expect(first.system.effectiveProcessorType).toBe(I386);
    expect(first.at1.ok).toBe(false);
    const second = await askDebugger(
      await dump(({ memory, header }) => {
        writeContext(memory, AT.context[0], wow64);
        writeContext(header, 0x348, tinyRegisters(1));
      }),
      { ...ask, cpu0: registers(0) },
    );
    expect(second.system.effectiveProcessorType).toBe(AMD64);
    expect(second.at1.ok).toBe(true);
    expect(second.cpu0).toMatchObject({ rip: wow64.rip, cs: 0x23n });
  });

  it('shows no registers without a decoded KDBG, but modules and memory', async () => {
    const path = await dump(({ memory }) => {
      for (let at = AT.kdbg; at < AT.kdbg + 0x380; at++) memory[at]! ^= 0x5a;
    });
    const seen = await askDebugger(path, {
      r: attempt('r rip'),
      modules: modules(),
      memory: virtualMemory(va(AT.images[0]), 2),
    });
    expect(seen.r.ok).toBe(false);
    expect(seen.modules.map((module) => module.name)).toEqual(['nt', 'tiny']);
    expect(seen.memory.toString()).toBe('MZ');
  });

  it('has no context for a processor whose Context pointer is null, and right ones for the others', async () => {
    const path = await dump(({ memory }) => memory.writeBigUInt64LE(0n, prcb(1) + OFFSET.context));
    const seen = await askDebugger(path, { cpu1: attempt('r rip', 1), cpu0: registers(0), at0: instruction(0) });
    expect(seen.cpu1.ok).toBe(false);
    expect(seen.cpu0).toMatchObject(tinyRegisters(0));
  });

  it("reads the frame inside the PRCB's ProcessorState when the KDBG has no OffsetPrcbContext", async () => {
    const path = await dump(({ memory }) => {
      memory.writeUInt32LE(0x318, AT.kdbg + 0x14);
      for (const cpu of [0, 1])
        writeContext(memory, prcb(cpu) + OFFSET.contextFrame, { ...tinyRegisters(cpu), rax: 77n });
    });
    const seen = await askDebugger(path, { cpu0: registers(0), cpu1: registers(1) });
    expect(seen.cpu0).toMatchObject({ ...tinyRegisters(0), rax: 77n });
    expect(seen.cpu1).toMatchObject({ ...tinyRegisters(1), rax: 77n });
  });

  it('shows debug registers from SpecialRegisters, whatever the frame and its flags say', async () => {
    const path = await dump(({ memory }) => {
      writeContext(memory, AT.context[0], tinyRegisters(0), 0x10001f);
      memory.writeBigUInt64LE(0x401n, AT.context[0] + 0x70);
      memory.writeBigUInt64LE(0x402n, special(0) + 0x48);
      memory.writeBigUInt64LE(5n, AT.context[0] + 0x1a0);
    });
    const { cpu0 } = await askDebugger(path, { cpu0: registers(0) });
    expect(cpu0).toMatchObject({ ...tinyRegisters(0), dr7: 0x402n, kdr7: 0x402n, xmm0: 5n });
  });

  it("reads user memory through the current thread's process, not through CR3", async () => {
    const path = await dump(({ memory }) => memory.writeBigUInt64LE(BigInt(AT.userTables), special(0) + 0x10));
    const seen = await askDebugger(path, {
      cpu0: attempt(`!virt 0x${USER.address.toString(16)} 16`, 0),
      cpu1: virtualMemory(USER.address, USER.text.length, 1),
    });
    expect(seen.cpu0.ok).toBe(false);
    expect(seen.cpu1.toString()).toBe(USER.text);
  });

  it('hides header fields that hold "PAGE"', async () => {
    const path = await dump(({ header }) => {
      header.fill('PAGE', 0x60, 0x80);
      header.fill('PAGE', 0xfb0, 0x1030);
      header.fill('PAGE', 0x1048, 0x2000);
    });
    const seen = await askDebugger(path, { debug: text('.dumpdebug'), target: vertarget() });
    expect(seen.debug).not.toMatch(/VersionUser|Comment|Attributes|PAGE|4547/);
    expect(seen.target.text).not.toContain('PAGE');
  });

  it('takes 42 runs of a full dump, not the 43 that there is room for', async () => {
    const split =
      (runs: number) =>
      ({ header }: TinyDump) => {
        header.writeUInt32LE(runs, 0x88);
        for (let run = 0; run < runs; run++) {
          header.writeBigUInt64LE(BigInt(run + 1), 0x98 + run * 16);
          header.writeBigUInt64LE(run === runs - 1 ? BigInt(AT.end / 0x1000 - runs) : 1n, 0xa0 + run * 16);
        }
      };
    const ask = { complaints: complaints(), inLast: attempt('!phys 0x40000 16') };
    expect(await askDebugger(await dump(split(42)), ask)).toMatchObject({ complaints: [], inLast: { ok: true } });
    const seen = await askDebugger(await dump(split(43)), ask);
    expect(seen.inLast.ok).toBe(false);
    expect(seen.complaints).toContain('WARNING: Dump header physical memory block has been truncated.');
  });

  it.each([
    [5, 0, 'Full address space is available'],
    [5, 0x40, 'Active memory is available'],
    [6, 0, 'Kernel address space is available'],
  ])('calls a bitmap dump of type %i with attributes %i: %s', async (type, attributes, says) => {
    const path = await dump(
      ({ header }) => header.writeUInt32LE(attributes, 0x1050),
      (tiny) => bitmapDump(tiny, 0x3000, type, 'SDMP'),
    );
    const { opening } = await openInDebugger(path, ['r rip']);
    expect(opening).toContain(`Kernel Bitmap Dump File: ${says}`);
  });

  it('reads a bitmap dump only as far as RequiredDumpSpace', async () => {
    const path = await dump(
      () => {},
      (tiny) => {
        const file = bitmapDump(tiny, 0x2123);
        file.writeBigUInt64LE(0n, 0xfa0);
        return file;
      },
    );
    expect((await askDebugger(path, { memory: attempt('!phys 0x40000 16') })).memory.ok).toBe(false);
  });
});
