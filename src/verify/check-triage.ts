/** Checks a triage dump: its lists against its memory, and all of it against what the input makes. */
import { Reason } from '../core/reason.ts';
import { hex, hex64 } from '../core/units.ts';
import type { DumpHeader, HeaderField } from '../formats/dump-header.ts';
import { type Contexts, chooseContexts } from '../plan/contexts.ts';
import { type Findings, inFile } from '../report/findings.ts';
import { readPeImage } from '../windows/pe-image.ts';
import type { Windows } from '../windows/windows.ts';
import { withComment } from './check-header.ts';

/** The dump by itself. */
export function checkTriage(windows: Windows, findings: Findings): void {
  checkStack(windows, chooseContexts(windows, 'auto'), findings);
  checkModules(windows, findings);
  const { dumpHeader } = windows.image;
  if (dumpHeader) checkHeaderFields(windows, dumpHeader, findings);
}

function checkStack({ image }: Windows, { opened }: Contexts, findings: Findings): void {
  const top = image.triage?.topOfStack;
  if (!opened || top === undefined) return;
  const { stackPointer } = image.machine.viewContext(opened.frame);
  if (stackPointer === top) return;
  findings.add({
    severity: 'error',
    code: 'triage-stack',
    message: `the stack in the dump does not begin at the stack pointer of processor ${opened.processor.number}`,
    expected: hex64(stackPointer),
    found: hex64(top),
  });
}

function checkModules({ space, modules, image }: Windows, findings: Findings): void {
  for (const { name, base, size, checkSum, timeDateStamp } of modules) {
    const header = readPeImage(space, base, image.machine.imageFileMachine);
    if (header instanceof Reason) continue;
    const differing = [
      header.size !== size && 'size',
      header.checkSum !== checkSum && 'checksum',
      header.timeDateStamp !== timeDateStamp && 'time stamp',
    ].filter(Boolean);
    if (differing.length === 0) continue;
    findings.add({
      severity: 'error',
      code: 'triage-module',
      message: `the list of modules has another ${differing.join(' and ')} for ${name || hex64(base)} than its header`,
    });
  }
}

function checkHeaderFields({ kdbg, space, image }: Windows, header: DumpHeader, findings: Findings): void {
  const { layout } = image.machine.dumpHeader;
  const compare = (field: HeaderField, expected: bigint | undefined, found: bigint) => {
    if (expected === undefined || expected === found) return;
    findings.add({
      severity: 'error',
      code: 'header-field',
      message: `${field} is not what the dump's memory makes it`,
      where: inFile(layout.offsetOf(field), layout.name, field),
      expected: hex64(expected),
      found: hex64(found),
    });
  };
  compare('PsLoadedModuleList', kdbg.fields.PsLoadedModuleList, header.PsLoadedModuleList);
  compare('PsActiveProcessHead', kdbg.fields.PsActiveProcessHead, header.PsActiveProcessHead);
  const data = kdbg.fields.KiBugCheckData === undefined ? undefined : space.read(kdbg.fields.KiBugCheckData, 4);
  const code = data?.readUInt32LE();
  if (code) compare('BugCheckCode', BigInt(code), BigInt(header.BugCheckCode));
}

/** Ranges that are listed one by one. */
const MAX_RANGES = 16;

/** The whole file against the one that the input makes. */
export function compareTriage(windows: Windows | undefined, file: Buffer, wanted: Buffer, findings: Findings): void {
  const expected = windows ? withComment(windows.image.machine.dumpHeader, wanted, file) : wanted;
  if (file.length !== expected.length) {
    findings.addDifference({
      severity: 'error',
      code: 'triage-differs',
      message: 'the input makes a triage dump of another size, or one with other options',
      expected: `${hex(expected.length)} bytes`,
      found: `${hex(file.length)} bytes`,
    });
    return;
  }
  let listed = 0;
  for (let at = 0; at < file.length && listed < MAX_RANGES; at++) {
    if (file[at] === expected[at]) continue;
    const from = at;
    while (at < file.length && file[at] !== expected[at]) at++;
    listed++;
    findings.addDifference({
      severity: 'error',
      code: 'triage-differs',
      message: `${at - from} bytes differ from what the input makes`,
      where: inFile(from),
      expected: expected.toString('hex', from, Math.min(at, from + 16)),
      found: file.toString('hex', from, Math.min(at, from + 16)),
    });
  }
}
