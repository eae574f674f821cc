/** What a crash dump's header says that the dump's own memory contradicts: a finding of `verify`, a repair of a conversion. */
import { isKernelAddress } from '../core/bits.ts';
import { hex, hex64 } from '../core/units.ts';
import type { DumpHeader, HeaderField } from '../formats/dump-header.ts';
import { DUMP_FILL } from '../formats/win-dump.ts';
import { rootIn } from '../machines/paging-mode.ts';
import { findSystemRoot, mapsKernel } from '../windows/process-roots.ts';
import { baseBuild } from '../windows/releases.ts';
import { currentRoot } from '../windows/thread-stack.ts';
import type { Windows } from '../windows/windows.ts';

/** A field of a header that memory contradicts. */
export interface HeaderFault {
  field: HeaderField;
  /** The field as it should be. */
  change: Partial<DumpHeader>;
  /** `warning`: debuggers do without it, or make do with what the header says. */
  severity: 'error' | 'warning';
  /** For people: what the header says, and what it should say. */
  found: string;
  expected: string;
  /** What shows that: a noun phrase. */
  evidence: string;
}

/** Some writers leave fields as Windows fills the header first. */
const FILL_32 = DUMP_FILL.readUInt32LE(0);
const FILL_64 = (BigInt(FILL_32) << 32n) | BigInt(FILL_32);

/** Nobody set it. */
const isUnset = (value: number | bigint): boolean => [0n, BigInt(FILL_32), FILL_64].includes(BigInt(value));

/**
 * The fields whose values are wrong, whoever wrote the header. Forms that Windows and other writers use are right in
 * each, and so is what memory does not decide.
 */
export function headerFaults(windows: Windows, header: DumpHeader): HeaderFault[] {
  return [
    ...buildFault(windows, header),
    ...rootFault(windows, header),
    ...pagingFault(windows, header),
    ...addressFaults(windows, header),
    ...processorFault(windows, header),
    ...bugCheckFaults(windows, header),
    ...timeFaults(windows, header),
  ];
}

function* buildFault({ version }: Windows, { MinorVersion }: DumpHeader): Generator<HeaderFault> {
  // Windows writes the base build or the edition's.
  if (baseBuild(version.build) === baseBuild(MinorVersion)) return;
  yield {
    field: 'MinorVersion',
    change: { MinorVersion: version.build },
    severity: 'error',
    found: hex(MinorVersion),
    expected: hex(version.build),
    evidence: "the kernel's build number",
  };
}

function* rootFault(windows: Windows, { DirectoryTableBase }: DumpHeader): Generator<HeaderFault> {
  const { space, root, headerRoot } = windows;
  const fault = (expected: number, evidence: string, severity: HeaderFault['severity'] = 'error'): HeaderFault => ({
    field: 'DirectoryTableBase',
    change: { DirectoryTableBase: BigInt(expected) },
    severity,
    found: hex(DirectoryTableBase),
    expected: hex(expected),
    evidence,
  });
  // CR3 as it is has flags and a PCID; debuggers mask them.
  const found = rootIn(space.mode, DirectoryTableBase);
  if (headerRoot !== root) {
    if (found !== headerRoot) yield fault(headerRoot, 'the root that debuggers can walk');
    return;
  }
  const system = findSystemRoot(windows);
  if (found === (system ?? headerRoot)) return;
  if (!mapsKernel(windows, found)) {
    yield fault(system ?? headerRoot, 'the header names no root that maps the kernel');
    return;
  }
  // A writer may have chosen the process that a processor runs, so that its memory of user mode resolves: so do we.
  if (system === undefined || runs(windows, found)) return;
  yield fault(system, "System's page tables, not those of a process that no processor runs", 'warning');
}

/** Whether a processor runs the process with these page tables. */
const runs = ({ space, kdbg, processors, image: { machine } }: Windows, root: number): boolean =>
  processors.some(
    ({ prcb, cpu }) =>
      currentRoot(space, kdbg.fields, prcb) === root ||
      (cpu?.registers && machine.pageTables(cpu.registers)?.root) === root,
  );

