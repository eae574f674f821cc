/** What was found about the processors: as evidence, and as losses for whoever shows their registers. */
import type { Diagnostic, DiagnosticCode } from '../core/errors.ts';
import { hex64 } from '../core/units.ts';
import { MAX_PROCESSORS } from '../formats/win-kernel.ts';
import type { CpuState } from '../machines/machine.ts';
import type { Evidence } from './evidence.ts';
import type { Windows } from './windows.ts';

/** The processors as they were found. */
export type ProcessorFacts = Pick<
  Windows,
  'image' | 'kdbg' | 'shared' | 'processors' | 'damagedProcessors' | 'strayCpus'
>;

const STEP = 'processors';

/** Records which CPU belongs to which processor, and why others belong to none. */
export function traceProcessors(facts: ProcessorFacts, evidence: Evidence): void {
  const { machine } = facts.image;
  if (facts.processors.length === 0) evidence.reject(STEP, tableOf(facts), 'no entry is a PRCB');
  for (const { number, prcb, kpcr, cpu, cpuBy, claimants } of facts.processors) {
    const method = `KiProcessorBlock[${number}] ${hex64(prcb)}`;
    if (cpu) evidence.accept(STEP, method, `it has CPU ${cpu.index}${cpuBy === undefined ? '' : `, ${cpuBy}`}`);
    else if (claimants) evidence.reject(STEP, method, contestOf(kpcr, claimants));
    else evidence.reject(STEP, method, `no CPU's ${machine.words.kpcr} leads to its KPCR ${hex64(kpcr)}`);
  }
  for (const { number, address, reason } of facts.damagedProcessors) {
    evidence.reject(STEP, `KiProcessorBlock[${number}] ${hex64(address)}`, reason);
  }
  for (const { index, registers } of facts.strayCpus) {
    if (!registers) continue; // reported by the reader
    const outside = machine.outsideWindows(registers);
    const runs =
      outside === undefined ? `its ${machine.words.kpcr} leads to no processor of Windows` : `it runs ${outside}`;
    const why = machine.neverStarted(registers)
      ? `${machine.words.notStarted}: it was never started, so nothing of it is lost`
      : runs;
    evidence.reject(STEP, `CPU ${index}`, why);
  }
}

/**
 * What a dump lacks because processors or their CPUs are unknown or damaged. Whether a processor's registers are
 * missing depends on what is shown for it: see `chooseContexts`.
 */
export function processorLosses(facts: ProcessorFacts): Diagnostic[] {
  const { image, processors, damagedProcessors, strayCpus } = facts;
  const losses: Diagnostic[] = [];
  if (processors.length === 0) {
    losses.push(loss('no-processors', `${tableOf(facts)} leads to no processor: the dump shows no registers`));
  }
  for (const { number, prcb, kpcr, doubt, claimants } of processors) {
    if (doubt) losses.push(loss('processor-damaged', `processor ${number}: ${doubt}`, { prcb: hex64(prcb) }));
    if (claimants) {
      const message = `processor ${number}: ${contestOf(kpcr, claimants)}`;
      losses.push(loss('processor-contested', message, { prcb: hex64(prcb) }));
    }
  }
  const claiming = new Set(processors.flatMap(({ claimants = [] }) => claimants));
  for (const { number, address, reason } of damagedProcessors) {
    losses.push(loss('prcb-damaged', `processor ${number} has no usable PRCB: ${reason}`, { prcb: hex64(address) }));
  }
  const uncounted = countDoubt(facts);
  if (uncounted !== undefined) losses.push(loss('prcb-damaged', uncounted));
  for (const cpu of strayCpus) {
    const { index, registers } = cpu;
    // Without registers the reader has reported it.
    if (!registers || image.machine.neverStarted(registers) || claiming.has(cpu)) continue;
    const outside = image.machine.outsideWindows(registers);
    losses.push(
      loss(
        'cpu-without-processor',
        outside === undefined
          ? `CPU ${index} runs no processor that Windows knows: its registers are not in the dump`
          : `CPU ${index} runs ${outside}: those are not registers of Windows, so they are not in the dump`,
      ),
    );
  }
  return losses;
}

/** Entries of KiProcessorBlock that were lost may leave no trace there. A count beyond the CPUs is damaged itself. */
function countDoubt({ image, shared, processors, damagedProcessors }: ProcessorFacts): string | undefined {
  const { activeProcessors } = shared;
  const found = processors.length + damagedProcessors.length;
  const most = image.cpus.length > 0 ? image.cpus.length : MAX_PROCESSORS;
  if (processors.length === 0 || activeProcessors <= found || activeProcessors > most) return undefined;
  return `SharedUserData counts ${activeProcessors} processors, but KiProcessorBlock has ${found}: the dump does not have the others`;
}

/** Why the CPUs that lead to a KPCR are not believed to run its processor. */
const contestOf = (kpcr: bigint, claimants: readonly CpuState[]): string =>
  claimants.length > 1
    ? `CPUs ${claimants.map(({ index }) => index).join(' and ')} lead to its KPCR ${hex64(kpcr)}, and nothing decides between them`
    : `CPU ${claimants[0]?.index} leads to its KPCR ${hex64(kpcr)}, but something else speaks for another one: a second KPCR, descriptor tables, a stack or a thread`;

const tableOf = ({ kdbg }: ProcessorFacts): string =>
  `KiProcessorBlock at ${hex64(kdbg.fields.KiProcessorBlock ?? 0n)}`;

const loss = (code: DiagnosticCode, message: string, where?: Record<string, string>): Diagnostic => ({
  severity: 'loss',
  code,
  message,
  ...(where ? { where } : {}),
});
