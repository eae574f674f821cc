/** Processors and code addresses as text. */

import { codeName } from '../../core/code-name.ts';
import { hex } from '../../core/units.ts';
import type { HangReport } from '../../report/activity.ts';
import type { FaultReport } from '../../report/fault.ts';
import type { HostReport } from '../../report/input.ts';
import type { AddressPlace } from '../../report/places.ts';
import type { CodePlace, ProcessorReport, SourceReport } from '../../report/processors.ts';
import type { FrameReport } from '../../report/stack-frames.ts';
import type { ProcessorStackReport } from '../../report/stacks.ts';
import type { ParameterReport, WindowsSummary } from '../../report/windows.ts';

/** Whose registers a processor shows. */
export const WHOSE: Record<ProcessorReport['registers'], string> = {
  cpu: "the CPU's",
  captured: 'captured by Windows at the bug check',
  dump: "the dump's",
  unknown: 'unknown',
};

/** A processor in a line, for people. */
export function describeProcessor(p: ProcessorReport): string {
  const cpu = p.cpu === null ? [] : [`CPU ${p.cpu}`];
  if (p.instructionPointer === null) return [...cpu, 'registers unknown'].join(', ');
  const near = p.at?.symbol ?? p.at?.nearestExport;
  const place = p.at ? ` (${nameOf(p.at)}+${p.at.offset}${near ? `, ${near.name}+${near.offset}` : ''})` : '';
  return [
    ...cpu,
    `${p.mode} mode`,
    `at ${p.instructionPointer}${place}`,
    `stack ${p.stackPointer}`,
    `page tables ${p.pageTableRoot ?? 'unknown'}`,
    ...(p.registers === 'captured' ? [WHOSE.captured] : []),
  ].join(', ');
}

/** An address as debuggers print it: `nt!KeBugCheckEx+0x5 [file:line]`, or by its module. */
export const symbolOf = (at: CodePlace): string => `${codeName(at)}${at.symbol ? lineOf(at.symbol) : ''}`;

/** Where an address lies, in a few words. */
export function describePlace(place: AddressPlace): string {
  switch (place.in) {
    case 'module':
      return `${symbolOf(place)}${place.section === null ? '' : ` (${place.section})`}`;
    case 'unloaded-module':
      return `${place.module}+${place.offset}, unloaded`;
    case 'stack':
      return `on the stack of processor ${place.processor}`;
    case 'processor-region':
      return `in the KPCR of processor ${place.processor}, at ${place.offset}`;
    case 'pool':
      return describePool(place);
    case 'null-page':
      return 'a null pointer with an offset';
    case 'user':
      return 'an address of user mode';
    case 'non-canonical':
      return 'not a canonical address';
  }
}

function describePool({ pool, block }: Extract<AddressPlace, { in: 'pool' }>): string {
  const kind = pool === null ? 'pool' : `${pool} pool`;
  if (!block) return `in ${kind}`;
  const what = block.free ? `a free block of ${kind}` : kind;
  const tag = block.tag === null ? '' : `, tag '${block.tag}'`;
  return `in ${what}${tag}, +${block.offset} in the block of ${hex(block.size)} bytes at ${block.address}`;
}

/** What the hypervisor recorded besides memory; empty where that is nothing. */
export function describeHost({ runState, bugCheck, build }: HostReport): string {
  return [
    ...(runState === null ? [] : [`the guest was ${runState}`]),
    ...(build === null ? [] : [`it said that it is build ${build}`]),
    ...(bugCheck === null ? [] : [`it told of bug check ${bugCheck.code} ${bugCheck.name ?? '(not a known one)'}`]),
  ].join(', ');
}

/** What a bug check's parameter is, its value in words, and where it lies; empty where none of that is known. */
export function describeParameter({ meaning, decoded, place }: ParameterReport): string {
  const said = [meaning, decoded, place && describePlace(place)];
  return said.filter((part) => part !== null).join(': ');
}

/** The driver that probably caused the crash, and why. */
export const describeCulprit = ({ module, at, reason }: NonNullable<WindowsSummary['culprit']>): string =>
  `${module}${at && (at.symbol ?? at.nearestExport) ? ` (${symbolOf(at)})` : ''}: ${reason}`;

/** Where the registers at the fault are, and by what that is known. */
export function describeFault({ from, address, parameter, witness }: FaultReport): string {
  const named = parameter === null ? '' : ` that parameter ${parameter} names`;
  const what = from === 'context' ? 'CONTEXT' : 'trap frame';
  return `${what} at ${address}${named} (${from === 'context' ? '.cxr' : '.trap'}); ${witness}`;
}

/** Where the code at fault is, as names and values. */
export const faultRows = (fault: FaultReport | null): [string, string][] =>
  fault
    ? [
        [
          'Fault',
          `at ${fault.instructionPointer}${fault.at ? ` (${symbolOf(fault.at)})` : ''}, stack ${fault.stackPointer}, by the ${describeFault(fault)}`,
        ],
      ]
    : [];

/** Culprit and signatures, as names and values. */
export const verdictRows = ({ culprit, signatures: { symbols, rva } }: WindowsSummary): [string, string][] => [
  ...(culprit ? [['Likely culprit', describeCulprit(culprit)] as [string, string]] : []),
  ...(symbols ? [['Signature', `${symbols.hash} ${symbols.text} (by symbols)`] as [string, string]] : []),
  ['Signature', `${rva.hash} ${rva.text} (by RVA)`],
];

/** The reading of what the processors of a guest that runs do, as names and values. */
export const readingRows = (activity: HangReport | null): [string, string][] =>
  activity ? activity.reading.map((line, i) => [i === 0 ? 'Reading' : 'It may mean', line]) : [];

/** What the names of stacks are: with `named`, some come from PDBs. */
export const legendOf = (named: boolean): string =>
  named
    ? 'Names are symbols; those marked * are the nearest symbols or exports below each address.'
    : 'Names are the nearest exports below each address, not symbols.';

/** Whether PDBs named any frame. */
export const isNamed = (stacks: readonly Pick<ProcessorStackReport, 'frames'>[]): boolean =>
  stacks.some(({ frames }) => frames.some((f) => f.at?.symbol));

/** As `symbolOf`, marked where some names are symbols and this one is not sure to be the function's. */
export function siteOf(at: CodePlace, named: boolean): string {
  const guess = named && at.symbol?.certain !== true && (at.symbol ?? at.nearestExport) !== null;
  return `${symbolOf(at)}${guess ? ' *' : ''}`;
}

/** Where a frame's code is: as `siteOf` or, outside all modules, the address and what is known of it. */
export function siteOfFrame({ at, place, instructionPointer }: FrameReport, named: boolean): string {
  if (at) return siteOf(at, named);
  // An address shows by itself that it is of user mode.
  return place && place.in !== 'user' ? `${instructionPointer} (${describePlace(place)})` : instructionPointer;
}

/** The calls inlined at an address, innermost first, printed alike. */
export const inlinedCalls = (at: CodePlace | null): string[] =>
  (at?.symbol?.inlined ?? []).map((call) => `${nameOf(at!)}!${call.name ?? '(unknown)'}+${call.offset}${lineOf(call)}`);

const lineOf = ({ file, line }: SourceReport): string => (file === null ? '' : ` [${file}:${line}]`);

const nameOf = ({ module, base }: CodePlace): string => module ?? `image at ${base}`;
