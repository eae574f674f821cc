/** Verifies a crash dump: by itself, or against the input that it was made from. */
import { sha256OfFile } from '../files/hash.ts';
import { whileUnchanged } from '../files/input-watch.ts';
import { STANDARD_STREAM } from '../options/choices.ts';
import type { CallOptions } from '../options/values.ts';
import { openInput } from '../readers/input.ts';
import type { HashReport } from '../report/conversion.ts';
import type { VerificationReport } from '../report/findings.ts';
import { SCHEMA } from '../report/schemas.ts';
import type { VerifyDumpOptions } from '../verify/expectation.ts';
import { expectationFromPatches, planAgain } from '../verify/plan-again.ts';
import { verifyDump } from '../verify/verify-dump.ts';
import { TOOL } from '../version.ts';
import { Guest, type Input, nameOf, type ReadingOptions, sha256OfGiven, withGuest } from './guest.ts';

/** How to open `against`, and how to locate Windows in it. */
export interface VerifyOptions extends Omit<CallOptions<'verify'>, 'against'>, VerifyDumpOptions, ReadingOptions {
  /** The crash dump. */
  dump: string;
  /** The input that it was made from. */
  against?: Input | undefined;
}

/** What `verify` found. */
export interface VerifyReport extends VerificationReport {
  schema: (typeof SCHEMA)['verify'];
  tool: typeof TOOL;
  /** null without `hash`. */
  sha256: HashReport | null;
}

/** Throws `Elf2dmpError` where a file can't be read, or the input is not one that could have been converted. */
export async function verify(options: VerifyOptions): Promise<VerifyReport> {
  const { dump, against, hash, liveInput, signal } = options;
  const isWatched = typeof against === 'string' && against !== STANDARD_STREAM && !liveInput;
  // The hashes are of what was checked.
  return whileUnchanged(isWatched ? [dump, against] : [dump], async () => {
    const report = await verifyAgainst(against, options);
    const sha256 = hash
      ? {
          dump: await sha256OfFile(dump, signal),
          input: against === undefined ? null : await sha256OfGiven(against, signal),
        }
      : null;
    if (against instanceof Guest) await against.image.checkUnchanged();
    return { schema: SCHEMA.verify, tool: TOOL, ...report, sha256 };
  });
}

async function verifyAgainst(against: Input | undefined, options: VerifyOptions): Promise<VerificationReport> {
  const { dump, patches, signal, onProgress, onSearch } = options;
  // A caller's root and base are those of the input: the dump's header names its own.
  const own: VerifyDumpOptions = { signal, onProgress, onSearch };
  if (against === undefined) return verifyDump(dump, undefined, { ...options, ...own });
  if (patches === undefined) {
    return withGuest(against, { ...options, crashDumps: true }, async ({ windows }) => {
      const report = await verifyDump(dump, await planAgain(windows, dump, signal), own);
      await windows.image.checkUnchanged();
      return report;
    });
  }
  const check = async ({ image }: Pick<Guest, 'image'>): Promise<VerificationReport> => {
    const { expectation, findings } = await expectationFromPatches(image, patches);
    const report = await verifyDump(dump, expectation, own);
    await image.checkUnchanged();
    return findings.length === 0
      ? report
      : { ...report, outcome: 'differs', findings: [...findings, ...report.findings] };
  };
  if (against instanceof Guest) return check(against);
  const image = await openInput(against, { ...options, crashDumps: true });
  try {
    // Only Windows shows which layout of raw memory is right, and of a dump whose list of runs is not.
    const isKnown = image.alternatives.length === 0 && !image.unlisted;
    return await check(isKnown ? { image } : await Guest.locate(nameOf(against), image, options));
  } finally {
    image.close();
  }
}
