import type { DiagnosticCode, FindingCode } from '../core/codes.ts';
import { structureProblems } from '../plan/check-plan.ts';
import { chooseContexts } from '../plan/contexts.ts';
import { type Findings, inMemory, type NewFinding } from '../report/findings.ts';
import type { Windows } from '../windows/windows.ts';
import type { Expectation } from './expectation.ts';

/** Page tables, KDBG, lists and registers: what a debugger needs. */
export function checkMemory(windows: Windows, expectation: Expectation | undefined, findings: Findings): void {
  // Problems that the input has too are the guest's own damage.
  const known = new Set(expectation?.windows ? problemsOf(expectation.windows).map((p) => p.code) : []);
  const unpatched = expectation?.patched === false;
  for (const problem of problemsOf(windows)) {
    const { code } = problem;
    // The comparison of pages knows better which of them should be there.
    if (code === 'ram-missing' && expectation && !known.has(code)) continue;
    const excused = NO_FAULT.has(code) || known.has(code) || (unpatched && SET_BY_PATCHES.has(code));
    findings.add({ severity: excused ? 'warning' : 'error', ...problem });
  }
  if (windows.kdbg.encoded) {
    findings.add({
      severity: unpatched ? 'warning' : 'error',
      code: 'kdbg-encoded',
      message: 'the KDBG is still encoded: the debugger shows no registers and no processors',
      where: inMemory({ virtual: windows.kdbg.address }),
    });
  }
}
export type Problem = Omit<NewFinding, 'severity'>;

/** What is damaged in a guest's memory; the same checks serve input and dump. */
export function problemsOf(windows: Windows): Problem[] {
  const { diagnostics } = windows;
  const registers = chooseContexts(windows, 'auto').diagnostics.filter((d) => d.severity === 'loss');
  const problems: Problem[] = [...diagnostics.losses, ...registers]
    .filter((d) => MEMORY_LOSSES.has(d.code))
    .map(({ code, message, where }) => {
      const virtual = where?.['virtual'] ?? where?.['prcb'];
      return { code, message, ...(virtual === undefined ? {} : { where: inMemory({ virtual }) }) };
    });
  // It has neither page tables nor lists.
  if (windows.image.triage) return problems;
  for (const { code, message, virtual, found } of structureProblems(windows)) {
    const where = virtual === undefined ? {} : { where: inMemory({ virtual }) };
    problems.push({ code, message, ...where, ...(found === undefined ? {} : { found }) });
  }
  return problems;
}

/** The locator's losses that concern the guest's structures; others concern inputs and conversions. */
export const MEMORY_LOSSES: ReadonlySet<DiagnosticCode> = new Set([
  'no-cpu-states',
  'processor-without-state',
  'processor-exchanged',
  'kernel-header-missing',
  'kdbg-field-damaged',
  'modules-broken',
  'no-processors',
  'processor-damaged',
  'prcb-damaged',
  'bug-check-unreadable',
  'bug-check-implausible',
  'ram-missing',
]);

/** Losses that are not the dump's fault: it cannot know more than its input. */
export const NO_FAULT: ReadonlySet<FindingCode> = new Set([
  'no-cpu-states',
  'processor-without-state',
  'kernel-header-missing',
  'ram-missing',
]);

/** Without patches, the special registers are what Windows last saved there, if anything. */
export const SET_BY_PATCHES: ReadonlySet<FindingCode> = new Set([
  'special-registers',
  'interrupt-table',
  'processor-exchanged',
]);
