import { describe, expect, it } from 'vitest';
import { va } from '../../src/core/units.ts';
import type { CpuState } from '../../src/machines/machine.ts';
import { Evidence } from '../../src/windows/evidence.ts';
import { type ProcessorFacts, processorLosses, traceProcessors } from '../../src/windows/processor-facts.ts';
import type { Processor } from '../../src/windows/processors.ts';
import type { SharedData } from '../../src/windows/shared-user-data.ts';
import { imageOf } from '../support/images.ts';

const cpu: CpuState = { index: 0, registers: undefined, crashed: undefined, origin: 'test' };

const processor = (number: number, changes: Partial<Processor> = {}): Processor => ({
  number,
  prcb: va(0xfffff800_00000180n),
  kpcr: va(0xfffff800_00000000n),
  context: undefined,
  specialRegisters: undefined,
  doubt: undefined,
  cpu,
  cpuBy: undefined,
  ...changes,
});

const shared: SharedData = {
  unset: undefined,
  ntMajorVersion: 10,
  ntMinorVersion: 0,
  ntBuildNumber: 19041,
  productType: 1,
  suiteMask: 0,
  systemTime: undefined,
  interruptTime: undefined,
  systemRoot: 'C:\\Windows',
  physicalPages: 0,
  activeProcessors: 0,
  bootId: 0,
};

const facts = (changes: Partial<ProcessorFacts> = {}): ProcessorFacts => ({
  image: Object.assign(Object.create(imageOf([])), { cpus: [cpu] }),
  kdbg: { address: va(0xfffff800_00001000n), size: 0, encoded: false, block: Buffer.alloc(0), fields: {} },
  shared,
  processors: [processor(0)],
  damagedProcessors: [],
  strayCpus: [],
  ...changes,
});

const codes = (changes: Partial<ProcessorFacts>) => processorLosses(facts(changes)).map(({ code }) => code);

describe('processorLosses', () => {
  it('has none where each processor has its CPU', () => {
    expect(codes({})).toEqual([]);
  });

  it('names each thing that is missing', () => {
    expect(codes({ processors: [] })).toEqual(['no-processors']);
    expect(codes({ processors: [processor(0, { doubt: 'KPCR.Self is 0' })] })).toEqual(['processor-damaged']);
    expect(codes({ damagedProcessors: [{ number: 1, address: 5n, reason: 'no' }] })).toEqual(['prcb-damaged']);
  });

  it.each([
    ['as many as were found', 1, []],
    ['none: Windows before 7', 0, []],
    ['more', 3, ['prcb-damaged']],
    ['more than there are CPUs', 4, []],
  ])('heeds how many processors SharedUserData counts: %s', (_, activeProcessors, expected) => {
    const image = Object.assign(Object.create(imageOf([])), { cpus: [cpu, cpu, cpu] });
    expect(codes({ image, shared: { ...shared, activeProcessors } })).toEqual(expected);
    // One that is known as damaged is told once.
    const damagedProcessors = [1, 2].map((number) => ({ number, address: 5n, reason: 'no' }));
    expect(codes({ image, shared: { ...shared, activeProcessors }, damagedProcessors })).toHaveLength(2);
    // Memory alone has no CPUs.
    const alone = codes({ shared: { ...shared, activeProcessors }, image: imageOf([]) as ProcessorFacts['image'] });
    expect(alone).toEqual(activeProcessors > 1 ? ['prcb-damaged'] : []);
  });

  it('says nothing of registers: the plan knows whether a dump shows others', () => {
    expect(codes({ processors: [processor(0), processor(1, { cpu: undefined })] })).toEqual([]);
  });

  it('leaves CPUs without registers to the reader, which has reported them', () => {
    expect(codes({ strayCpus: [cpu] })).toEqual([]);
  });
});

describe('traceProcessors', () => {
  it('records each processor, and adds no loss', () => {
    const evidence = new Evidence();
    const found = facts({ processors: [processor(0, { cpuBy: 'by the test' }), processor(1, { cpu: undefined })] });
    traceProcessors(found, evidence);
    expect(evidence.attempts.map(({ accepted, detail }) => [accepted, detail.slice(0, 24)])).toEqual([
      [true, 'it has CPU 0, by the tes'],
      [false, expect.stringMatching(/^no CPU's/)],
    ]);
    expect(found.image.diagnostics.list).toEqual([]);
  });
});
