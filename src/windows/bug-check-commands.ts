/**
 * The debugger's commands that fit a bug check, after Microsoft's public pages on each code and on the commands (Windows
 * driver documentation, November 2025). They hold numbers only, never a guest's text: people paste them.
 */
import { hex } from '../core/units.ts';
import { plainBugCheckCode } from './bug-checks.ts';

/** A command as it is typed, and what it is for. */
export interface DebuggerCommand {
  command: string;
  why: string;
}

/** `{1}` to `{4}` stand for parameters; a command whose parameter is 0 is left out. */
type Template = readonly [command: string, why: string];

const RUNNING: Template = ['!running -it', 'what each processor ran, with its stack'];
const LOCKS: Template = ['!locks', 'who holds resources, and who waits for them'];
const THREAD: Template = ['!thread', 'the thread that crashed'];
const PROCESSES: Template = ['!process 0 0', 'all processes'];
const CONTEXT_3: Template = ['.cxr {3}; k', 'registers and stack where it happened'];
const TRAP_FRAME_3: Template = ['.trap {3}; k', 'registers and stack where it happened'];
const PAGE: Template = ['!pte {1}', 'how the address that was touched is mapped'];
const DISASSEMBLE = (parameter: number): Template => [`ub {${parameter}} L8; u {${parameter}} L2`, 'the code at fault'];
const VERIFIER: Template = ['!verifier 3', 'what Driver Verifier checks, and the allocations of its drivers'];
const POOL_2: Template = ['!pool {2}', 'the block of pool, and what lies before it'];
const PROCESS_1: Template = ['!process {1} 3', 'the process that ended, and its threads'];
const TDR: Template = ['ln {2}', 'the display driver that did not answer'];
const INVALID_ADDRESS = (instruction: number): readonly Template[] => [DISASSEMBLE(instruction), PAGE];

const BY_CODE: ReadonlyMap<number, readonly Template[]> = new Map<number, readonly Template[]>([
  [0xa, INVALID_ADDRESS(4)],
  [0x19, [POOL_2, VERIFIER]],
  [0x1a, [VERIFIER, THREAD]],
  [0x1e, [DISASSEMBLE(2)]],
  [0x24, [['.exr {2}', 'the exception'], CONTEXT_3]],
  [0x3b, [CONTEXT_3, DISASSEMBLE(2)]],
  [0x50, INVALID_ADDRESS(3)],
  [
    0x7e,
    [
      ['.exr {3}', 'the exception'],
      ['.cxr {4}; k', 'registers and stack where it happened'],
    ],
  ],
  [0x7f, [['kf', 'the stack with the size of each frame: a double fault is mostly a stack that is full']]],
  [0x8e, [TRAP_FRAME_3, DISASSEMBLE(2)]],
  [
    0x9f,
    [
      ['!powertriage', 'power requests in progress, and the devices that hold them'],
      ['!devstack {2}', 'the drivers of the device, if parameter 1 is 3'],
      ['!irp {4}', 'the request that does not end, if parameter 1 is 3'],
    ],
  ],
  [0xc2, [['!pool {4}', 'the block of pool, if parameter 1 is 7'], VERIFIER]],
  [0xc4, [VERIFIER]],
  [0xd1, INVALID_ADDRESS(4)],
  [0xe2, [RUNNING, LOCKS, PROCESSES]],
  [0xef, [PROCESS_1]],
  [0xf4, [['!process {2} 3', 'the process that ended, if parameter 1 is 3'], PROCESSES]],
  [0x101, [['dt nt!_KPRCB {3} Number', 'the processor that did not answer'], RUNNING]],
  [0x116, [TDR]],
  [0x117, [TDR]],
  [0x124, [['!errrec {2}', "the hardware's error record"]]],
  [0x133, [['!dpcwatchdog', 'how long DPCs have run'], RUNNING]],
  [
    0x139,
    [
      ['.trap {2}; k', 'registers and stack where it happened'],
      ['.exr {3}', 'the exception'],
    ],
  ],
]);

const OTHERWISE: readonly Template[] = [THREAD, RUNNING];

/** For a guest that ran when it was dumped: what hangs is found by these. */
export const LIVE_COMMANDS: readonly DebuggerCommand[] = [
  RUNNING,
  LOCKS,
  ['!stacks 2', 'the stacks of all threads'] as const,
].map(([command, why]) => ({ command, why }));

/** At most three commands for a crash. */
export function commandsFor(code: number, parameters: readonly bigint[]): DebuggerCommand[] {
  return (BY_CODE.get(plainBugCheckCode(code)) ?? OTHERWISE).flatMap(([template, why]) => {
    const parameterAt = (place: string): bigint => parameters[Number(place.charAt(1)) - 1] ?? 0n;
    const used = template.match(/\{\d\}/g) ?? [];
    if (used.some((place) => parameterAt(place) === 0n)) return [];
    return [{ command: template.replaceAll(/\{\d\}/g, (place) => hex(parameterAt(place))), why }];
  });
}
