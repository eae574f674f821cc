/**
 * From a function of 32-bit code to its caller. Nothing describes where functions keep what: most begin with
 * `push ebp; mov ebp,esp`, so that EBP leads from frame to frame; others use EBP as they like.
 */
import { hex } from '../../core/units.ts';
import type { ReadVirtual } from '../read-virtual.ts';
import type { CodeImage, FrameState, UnwindStep } from '../unwinding.ts';
import { address } from './registers.ts';

const EBP = 5;

/** A frame lies no further above the stack pointer than a kernel stack is large, or some of a user's. */
const MAX_FRAME = 0x1_0000n;

/** Instructions of a function's beginning, up to the one that makes EBP the frame's. */
const PROLOGUE = {
  moveEdi: [0x8b, 0xff],
  pushEbp: [0x55],
  moveEbp: [0x8b, 0xec],
};

/** See `Machine.unwind`. */
export function unwind(from: FrameState, image: CodeImage, read: ReadVirtual): UnwindStep {
  const word = (at: bigint) => {
    const bytes = read(at, 4);
    return bytes && address(BigInt(bytes.readUInt32LE()));
  };
  const { stackPointer: esp, integers } = from;
  const ebp = integers[EBP];
  // Where the code itself shows that the frame is not set up yet, the return address is on top.
  const pushed = pushedBefore(from, image);
  if (pushed !== undefined) {
    const callers = pushed === 0 ? ebp : word(esp);
    return to(word(esp + BigInt(pushed)), { stackPointer: esp + BigInt(pushed + 4), ebp: callers });
  }
  if (ebp === undefined) return { stopped: 'its frame pointer is not known' };
  if (ebp === 0n) return { stopped: 'its frame pointer is 0, as in the first function of a thread' };
  if (ebp % 4n !== 0n || ebp < esp || ebp - esp > MAX_FRAME) {
    return { stopped: `its frame pointer ${hex(BigInt.asUintN(32, ebp))} does not lie above its stack pointer` };
  }
  return to(word(ebp + 4n), { stackPointer: ebp + 8n, ebp: word(ebp) });
}

/** See `Machine.callerOf`. */
export function callerOf({ stackPointer, integers, native }: FrameState, read: ReadVirtual): FrameState | undefined {
  const bytes = read(stackPointer, 4);
  if (!bytes) return undefined;
  const instructionPointer = address(BigInt(bytes.readUInt32LE()));
  return { instructionPointer, stackPointer: stackPointer + 4n, integers, native, afterCall: true };
}

function to(
  instructionPointer: bigint | undefined,
  { stackPointer, ebp }: { stackPointer: bigint; ebp: bigint | undefined },
): UnwindStep {
  if (instructionPointer === undefined) return { stopped: 'the stack that it returns from is not present' };
  const integers: (bigint | undefined)[] = Array.from({ length: 8 }, () => undefined);
  integers[EBP] = ebp;
  return { how: 'frame-pointer', state: { instructionPointer, stackPointer, integers, native: true } };
}

/** Bytes above the return address at a function's first instructions; undefined elsewhere. */
function pushedBefore({ instructionPointer }: FrameState, { base, read }: CodeImage): number | undefined {
  const rva = Number(instructionPointer - base);
  const { moveEdi, pushEbp, moveEbp } = PROLOGUE;
  const isAt = (offset: number, code: readonly number[]) => {
    const bytes = read(rva + offset, code.length);
    return bytes !== undefined && code.every((byte, i) => bytes[i] === byte);
  };
  if (isAt(0, [...moveEdi, ...pushEbp, ...moveEbp]) || isAt(0, [...pushEbp, ...moveEbp])) return 0;
  return isAt(-1, [...pushEbp, ...moveEbp]) ? 4 : undefined;
}
