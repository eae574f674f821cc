/** `elf2dmp info FILE`: describes a dump and the guest in it. */

import { EXIT, EXIT_OF_KIND } from '../../core/exit-codes.ts';
import { toJson } from '../../core/json.ts';
import type { InspectOptions } from '../../operations/inspect.ts';
import { checkTogether } from '../../options/check.ts';
import { STANDARD_STREAM } from '../../options/choices.ts';
import { localSymbolPaths } from '../../options/symbol-path.ts';
import type { InfoReport } from '../../report/input.ts';
import { pageWriter } from '../html/write-page.ts';
import { type Job, withDefaults } from '../job.ts';
import { optionsFor } from '../library-options.ts';
import type { Given } from '../parse.ts';
import { symbolPath } from '../symbol-path.ts';
import { ProgressLine } from '../text/progress.ts';
import { writeDiagnostics } from '../text/render.ts';
import { renderInfo } from '../text/render-info.ts';
import { watchReading } from '../text/watch-reading.ts';

/** The job that a command line for `info` asks for. */
export function infoJob({ names: [file], values }: Given): Job {
  checkTogether(values);
  const args = withDefaults('info', values);
  const { json, quiet, verbose } = args;
  const render = async (report: InfoReport): Promise<string> => {
    if (args['symbols-needed']) return (await import('../text/symbols-needed.ts')).symbolsNeeded(report);
    return json ? `${toJson(report, 2)}\n` : renderInfo(report);
  };
  const inspection: InspectOptions = {
    input: file!,
    ...optionsFor('inspect', values),
    symbols: symbolPath(args.symbols),
  };
  const read = [file!, ...localSymbolPaths(inspection.symbols ?? '')];
  if (inspection.ramFile !== undefined) read.push(inspection.ramFile);
  return {
    json,
    verbose,
    run: async (signal) => {
      const line = new ProgressLine(process.stderr, { quiet, json: args.progress === 'json' });
      try {
        const toStdout = args.report === STANDARD_STREAM;
        const { report: place, force } = args;
        const writePage = place === undefined ? undefined : await pageWriter(place, read, { force, signal });
        const { report, page } = await (await import('../../operations/inspect.ts')).inspectAndDescribe(
          {
            ...inspection,
            signal,
            ...watchReading(line, quiet),
          },
          { page: writePage !== undefined },
        );
        if (page) await writePage?.(page);
        line.clear();
        writeDiagnostics(report.diagnostics, { quiet, verbose });
        if (!toStdout) process.stdout.write(await render(report));
        return report.problem ? EXIT_OF_KIND[report.problem.kind] : EXIT.good;
      } finally {
        line.end();
      }
    },
  };
}
