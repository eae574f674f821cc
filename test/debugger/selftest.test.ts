// The harness itself: dumps built by hand go into the real debugger, and what it shows is what went in.
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  askDebugger,
  attempt,
  bugCheck,
  complaints,
  DebuggerError,
  debuggerAvailable,
  dumpDebug,
  instruction,
  modules,
  openInDebugger,
  physicalMemory,
  registers,
  stack,
  system,
  text,
  vertarget,
  virtualMemory,
} from './debugger.ts';
import { AT, BUILD, bitmapDump, buildTinyDump, fullDump, returnAddress, tinyRegisters, va } from './tiny-dump.ts';

describe.skipIf(!debuggerAvailable())('the real debugger', () => {
  const bug = { code: 0xd1, parameters: [0x1122334455667788n, 2n, 8n, va(0x41000)] };
  let directory: string;
  const file = async (name: string, content: Buffer) => {
    const path = join(directory, name);
    await writeFile(path, content);
    return path;
  };
  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), 'elf2dmp-selftest-'));
  });
  afterAll(() => rm(directory, { recursive: true, force: true }));

  it('shows what went into a full dump', async () => {
    const dump = buildTinyDump(bug);
    const seen = await askDebugger(await file('full – größer.dmp', fullDump(dump)), {
      complaints: complaints(),
      cpu1: registers(1),
      cpu0: registers(0),
      at0: instruction(0),
      at1: instruction(1),
      stack0: stack(0),
      stack1: stack(1),
      modules: modules(),
      bug: bugCheck(),
      bugText: text('.bugcheck'),
      system: system(),
      vertarget: vertarget(),
      header: dumpDebug(),
      virtual: virtualMemory(va(AT.images[0]), 0x3000),
      physical: physicalMemory(AT.kdbg, 0x380),
      absent: attempt('!phys 0x0 16'),
      unknown: attempt('nonsense here'),
    });
    expect(seen.complaints).toEqual([]);
    expect(seen.cpu0).toMatchObject(tinyRegisters(0));
    expect(seen.cpu1).toMatchObject(tinyRegisters(1));
    expect(seen.at0).toEqual({ address: va(0x41000), bytes: '4883ec28', text: 'sub rsp,28h' });
    expect(seen.at1.address).toBe(va(0x41020));
    for (const [cpu, frames] of [seen.stack0, seen.stack1].entries()) {
      expect(frames.map((frame) => frame.instruction).slice(0, 2)).toEqual([tinyRegisters(cpu)['rip'], returnAddress]);
      expect(frames[0]).toMatchObject({ symbol: 'nt!Entry', offset: BigInt(cpu) * 0x20n });
    }
    expect(seen.modules).toMatchObject([
      { name: 'nt', base: va(AT.images[0]), size: 0x8000, image: 'ntkrnlmp.exe' },
      { name: 'tiny', base: va(AT.images[1]), size: 0x8000, image: '\\SystemRoot\\System32\\drivers\\tiny.sys' },
    ]);
    expect(seen.bug).toEqual(bug);
    expect(seen.bugText).toContain('Bugcheck code 000000D1');
    expect(seen.system).toMatchObject({
      major: 0xf,
      build: BUILD,
      processors: 2,
      effectiveProcessorType: 0x8664,
      class: 1,
      qualifier: 1026,
      uptimeSeconds: 3723,
    });
    expect(seen.vertarget).toMatchObject({
      build: BUILD,
      processors: 2,
      kernelBase: va(AT.images[0]),
      loadedModuleList: va(AT.moduleList),
      sessionTime: 'Thu Nov 24 12:26:38.414 2022 (UTC + 0:00)',
      uptime: '0 days 1:02:03.000',
    });
    expect(seen.header).toMatchObject({
      title: '64 bit Kernel Full Dump Analysis',
      header: {
        DirectoryTableBase: BigInt(AT.pml4),
        NumberProcessors: 2n,
        BugCheckCode: 0xd1n,
        KdDebuggerDataBlock: va(AT.kdbg),
      },
      runs: [{ start: 0x1000n, length: BigInt(AT.end - 0x1000) }],
      processorBlock: va(AT.processorBlock),
      prcbs: AT.pcr.map((pcr) => va(pcr + 0x180)),
    });
    expect(seen.virtual.equals(dump.memory.subarray(AT.images[0], AT.images[0] + 0x3000))).toBe(true);
    expect(seen.physical.equals(dump.memory.subarray(AT.kdbg, AT.kdbg + 0x380))).toBe(true);
    expect(seen.absent.ok).toBe(false);
    expect(seen.unknown.ok).toBe(false);
  });

  it('shows the same of a bitmap dump whose pages are not aligned', async () => {
    const seen = await askDebugger(await file('bitmap.dmp', bitmapDump(buildTinyDump(bug), 0x3123)), {
      cpu0: registers(0),
      modules: modules(),
      header: dumpDebug(),
      system: system(),
    });
    expect(seen.cpu0).toMatchObject(tinyRegisters(0));
    expect(seen.modules.map((module) => module.name)).toEqual(['nt', 'tiny']);
    expect(seen.header.title).toContain('Bitmap');
  });

  it('can tell a wrong dump from a right one', async () => {
    const dump = buildTinyDump(bug);
    dump.memory.writeBigUInt64LE(0x4321n, AT.context[1]! + 0x78);
    dump.memory.writeUInt32LE(0, AT.kdbg + 0x10);
    const seen = await askDebugger(await file('wrong.dmp', fullDump(dump)), {
      cpu1: attempt('!regs', 1),
      complaints: complaints(),
      bug: bugCheck(),
    });
    expect(seen.bug).toEqual(bug);
    expect(seen.complaints.join()).toContain('OwnerTag is wrong');
    expect(seen.cpu1.output).not.toContain('rax=0x2222000000000100');
  });

  it('reports a file that is no dump, with the HRESULT', async () => {
    const failure = await openInDebugger(await file('garbage.dmp', Buffer.alloc(0x3000, 'garbage')), [
      'vertarget',
    ]).catch((e) => e);
    expect(failure).toBeInstanceOf(DebuggerError);
    expect(failure).toMatchObject({ failure: 'open', hresult: 0x80070057 | 0 });
    expect(failure.output).toContain('invalid file format');
  });

  it('reports a file that is not there', async () => {
    const failure = await openInDebugger(join(directory, 'none.dmp'), ['vertarget']).catch((e) => e);
    expect(failure).toMatchObject({ failure: 'open', hresult: 0x80070002 | 0 });
  });

  it('gives up on a session that takes too long', async () => {
    const path = await file('slow.dmp', fullDump(buildTinyDump(bug)));
    const within = (timeoutSeconds: number) =>
      openInDebugger(path, ['vertarget', '.sleep 6000000'], { timeoutSeconds }).catch((e) => e);
    let failure = await within(3);
    // Where Wine has yet to start, or the machine is busy, it takes longer to get as far as that.
    for (let seconds = 9; seconds < 300 && !failure.message.includes('.sleep'); seconds *= 3)
      failure = await within(seconds);
    expect(failure).toMatchObject({ failure: 'timeout' });
    expect(failure.message).toContain('.sleep');
    expect(failure.output).toContain('19041');
  });
});