/** Debuggers of 32-bit guests walk page tables as the header says. */
function* pagingFault({ space }: Windows, { PaeEnabled }: DumpHeader): Generator<HeaderFault> {
  const expected = space.mode.pae ? 1 : 0;
  if (PaeEnabled === undefined || PaeEnabled === expected) return;
  yield {
    field: 'PaeEnabled',
    change: { PaeEnabled: expected },
    severity: 'error',
    found: `${PaeEnabled}`,
    expected: `${expected}`,
    evidence: 'the page tables through which Windows was found',
  };
}

/** Addresses of the kernel's variables. */
function* addressFaults({ space, kdbg }: Windows, header: DumpHeader): Generator<HeaderFault> {
  const { MmPfnDatabase, PsLoadedModuleList, PsActiveProcessHead } = kdbg.fields;
  // Both the variable's address and its value were seen in real headers.
  const database = MmPfnDatabase === undefined ? undefined : space.readPointer(MmPfnDatabase);
  const places = [
    ['PfnDatabase', MmPfnDatabase, "KDBG's MmPfnDatabase"],
    ['PsLoadedModuleList', PsLoadedModuleList, "KDBG's PsLoadedModuleList"],
    ['PsActiveProcessHead', PsActiveProcessHead, "KDBG's PsActiveProcessHead"],
    ['KdDebuggerDataBlock', kdbg.address, 'where the KDBG is'],
  ] as const;
  for (const [field, expected, evidence] of places) {
    if (expected === undefined || !isKernelAddress(expected) || header[field] === expected) continue;
    if (field === 'PfnDatabase' && header[field] === database) continue;
    yield {
      field,
      change: { [field]: expected },
      severity: field === 'PfnDatabase' ? 'warning' : 'error',
      found: hex64(header[field]),
      expected: hex64(expected),
      evidence,
    };
  }
}

function* processorFault({ processors, damagedProcessors }: Windows, header: DumpHeader): Generator<HeaderFault> {
  const count = processors.reduce((last, { number }) => Math.max(last, number), -1) + 1;
  if (count === 0 || damagedProcessors.length > 0 || header.NumberProcessors === count) return;
  yield {
    field: 'NumberProcessors',
    change: { NumberProcessors: count },
    severity: 'error',
    found: hex(header.NumberProcessors),
    expected: hex(count),
    evidence: 'KiProcessorBlock',
  };
}

/** Windows writes 0x10000000 | code where it broke into a debugger first. */
const VARIANT = 0x1000_0000;

function* bugCheckFaults({ crash }: Windows, header: DumpHeader): Generator<HeaderFault> {
  // Without one in memory the header may know more: it was written later.
  if (!crash) return;
  const { code, parameters } = crash.bugCheck;
  const said = header.BugCheckCode;
  const sameCode = said === code || (said & ~VARIANT) >>> 0 === (code & ~VARIANT) >>> 0;
  const sameParameters = parameters.every((value, i) => header.BugCheckParameters[i] === value);
  if (!sameCode) {
    yield {
      field: 'BugCheckCode',
      change: { BugCheckCode: code },
      severity: 'error',
      found: hex(said),
      expected: hex(code),
      evidence: 'KiBugCheckData',
    };
  }
  if (sameParameters) return;
  yield {
    field: 'BugCheckParameters',
    change: { BugCheckParameters: parameters },
    severity: 'error',
    found: header.BugCheckParameters.map(hex64).join(', '),
    expected: parameters.map(hex64).join(', '),
    evidence: 'KiBugCheckData',
  };
}

/** A dump cannot be older than what it holds, by more than clocks differ: a minute, in units of 100 ns. */
const CLOCK_TOLERANCE = 600_000_000n;

function* timeFaults({ shared }: Windows, header: DumpHeader): Generator<HeaderFault> {
  const { systemTime, interruptTime } = shared;
  const isOlder = systemTime !== undefined && header.SystemTime < systemTime - CLOCK_TOLERANCE;
  if (systemTime && (isOlder || isUnset(header.SystemTime))) {
    yield {
      field: 'SystemTime',
      change: { SystemTime: systemTime },
      severity: 'warning',
      found: hex64(header.SystemTime),
      expected: hex64(systemTime),
      evidence: "SharedUserData's SystemTime",
    };
  }
  if (interruptTime && isUnset(header.SystemUpTime)) {
    yield {
      field: 'SystemUpTime',
      change: { SystemUpTime: interruptTime },
      severity: 'warning',
      found: hex64(header.SystemUpTime),
      expected: hex64(interruptTime),
      evidence: "SharedUserData's InterruptTime",
    };
  }
}
