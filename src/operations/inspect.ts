/** What an input is and what runs in it, as plain data (schema/info.schema.json). Addresses are hex strings. */
import { Diagnostics, Elf2dmpError } from '../core/errors.ts';
import { takeSignals } from '../core/pulse.ts';
import { hex } from '../core/units.ts';
import { machineOf } from '../machines/index.ts';
import type { MemoryImage } from '../memory/image.ts';
import type { CallOptions } from '../options/values.ts';
import { chooseContexts } from '../plan/contexts.ts';
import { openInput } from '../readers/input.ts';
import { openDumpHeader } from '../readers/registry.ts';
import { reportError } from '../report/failure.ts';
import {
  type DumpHeader,
  type InfoReport,
  type InputReport,
  reportGuestInput,
  reportHeader,
  reportInput,
} from '../report/input.ts';
import { describePage, type PageData } from '../report/page.ts';
import { SCHEMA } from '../report/schemas.ts';
import { describeWindows } from '../report/windows.ts';
import type { Symbols } from '../symbols/symbols.ts';
import { TOOL } from '../version.ts';
import { explained, Guest, type Input, nameOf, type ReadingOptions } from './guest.ts';
import { symbolDiagnostics, withSymbols } from './symbols.ts';

export interface InspectOptions extends CallOptions<'inspect'>, ReadingOptions {
  /** What to read. */
  input: Input;
}

/** What an inspection found: the report, and what a report for people shows if that was asked for. */
export interface Inspected {
  report: InfoReport;
  page: PageData | undefined;
}

/** Looks at a dump of any kind that is read, crash dumps too. Throws `Elf2dmpError` where the input can't be opened. */
export async function inspect(options: InspectOptions): Promise<InfoReport> {
  return (await inspectAndDescribe(options, { page: false })).report;
}

/**
 * As `inspect`.
 *
 * @param wanted.page also what a report for people shows
 */
export const inspectAndDescribe = (options: InspectOptions, wanted: { page: boolean }): Promise<Inspected> =>
  withSymbols(options.symbols, (symbols) => inspectWith(options, { ...wanted, symbols }));

/** What to find out, and what names code. */
interface Wanted {
  page: boolean;
  symbols: Symbols | undefined;
}

async function inspectWith(options: InspectOptions, wanted: Wanted): Promise<Inspected> {
  const { input } = options;
  if (input instanceof Guest) return inspectGuest(input, options, wanted);
  let image: MemoryImage;
  try {
    image = await openInput(input, { ...options, crashDumps: true });
  } catch (error) {
    // If only the memory of a crash dump is not read, its header is still worth showing.
    if (!(error instanceof Elf2dmpError) || (error.code !== 'dmp-type' && error.code !== 'dmp-machine')) throw error;
    const header = typeof input === 'string' ? describeHeaderOnly(input) : undefined;
    if (!header) throw error;
    return { report: reportOf({ input: header, problem: reportError(error) }), page: undefined };
  }
  try {
    return await explained(
      image,
      Guest.locate(nameOf(input), image, options).then((guest) => inspectGuest(guest, options, wanted)),
    );
  } catch (error) {
    if (!(error instanceof Elf2dmpError) || (error.kind !== 'unsupported' && error.kind !== 'corrupt')) throw error;
    const found = { input: reportInput(image), problem: reportError(error), diagnostics: image.diagnostics.list };
    return { report: reportOf(found), page: wanted.page ? { ...found, ...NOTHING_FOUND } : undefined };
  } finally {
    image.close();
  }
}

async function inspectGuest(
  { windows, image }: Guest,
  { context = 'auto', signal }: InspectOptions,
  { page: withPage, symbols }: Wanted,
): Promise<Inspected> {
  // What follows lets no signal in.
  await takeSignals(signal);
  const contexts = chooseContexts(windows, context);
  const described = withPage ? await describePage(windows, contexts, { symbols }) : undefined;
  const found = described?.windows ?? describeWindows(windows, contexts, symbols);
  await takeSignals(signal);
  await image.checkUnchanged();
  const diagnostics = Diagnostics.join(image.diagnostics.list, contexts.diagnostics, symbolDiagnostics(symbols)).list;
  const page = described && { ...described, diagnostics, conversion: undefined };
  const report = reportOf({
    input: reportGuestInput(windows, contexts, symbols),
    windows: found,
    diagnostics,
  });
  return { report, page };
}

const reportOf = (found: Pick<InfoReport, 'input'> & Partial<InfoReport>): InfoReport => ({
  schema: SCHEMA.info,
  tool: TOOL,
  windows: null,
  problem: null,
  diagnostics: [],
  ...found,
});

const NOTHING_FOUND = {
  windows: null,
  evidence: [],
  stacks: [],
  fault: null,
  processors: [],
  memory: undefined,
  conversion: undefined,
} as const;

/** undefined for what is compressed or can be read once only. */
function describeHeaderOnly(path: string): InputReport | undefined {
  let header: DumpHeader;
  try {
    header = openDumpHeader(path);
  } catch {
    return undefined;
  }
  return {
    path,
    format: 'windows-dump',
    machine: machineOf({ imageFileMachine: header.MachineImageType })?.name ?? hex(header.MachineImageType),
    memoryBytes: 0,
    runs: [],
    runCount: 0,
    cpus: [],
    blocks: null,
    host: null,
    dumpHeader: reportHeader(header),
  };
}
