/** The text of a verification's result. */

import { printable } from '../../core/errors.ts';
import { bytes } from '../../core/units.ts';
import type { Finding, FindingPlace, VerificationReport } from '../../report/findings.ts';

/** Findings printed one by one without `verbose`. */
const SHOWN = 50;

function renderFinding(f: Finding): string {
  const place = f.where ? placeOf(f.where) : [];
  const values = [f.expected && `expected ${f.expected}`, f.found && `found ${f.found}`].filter(Boolean);
  const details = [place.join(', '), values.join(', ')].filter((part) => part !== '').join(': ');
  return `${f.severity}: ${printable(f.message)}${details ? ` (${printable(details)})` : ''}\n`;
}

function placeOf(where: FindingPlace): string[] {
  const parts =
    where.in === 'file'
      ? [
          where.structure && (where.field ? `${where.structure}.${where.field}` : where.structure),
          where.offset && `offset ${where.offset}`,
        ]
      : [where.physical && `physical ${where.physical}`, where.virtual && `virtual ${where.virtual}`];
  return parts.filter((part) => part !== null);
}

/** Findings go to stderr; `quiet` leaves errors only. */
export function writeFindings(
  { findings, findingsLeftOut }: VerificationReport,
  { quiet, verbose }: { quiet: boolean; verbose: boolean },
): void {
  const wanted = findings.filter((f) => f.severity === 'error' || !quiet);
  const shown = verbose ? wanted : wanted.slice(0, SHOWN);
  for (const finding of shown) process.stderr.write(renderFinding(finding));
  const hidden = wanted.length - shown.length;
  if (hidden > 0) process.stderr.write(`… ${hidden} more with --verbose\n`);
  if (findingsLeftOut > 0) process.stderr.write(`… ${findingsLeftOut} more that are not kept\n`);
}

const OUTCOMES = {
  sound: 'is sound',
  unsound: 'is NOT SOUND: it contradicts itself',
  differs: 'DIFFERS from what a conversion of the input makes',
} as const;

/** The result in a line, and what was compared. */
export function describeVerification(
  { outcome, dump, windows, against }: VerificationReport,
  verbose: boolean,
): string {
  let text = `Verified:      ${printable(dump.path)} ${OUTCOMES[outcome]}\n`;
  if (verbose) {
    text += `Dump:          ${dump.type ?? 'a type that is not known'}, ${bytes(dump.bytes)}, ${dump.pages} pages\n`;
    text += `Windows:       ${windows ? `build ${windows.build}, ${windows.moduleCount} modules, ${windows.processors.length} processors` : 'none was found in it'}\n`;
  }
  if (!against) return text;
  text += `Compared:      ${against.pagesCompared} pages with ${printable(against.input.path)}: ${against.pagesDifferent} differ, ${against.changes.length} changes by the conversion\n`;
  for (const c of against.changes)
    text += `  ${c.virtual} (physical ${c.physical}) ${c.length} bytes: ${printable(c.what)}\n`;
  return text;
}
