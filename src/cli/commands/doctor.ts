/** `elf2dmp doctor [DIR]`: what works on this host and in a directory. */

import { EXIT } from '../../core/exit-codes.ts';
import { toJson } from '../../core/json.ts';
import { type Job, withDefaults } from '../job.ts';
import type { Given } from '../parse.ts';

/** The job that a command line for `doctor` asks for. */
export function doctorJob({ names, values }: Given): Job {
  const { json } = withDefaults('doctor', values);
  return {
    json,
    verbose: false,
    run: async () => {
      const { examineHost } = await import('../../operations/doctor.ts');
      const report = await examineHost(names[0] ?? '.');
      const text = json ? `${toJson(report, 2)}\n` : (await import('../text/render-doctor.ts')).renderDoctor(report);
      process.stdout.write(text);
      return report.outcome === 'good' ? EXIT.good : EXIT.ioPermanent;
    },
  };
}
