/** The text of a verification's result. */

import { printable } from '../../core/errors.ts';
import type { Finding, VerificationReport } from '../../report/findings.ts';

/** Findings printed one by one. */
const SHOWN = 50;

function renderFinding(f: Finding): string {
  const place = [
    f.structure && (f.field ? `${f.structure}.${f.field}` : f.structure),
    f.offset && `offset ${f.offset}`,
    f.physical && `physical ${f.physical}`,
    f.virtual && `virtual ${f.virtual}`,
  ].filter(Boolean);
  const values = [f.expected && `expected ${f.expected}`, f.found && `found ${f.found}`].filter(Boolean);
  const details = [place.join(', '), values.join(', ')].filter((part) => part !== '').join(': ');
  return `${f.severity}: ${printable(f.message)}${details ? ` (${printable(details)})` : ''}\n`;
}

/** Findings go to stderr; `quiet` leaves errors only. */
export function writeFindings({ findings, findingsLeftOut }: VerificationReport, quiet: boolean): void {
  const wanted = findings.filter((f) => f.severity === 'error' || !quiet);
  for (const finding of wanted.slice(0, SHOWN)) process.stderr.write(renderFinding(finding));
  const more = wanted.length - Math.min(wanted.length, SHOWN) + findingsLeftOut;
  if (more > 0) process.stderr.write(`… ${more} more with --json\n`);
}

const OUTCOMES = {
  sound: 'is sound',
  unsound: 'is NOT SOUND: it contradicts itself',
  differs: 'DIFFERS from what a conversion of the input makes',
} as const;

/** The result in a line, and what was compared. */
export function describeVerification({ outcome, dump, against }: VerificationReport): string {
  let text = `Verified:      ${printable(dump.path)} ${OUTCOMES[outcome]}\n`;
  if (!against) return text;
  text += `Compared:      ${against.pagesCompared} pages with ${printable(against.path)}: ${against.pagesDifferent} differ, ${against.changes.length} changes by the conversion\n`;
  for (const c of against.changes)
    text += `  ${c.virtual} (physical ${c.physical}) ${c.length} bytes: ${printable(c.what)}\n`;
  return text;
}
