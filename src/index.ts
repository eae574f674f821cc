/**
 * elf2dmp: turns a QEMU/KVM memory dump of a Windows guest into a Windows crash dump.
 *
 * ```ts
 * import { convert, convertInPlace, inspect, locate, open, stacks, undoInPlace, verify } from 'elf2dmp';
 *
 * const image = await open('vm.elf');      // physical runs and CPU states
 * const windows = await locate(image);     // kernel, KDBG, processors, with evidence
 * console.log(windows.version.build, windows.kernel.base);
 * image.close();
 *
 * const report = await convert({ input: 'vm.elf', output: 'out.dmp' });
 * const { windows: found } = await inspect({ input: 'vm.elf' }); // as `elf2dmp info`: plain data
 * const { outcome } = await verify({ dump: 'out.dmp', against: 'vm.elf' }); // 'sound', 'unsound' or 'differs'
 *
 * await stacks({ input: 'vm.elf' });        // each processor's stack, without symbols
 * await convertInPlace({ file: 'vm.elf' }); // no copy: vm.elf becomes the dump (ext4, XFS)
 * await undoInPlace({ file: 'vm.elf' });    // and the ELF file again
 * ```
 *
 * All of them throw `Elf2dmpError`.
 */

export { type Diagnostic, Elf2dmpError, type ErrorDetails, type ErrorKind, type Severity } from './core/errors.ts';
export { type LocateOptions, locateWindows as locate } from './locate/locator.ts';
export type { MemoryImage, PhysicalRun } from './memory/image.ts';
export { type ConvertOptions, convert, type Progress } from './operations/convert.ts';
export { convertInPlace, type InPlaceOptions, undoInPlace } from './operations/in-place.ts';
export { type InspectOptions, inspect } from './operations/inspect.ts';
export {
  type StackOptions,
  type StackReport,
  stacks,
} from './operations/stacks.ts';
export { openInput as open } from './readers/input.ts';
export type { ConversionReport, UndoReport } from './report/conversion.ts';
export type { InfoReport } from './report/input.ts';
export type { FrameReport, ProcessorStackReport } from './report/stacks.ts';
export { type VerifyOptions, type VerifyReport, verify } from './verify/verify.ts';
export type { Windows } from './windows/windows.ts';
