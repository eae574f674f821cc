/** What is said when Windows is not found, or only a part of it. */
import { Elf2dmpError } from '../core/errors.ts';
import { hex, hex64 } from '../core/units.ts';
import type { MemoryImage } from '../memory/image.ts';
import type { Evidence } from '../windows/evidence.ts';
import type { KernelImage } from '../windows/kernel-image.ts';
import type { SharedData } from '../windows/shared-user-data.ts';
import { KDBG_STEP } from './kdbg.ts';
import { KERNEL_STEP } from './kernel.ts';
import type { SearchResult } from './memory-search.ts';
import { recogniseOtherSystem } from './other-systems.ts';
import { ROOT_STEP } from './roots.ts';

const HINTS: Record<string, string> = {
  [ROOT_STEP]: 'is it a Windows guest that had left its boot loader? if you know the page-table root, give --dtb',
  [KERNEL_STEP]: 'the memory may be damaged; if you know where the kernel is, give --kernel-base',
  [KDBG_STEP]:
    'without the KDBG no debugger finds processors and modules: the memory is damaged, or it is a kernel that elf2dmp does not know (please report it)',
};

const hintOf = ({ format }: MemoryImage, step: string): string | undefined =>
  step === ROOT_STEP && format === 'raw'
    ? `${HINTS[step]}; if the file leaves out what is not RAM, give its ranges in file order, as in --runs 4K+632K,1M+2G`
    : HINTS[step];

/** The error for a step that failed, with every attempt. An image that lacks memory may lack just what was looked for. */
export function failure(
  image: MemoryImage,
  evidence: Evidence,
  step: string,
  details: {
    code: 'windows-not-found' | 'kernel-not-found' | 'kdbg-not-found' | 'version-not-found';
    message: string;
    /** In place of the step's own. */
    hint?: string;
  },
): Elf2dmpError {
  const truncated = image.missing.find(({ what }) => what === 'memory');
  const context = {
    file: image.file,
    message: truncated ? `${details.message}; ${truncated.text}` : details.message,
    attempts: evidence.failures(step),
    hint: truncated
      ? 'make a new dump: what is left of this one does not hold the kernel'
      : (details.hint ?? hintOf(image, step)),
  };
  const { code } = details;
  // A file that lacks memory may well be of Windows: that is damage, not another system.
  return code === 'windows-not-found' && !truncated
    ? new Elf2dmpError({ ...context, code, kind: 'unsupported' })
    : new Elf2dmpError({ ...context, code, kind: 'corrupt' });
}

/** The error where there is a kernel, but no debugger data block. */
export function withoutKdbg(
  image: MemoryImage,
  { shared, kernel, evidence }: { shared: SharedData; kernel: KernelImage; evidence: Evidence },
): Elf2dmpError {
  if (shared.ntMajorVersion === 5 && shared.ntMinorVersion === 0) {
    return new Elf2dmpError({
      code: 'windows-2000',
      kind: 'unsupported',
      message: `this is Windows 2000 (NT 5.0), with its kernel at ${hex64(kernel.base)}: its debugger data block ends before what leads to processors and registers`,
      file: image.file,
      hint: 'Windows XP and later are converted',
      attempts: evidence.failures(KDBG_STEP),
    });
  }
  return failure(image, evidence, KDBG_STEP, {
    code: 'kdbg-not-found',
    message: `the kernel is at ${hex64(kernel.base)}, but its debugger data block (KDBG) was not found`,
  });
}

/** What was found, and what the caller named, which may be wrong. */
interface Search {
  /** undefined where no root leads to SharedUserData. */
  root: number | undefined;
  found: SearchResult | undefined;
  given: { dtb: number | undefined; kernelBase: bigint | undefined };
  evidence: Evidence;
}

/** The error where no page tables, or no kernel, were found: also when the guest is another system. */
export function notFound(image: MemoryImage, { root, found, given, evidence }: Search): Elf2dmpError {
  if (root !== undefined) {
    const tables = `Windows' page tables are at physical ${hex(root)}, but`;
    return failure(image, evidence, KERNEL_STEP, {
      code: 'kernel-not-found',
      ...(given.kernelBase === undefined
        ? { message: `${tables} its kernel image was not found` }
        : {
            message: `${tables} its kernel image is not where --kernel-base says`,
            hint: 'leave out --kernel-base: then the kernel is searched for',
          }),
    });
  }
  const other = recogniseOtherSystem(image);
  const processors = found?.kpcrs.length ?? 0;
  const kdbgs = found?.kdbgs.length ?? 0;
  // A Linux may run inside Windows (WSL2): what is Windows' own outweighs a text in memory.
  if (other && (other.certain || processors + kdbgs === 0)) {
    return new Elf2dmpError({
      code: other.code,
      kind: 'unsupported',
      message: other.what,
      file: image.file,
      hint: other.hint,
      attempts: evidence.failures(ROOT_STEP),
    });
  }
  const traces =
    processors + kdbgs > 0
      ? `, though there are traces of one: pages that look like a KPCR: ${processors}, like a KDBG: ${kdbgs}${other ? `; text in memory says ${other.system}, which may run inside it (WSL2)` : ''}`
      : '';
  return failure(image, evidence, ROOT_STEP, {
    code: 'windows-not-found',
    ...(given.dtb === undefined
      ? { message: `${whatIsNotFound(image)}: no page tables lead to SharedUserData${traces}` }
      : {
          message: `${whatIsNotFound(image)}: the root that --dtb names does not lead to SharedUserData${traces}`,
          hint: 'leave out --dtb: then the root is searched for',
        }),
  });
}

function whatIsNotFound({ format, diagnostics }: MemoryImage): string {
  if (format !== 'raw') return 'no Windows was found in this dump';
  return diagnostics.list.some(({ code }) => code === 'taken-as-raw')
    ? 'taken as raw memory (it has no header that elf2dmp knows), it shows no Windows'
    : 'read as raw memory, it shows no Windows';
}
