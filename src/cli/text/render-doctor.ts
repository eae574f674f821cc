/** What `doctor` found, and the version for bug reports. */
import { printable } from '../../core/errors.ts';
import { bytes } from '../../core/units.ts';
import type { CheckName, DoctorReport, HostReport } from '../../operations/doctor.ts';
import { TOOL } from '../../version.ts';
import { plural } from './render.ts';

const NAMES: Record<CheckName, string> = {
  node: 'Node.js',
  write: 'writing here',
  koffi: 'koffi',
  'unnamed-files': 'files without a name',
  reflink: 'shared blocks',
  'in-place': 'inserting blocks',
  'zstd-output': 'zstd output',
};

/** The report of `doctor`, ready to print. */
export function renderDoctor({ host, directory, checks }: DoctorReport): string {
  return [
    ...hostLines(host),
    `${printable(directory.path)}: ${directory.fileSystem}, ${bytes(directory.free)} free`,
    '',
    ...checks.map(
      ({ name, works, detail, use }) =>
        `${works ? 'works' : 'no   '}  ${NAMES[name].padEnd(20)}  ${use}${detail === 'yes' ? '' : `: ${printable(detail)}`}`,
    ),
    '',
  ].join('\n');
}

/** `--version --verbose`: what a bug report should have. */
export const renderVersion = (host: HostReport): string => hostLines(host).join('\n');

const hostLines = (host: HostReport): string[] => [
  `elf2dmp ${TOOL.version}, ${host.runtime} ${host.runtimeVersion}${host.runtime === 'Node.js' ? '' : ` (as Node.js ${host.node})`}, koffi ${host.koffi ?? 'not loaded'}`,
  `${host.platform}, kernel ${host.kernel}${host.system === null ? '' : `, ${printable(host.system)}`}`,
  `${plural(host.cpus, 'CPU')}, ${bytes(host.memory)} of memory${host.memoryAvailable === null ? '' : ` (${bytes(host.memoryAvailable)} available)`}${host.openFiles === null ? '' : `, ${host.openFiles} open files`}`,
];
