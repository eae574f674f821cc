/**
 * x64 unwind data of PE32+ images (Microsoft, "x64 exception handling": struct RUNTIME_FUNCTION, UNWIND_INFO,
 * UNWIND_CODE). RUNTIME_FUNCTION itself is in pe.ts. What that page leaves out, version 2 with its epilog
 * codes, is as the unwinder that Microsoft published with .NET (unwinder/amd64) reads it.
 */
import { struct, u8, u16 } from '../../core/struct.ts';

/** In RUNTIME_FUNCTION.UnwindInfo: it is the RVA (plus one) of another RUNTIME_FUNCTION, whose data holds. */
export const RUNTIME_FUNCTION_INDIRECT = 1;

/** `slots` follow, 2 bytes each, in an even number; then a RUNTIME_FUNCTION if the info is chained. */
export const UnwindInfoHeader = struct({
  name: 'UNWIND_INFO',
  size: 4,
  fields: {
    /** Version in bits 0 to 2, flags in bits 3 to 7. */
    VersionAndFlags: u8(0),
    SizeOfProlog: u8(1),
    CountOfCodes: u8(2),
    /** Register in bits 0 to 3 (0: none), offset in units of 16 bytes in bits 4 to 7. */
    FrameRegisterAndOffset: u8(3),
  },
});

/** In UNWIND_INFO.Flags: a RUNTIME_FUNCTION follows, whose data adds to this. */
export const UNW_FLAG_CHAININFO = 4;

/** A slot that is an operation. */
export const UnwindCode = struct({
  name: 'UNWIND_CODE',
  size: 2,
  fields: {
    /** Offset in the prologue of the instruction behind the one that this describes. */
    CodeOffset: u8(0),
    /** Operation in bits 0 to 3, its information in bits 4 to 7. */
    OperationAndInfo: u8(1),
  },
});

/** A slot that is an operation's operand. */
export const UnwindOperand = struct({ name: 'UNWIND_CODE operand', size: 2, fields: { Value: u16(0) } });

/** Operations of UNWIND_CODE. */
export const UWOP = {
  PUSH_NONVOL: 0,
  ALLOC_LARGE: 1,
  ALLOC_SMALL: 2,
  SET_FPREG: 3,
  SAVE_NONVOL: 4,
  SAVE_NONVOL_FAR: 5,
  /** Version 2; SAVE_XMM, which no compiler wrote for long, in version 1. */
  EPILOG: 6,
  /** Spare in version 2; SAVE_XMM_FAR in version 1. */
  SPARE: 7,
  SAVE_XMM128: 8,
  SAVE_XMM128_FAR: 9,
  PUSH_MACHFRAME: 10,
} as const;

/** Slots that an operation takes; undefined: there is no such operation. */
export function unwindSlots(operation: number, info: number): number | undefined {
  if (operation === UWOP.ALLOC_LARGE) return info === 0 ? 2 : 3;
  return [1, 2, 1, 1, 2, 3, 2, 3, 2, 3, 1][operation];
}

/** What the processor pushes at an interrupt or exception, behind the error code if there is one. */
export const MachineFrame = {
  instructionPointer: 0,
  codeSelector: 8,
  stackPointer: 24,
} as const;
