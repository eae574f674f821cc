/** What an input is and what runs in it, as plain data (schema/info.schema.json). Addresses are hex strings. */
import { Elf2dmpError } from '../core/errors.ts';
import { hex } from '../core/units.ts';
import { type LocateOptions, locateWindows } from '../locate/locator.ts';
import { machineOf } from '../machines/index.ts';
import type { MemoryImage } from '../memory/image.ts';
import type { CallOptions } from '../options/values.ts';
import { chooseContexts } from '../plan/contexts.ts';
import { type OpenOptions, openInput } from '../readers/input.ts';
import { openDumpHeader } from '../readers/registry.ts';
import { reportError } from '../report/failure.ts';
import { type DumpHeader, type InfoReport, type InputReport, reportHeader, reportInput } from '../report/input.ts';
import { describePage, type PageData } from '../report/page.ts';
import { SCHEMA } from '../report/schemas.ts';
import { describeWindows } from '../report/windows.ts';
import { TOOL } from '../version.ts';

export interface InspectOptions extends CallOptions<'inspect'>, LocateOptions, Omit<OpenOptions, 'crashDumps'> {
  /** A file, a compressed file, a pipe, or `-` for standard input. */
  input: string;
  /** Called with what a report for people shows. */
  onPage?: ((page: PageData) => void) | undefined;
}

/** Looks at a dump of any kind that is read, crash dumps too. Throws `Elf2dmpError` where the input can't be opened. */
export async function inspect(options: InspectOptions): Promise<InfoReport> {
  const report = (found: Pick<InfoReport, 'input'> & Partial<InfoReport>): InfoReport => ({
    schema: SCHEMA.info,
    tool: TOOL,
    windows: null,
    problem: null,
    diagnostics: [],
    ...found,
  });
  let image: MemoryImage;
  try {
    image = await openInput(options.input, { ...options, crashDumps: true });
  } catch (error) {
    // Of a dump whose memory is not read, the header is worth telling.
    if (!(error instanceof Elf2dmpError) || (error.code !== 'dmp-type' && error.code !== 'dmp-machine')) throw error;
    const input = describeHeaderOnly(options.input);
    if (!input) throw error;
    return report({ input, problem: reportError(error) });
  }
  try {
    const windows = await locateWindows(image, options);
    const contexts = chooseContexts(windows, options.context ?? 'auto');
    for (const { severity, code, message } of contexts.warnings) image.diagnostics.add(severity, code, message);
    if (options.onPage) options.onPage({ ...(await describePage(windows, contexts)), conversion: undefined });
    return report({
      input: reportInput(windows.image),
      windows: describeWindows(windows, contexts),
      diagnostics: windows.image.diagnostics.list,
    });
  } catch (error) {
    if (!(error instanceof Elf2dmpError) || (error.kind !== 'unsupported' && error.kind !== 'corrupt')) throw error;
    const found = { input: reportInput(image), problem: reportError(error), diagnostics: image.diagnostics.list };
    options.onPage?.({ ...found, ...NOTHING_FOUND });
    return report(found);
  } finally {
    image.close();
  }
}

const NOTHING_FOUND = { windows: null, evidence: [], stacks: [], memory: undefined, conversion: undefined } as const;

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
    dumpHeader: reportHeader(header),
  };
}
