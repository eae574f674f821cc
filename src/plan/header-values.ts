/** The values of a dump's header, from what was found of Windows. */

import { Reason } from '../core/reason.ts';
import { LIVE_SYSTEM_DUMP } from '../formats/win-dump.ts';
import { VERSION } from '../version.ts';
import { readProcesses } from '../windows/processes.ts';
import type { Windows } from '../windows/windows.ts';
import type { PlanValues } from './plan.ts';

/** The comment begins with this. */
export const COMMENT_START = 'Converted by elf2dmp ';

/** The first builds whose headers have these. */
const PAGING_LEVELS_SINCE = 22621;
const BOOT_ID_SINCE = 10240;

/** Virtualisation-based security shows by its minimal process. */
function hasSecureKernel({ space, kdbg, processors }: Windows): boolean {
  const list = readProcesses(space, kdbg.fields, processors);
  return !(list instanceof Reason) && list.processes.some(({ name }) => name === 'Secure System');
}

/** @param context of the processor that the debugger shows first, or undefined where no registers are known */
export function headerValues(windows: Windows, context: Buffer | undefined): PlanValues {
  const { image, space, headerRoot, kdbg, version, shared, crash, processors } = windows;
  const { machine } = image;
  const lastNumber = processors.reduce((last, p) => Math.max(last, p.number), -1);
  return {
    majorVersion: version.majorVersion,
    build: version.build,
    directoryTableBase: headerRoot,
    pae: space.mode.pae,
    pfnDatabase: kdbg.fields.MmPfnDatabase ?? 0n,
    psLoadedModuleList: kdbg.fields.PsLoadedModuleList ?? 0n,
    psActiveProcessHead: kdbg.fields.PsActiveProcessHead ?? 0n,
    machine: machine.imageFileMachine,
    processors: lastNumber + 1,
    bugCheck: crash?.bugCheck ?? { code: LIVE_SYSTEM_DUMP, parameters: [0n, 0n, 0n, 0n] },
    kdDebuggerDataBlock: kdbg.address,
    context,
    exceptionAddress: context ? machine.viewContext(context).instructionPointer : 0n,
    systemTime: shared.systemTime ?? 0n,
    systemUpTime: shared.interruptTime ?? 0n,
    productType: shared.productType,
    suiteMask: shared.suiteMask,
    kdSecondaryVersion: version.kdSecondaryVersion,
    // Of the tables that the header's root begins, as debuggers walk them.
    pagingLevels: version.build >= PAGING_LEVELS_SINCE ? 4 : undefined,
    bootId: version.build >= BOOT_ID_SINCE ? shared.bootId : undefined,
    secureKernel: hasSecureKernel(windows),
    comment: `${COMMENT_START}${VERSION} from a QEMU guest memory dump`,
  };
}
