/**
 * elf2dmp: turns a QEMU/KVM memory dump of a Windows guest into a Windows crash dump.
 *
 * ```ts
 * import { batch, convert, convertInPlace, inspect, openGuest, stacks, undoInPlace, verify } from 'elf2dmp';
 *
 * const guest = await openGuest('vm.elf');  // found once, asked many things
 * const { version, kernel } = guest.windows;
 * await stacks({ input: guest });
 * await convert({ input: guest, output: 'out.dmp' });
 * guest.close();                            // or `await using guest = …`
 *
 * const report = await convert({ input: 'vm.elf', output: 'out.dmp' });
 * const { windows: found } = await inspect({ input: 'vm.elf' }); // as `elf2dmp info`: plain data
 * const { outcome } = await verify({ dump: 'out.dmp', against: 'vm.elf' }); // 'sound', 'unsound' or 'differs'
 *
 * await stacks({ input: 'vm.elf' });        // each processor's stack, without symbols
 * await batch({ inputs: ['/archive'], out: '/dumps' }); // many, several at a time
 * await convertInPlace({ file: 'vm.elf' }); // no copy: vm.elf becomes the dump (ext4, XFS)
 * await undoInPlace({ file: 'vm.elf' });    // and the ELF file again
 * ```
 *
 * All of them throw nothing but `Elf2dmpError`. Options are checked when a function is called: a wrong name or value is
 * an error of kind `usage` before anything is read or written.
 */

import type { BatchOptions } from './batch/batch.ts';
import { type LocateOptions, locateWindows } from './locate/locator.ts';
import { MemoryImage } from './memory/image.ts';
import { convert as convertFile } from './operations/convert.ts';
import { type Guest, type GuestOptions, openGuest as openAndLocate } from './operations/guest.ts';
import {
  convertInPlace as convertFileInPlace,
  type InPlaceOptions,
  undoInPlace as undoFileInPlace,
} from './operations/in-place.ts';
import { inspect as inspectInput } from './operations/inspect.ts';
import { stacks as stacksOf } from './operations/stacks.ts';
import { verify as verifyFile } from './operations/verify.ts';
import { checkInputValue, found } from './options/check.ts';
import { checked, checkedOn } from './options/guard.ts';
import type { InputBytes } from './options/opened.ts';
import { wrongValue } from './options/values.ts';
import { type OpenOptions, openInput } from './readers/input.ts';
import type { Windows } from './windows/windows.ts';

/** Converts one dump. After an error nothing was written under the output's name. */
export const convert = checked('convert', convertFile);

/**
 * Turns an ELF file on ext4 or XFS into a bitmap dump without copying its pages. A journal beside it,
 * `FILE.elf2dmp-undo`, keeps what `undoInPlace` needs. Safe against SIGKILL at any moment, not against power loss.
 * After an error the file is as it was, or the error says that it needs `undoInPlace`.
 */
export const convertInPlace = checked('convertInPlace', (options: InPlaceOptions) => convertFileInPlace(options));

/** Restores a file that was converted in place, byte for byte, and removes the journal. It can be called again. */
export const undoInPlace = checked('undoInPlace', (options: { file: string }) => undoFileInPlace(options));

/**
 * Converts many inputs, each in a process apart, several at a time; jobs that an earlier batch has done are not done
 * again. A job that fails is a result, not an error.
 */
export const batch = checked('batch', async (options: BatchOptions) =>
  // Its code is loaded when it is needed.
  (await import('./batch/batch.ts')).batch(options),
);

/** Describes a dump of any kind that can be read, crash dumps too. */
export const inspect = checked('inspect', inspectInput);

/** The stack of each processor, without symbols. */
export const stacks = checked('stacks', stacksOf);

/** Checks a crash dump, by itself or against the input that it was made from. */
export const verify = checked('verify', verifyFile);

/**
 * Opens a dump and finds Windows in it, once for everything that is asked of it: `convert`, `inspect`, `stacks` and
 * `verify` take the guest instead of a path. It has to be closed, by `close` or `await using`.
 */
export const openGuest: (input: string | InputBytes, options?: GuestOptions) => Promise<Guest> = checkedOn(
  'openGuest',
  (input) => checkInputValue('openGuest: input', input),
  openAndLocate,
);

/**
 * Opens an input: a file, a compressed file, a pipe, or `-` for standard input. Streams and compressed files are
 * written to a temporary file first. The image has to be closed.
 */
export const open: (input: string | InputBytes, options?: OpenOptions) => Promise<MemoryImage> = checkedOn(
  'open',
  (input) => checkInputValue('open: input', input),
  openInput,
);

/** Finds Windows in an image. Where the image has alternatives, the result's `image` is the right one. */
export const locate: (image: MemoryImage, options?: LocateOptions) => Promise<Windows> = checkedOn(
  'locate',
  (image) => {
    if (!(image instanceof MemoryImage)) throw wrongValue('locate: image', 'an image that open() gave', found(image));
  },
  locateWindows,
);

export type { BatchOptions, BatchOverride, BatchReport } from './batch/batch.ts';
export type { CrashGroup } from './batch/crashes.ts';
export type { BatchJob, Shard } from './batch/plan.ts';
export type { BatchEvent, JobResult } from './batch/run.ts';
export type { JobError, JobRecord } from './batch/sidecar.ts';
export { type Diagnostic, Elf2dmpError, type ErrorDetails, type ErrorKind, type Severity } from './core/errors.ts';
export type { LocateOptions } from './locate/locator.ts';
export type { MemoryImage } from './memory/image.ts';
export type { PhysicalRun } from './memory/runs.ts';
export type { ConvertOptions, Progress } from './operations/convert.ts';
export type { Guest, GuestOptions, Input } from './operations/guest.ts';
export type { InPlaceOptions } from './operations/in-place.ts';
export type { InspectOptions } from './operations/inspect.ts';
export type { StackOptions } from './operations/stacks.ts';
export type { VerifyOptions, VerifyReport } from './operations/verify.ts';
export type { InputBytes } from './options/opened.ts';
export type { JobCallOptions, RawRange } from './options/values.ts';
export type { OpenOptions } from './readers/input.ts';
export type { ConversionReport, UndoReport } from './report/conversion.ts';
export type { ErrorReport, FailureReport } from './report/failure.ts';
export type { InfoReport, InputReport } from './report/input.ts';
export type { CodePlace, ProcessorReport, SourceReport, SymbolReport } from './report/processors.ts';
export type { FrameReport } from './report/stack-frames.ts';
export type { ProcessorStackReport, StackReport } from './report/stacks.ts';
export type { WindowsInfo, WindowsReport } from './report/windows.ts';
export type { Signature } from './windows/signature.ts';
export type { Windows } from './windows/windows.ts';
