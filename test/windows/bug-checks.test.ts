import { describe, expect, it } from 'vitest';
import { BUG_CHECK_NAMES } from '../../src/windows/bug-check-names.ts';
import { BUG_CHECK_PARAMETERS } from '../../src/windows/bug-check-parameters.ts';
import { bugCheckName, describeParameters } from '../../src/windows/bug-checks.ts';

describe('names of bug checks', () => {
  it('are those of the public references', () => {
    // Spot checks against codes that people met (public reports).
    for (const [code, name] of [
      [0xa, 'IRQL_NOT_LESS_OR_EQUAL'],
      [0x5d, 'UNSUPPORTED_PROCESSOR'],
      [0xb8, 'ATTEMPTED_SWITCH_FROM_DPC'],
      [0xd1, 'DRIVER_IRQL_NOT_LESS_OR_EQUAL'],
      [0xed, 'UNMOUNTABLE_BOOT_VOLUME'],
      [0x161, 'LIVE_SYSTEM_DUMP'],
      [0x1c8, 'MANUALLY_INITIATED_POWER_BUTTON_HOLD'],
      [0x20001, 'HYPERVISOR_ERROR'],
      [0xdeaddead, 'MANUALLY_INITIATED_CRASH1'],
      [0x1000007e, 'SYSTEM_THREAD_EXCEPTION_NOT_HANDLED_M'],
    ] as const) {
      expect(bugCheckName(code), code.toString(16)).toBe(name);
    }
    expect(BUG_CHECK_NAMES.size).toBeGreaterThan(400);
  });

  it('are found with 0x10000000 in the code, and null where there is none', () => {
    expect(bugCheckName(0x100000d1)).toBe('DRIVER_IRQL_NOT_LESS_OR_EQUAL');
    expect(bugCheckName(0x7fffffff)).toBeNull();
  });
});

describe('parameters of bug checks', () => {
  it('have a name for each code', () => {
    for (const code of BUG_CHECK_PARAMETERS.keys()) expect(bugCheckName(code), code.toString(16)).not.toBeNull();
    expect(BUG_CHECK_PARAMETERS.size).toBeGreaterThan(100);
  });

  it('say what the value is where it is one of a few', () => {
    const [referenced, irql, operation, instruction] = describeParameters(0xd1, [8n, 2n, 1n, 0xfffff80000001000n]);
    expect(referenced).toEqual({ what: 'address that was referenced', value: null, address: true });
    expect(irql.value).toBe('DISPATCH_LEVEL');
    expect(operation).toEqual({ what: 'operation', value: 'write', address: false });
    expect(instruction.address).toBe(true);
    expect(describeParameters(0x3b, [0xc0000005n, 0n, 0n, 0n])[0].value).toBe('STATUS_ACCESS_VIOLATION');
    expect(describeParameters(0x1000007e, [0xffffffffc0000005n, 0n, 0n, 0n])[0].value).toBe('STATUS_ACCESS_VIOLATION');
  });

  it('depend on the one that decides', () => {
    // 0x133 with 1: the third is the triage block and the fourth is reserved; with 0 the fourth is the block.
    expect(describeParameters(0x133, [1n, 0x1e00n, 0xfffff80000001000n, 0n]).map((p) => p.what)).toEqual([
      'kind of time-out',
      "the watchdog's period in ticks",
      'triage block (nt!DPC_WATCHDOG_GLOBAL_TRIAGE_BLOCK)',
      null,
    ]);
    expect(describeParameters(0x133, [0n, 0x501n, 0x500n, 1n])[3].what).toContain('triage block');
    expect(describeParameters(0x9f, [3n, 1n, 2n, 3n])[3].what).toBe('the IRP');
    expect(describeParameters(0x77, [1n, 0n, 0n, 0n])[0].value).toBe('the page came from disk');
    expect(describeParameters(0x77, [0xc0000185n, 0xc0000185n, 0n, 0n])[0].value).toBe('STATUS_IO_DEVICE_ERROR');
    expect(describeParameters(0xc1, [1n, 2n, 3n, 0x24n])[1]).toMatchObject({
      what: 'where bytes are corrupt',
      address: true,
    });
  });

  it.each<[string, number, bigint, (string | null)[]]>([
    ['0xC2, no tag', 0xc2, 0x9bn, ['pool type', 'bytes', "the caller's address"]],
    ['0xC2, corrupt header', 0xc2, 4n, ['pool header', "first part of the header's contents", null]],
    ['0xC2, freed twice', 0xc2, 6n, [null, 'pool header', 'contents of the pool header']],
    ['0xC2, a tag that is none', 0xc2, 0x9dn, ['pool tag', 'pool type', "the caller's address"]],
    ['0xC2, within an allocation', 0xc2, 0x41286n, [null, null, 'its offset in paged pool, in pages']],
    ['0x19, contradicting headers', 0x19, 5n, ['one of the pool entries', null, 'the other pool entry']],
    ['0x19, size of zero', 0x19, 8n, [null, null, 'the bad pool entry']],
    ['0x19, changed after it was freed', 0x19, 0xen, [null, null, null]],
    ['0x19, not tracked', 0x19, 0x22n, ['address that was freed', null, null]],
    ['0xC4, a fast mutex', 0xc4, 0x34n, ['IRQL at that time', 'fast mutex', null]],
    ['0xC4, a dispatch routine', 0xc4, 0xc5n, ['dispatch routine', 'count after', 'count before']],
    ['0xC4, written beyond', 0xc4, 0x51n, ['address of the allocation', 'address beyond it', 'bytes charged']],
    ['0xC4, unmapped too high', 0xc4, 0x7bn, ['IRQL at that time', 'address that is unmapped', 'bytes']],
    ['0x9F, not started', 0x9f, 0x500n, [null, "target device's device object", 'device object']],
  ])("are Microsoft's of each kind: %s", (_, code, kind, rest) => {
    const [first, ...others] = describeParameters(code, [kind, 1n, 2n, 3n]);
    expect([first.value === null, others.map(({ what }) => what)]).toEqual([false, rest]);
  });

  it('are not mistaken for a case whose number they only end with', () => {
    expect(describeParameters(0x133, [(1n << 53n) + 1n, 0n, 0n, 0n])[1].what).toBe('depends on the first');
  });

  it('are nothing but values where the code is unknown or they are reserved', () => {
    expect(describeParameters(0x7fffffff, [1n, 2n, 3n, 4n]).map(({ what }) => what)).toEqual([null, null, null, null]);
    expect(describeParameters(0x161, [0n, 0n, 0n, 0n]).map(({ what }) => what)).toEqual([
      'who asked for it',
      null,
      null,
      null,
    ]);
  });

  it('have a case for the decider and words that agree with it', () => {
    for (const [code, { parameters, by, cases }] of BUG_CHECK_PARAMETERS) {
      expect(by === undefined, code.toString(16)).toBe(cases === undefined);
      if (by === undefined || cases === undefined) continue;
      for (const [key, replaced] of Object.entries(cases)) {
        const decider = parameters[by];
        const words = typeof decider === 'object' && decider !== null ? decider.values?.[Number(key)] : undefined;
        // The case repeats the value's words, or has them where the value is in no list.
        if (words !== undefined) expect(replaced[by], `${code.toString(16)} ${key}`).toBe(words);
        expect(typeof replaced[by]).toBe('string');
      }
    }
  });
});
