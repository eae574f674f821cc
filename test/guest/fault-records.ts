/** What a crash keeps of the code at fault: trap frames, CONTEXTs and exception records, by literal offsets (ntddk.h, winnt.h). */
import { type Arm64Guest, buildArm64Guest } from './arm64.ts';
import { buildGuest, FAULT_AT, type Guest } from './guest.ts';
import { buildGuest32, type Guest32 } from './x86/guest.ts';

/** Registers at a fault; those that are not given are made up. */
export interface FaultRegisters {
  rip: bigint;
  rsp: bigint;
  rbp?: bigint;
  /** CR2, of a page fault. */
  faultAddress?: bigint;
}

type Kernel = Pick<Guest['kernel'], 'write'>;

const MADE_UP = (name: string): bigint =>
  0xc0de_0000_0000n + BigInt(name.charCodeAt(1) * 256 + name.charCodeAt(name.length - 1));

/** Registers that the debugger shows with `.trap`. */
export const trapRegisters = ({ rip, rsp, rbp = MADE_UP('rbp') }: FaultRegisters): Record<string, bigint> => ({
  rax: MADE_UP('rax'),
  rcx: MADE_UP('rcx'),
  rdx: MADE_UP('rdx'),
  rip,
  rsp,
  rbp,
  r8: MADE_UP('r8'),
  r9: MADE_UP('r9'),
  r10: MADE_UP('r10'),
  r11: MADE_UP('r11'),
});

/** KTRAP_FRAME of kernel code, 0x190 bytes. */
export function writeTrapFrame(kernel: Kernel, at: bigint, registers: FaultRegisters): void {
  const frame = Buffer.alloc(0x190);
  const all = trapRegisters(registers);
  const offsets = {
    rax: 0x30,
    rcx: 0x38,
    rdx: 0x40,
    r8: 0x48,
    r9: 0x50,
    r10: 0x58,
    r11: 0x60,
    rbp: 0x158,
    rip: 0x168,
    rsp: 0x180,
  };
  for (const [name, offset] of Object.entries(offsets)) frame.writeBigUInt64LE(all[name]!, offset);
  frame.writeUInt32LE(0x1f80, 0x2c);
  frame.writeBigUInt64LE(registers.faultAddress ?? 0n, 0xd0);
  frame.writeUInt16LE(0x10, 0x170);
  frame.writeUInt32LE(0x10246, 0x178);
  frame.writeUInt16LE(0x18, 0x188);
  kernel.write(at, frame);
}

/** CONTEXT of x64. */
export function writeContext(kernel: Kernel, at: bigint, registers: FaultRegisters): void {
  const context = Buffer.alloc(0x4d0);
  context.writeUInt32LE(0x10005f, 0x30);
  context.writeUInt32LE(0x1f80, 0x34);
  context.writeUInt16LE(0x10, 0x38);
  [0x2b, 0x2b, 0x53, 0x2b, 0x18].forEach((selector, i) => {
    context.writeUInt16LE(selector, 0x3a + 2 * i);
  });
  context.writeUInt32LE(0x10246, 0x44);
  const { rax, rcx, rdx, rsp, rbp, r8, r9, r10, r11, rip } = trapRegisters(registers);
  const words = [
    rax,
    rcx,
    rdx,
    0xb0b0n,
    rsp,
    rbp,
    0x5151n,
    0xd1d1n,
    r8,
    r9,
    r10,
    r11,
    0x1212n,
    0x1313n,
    0x1414n,
    0x1515n,
    rip,
  ];
  words.forEach((word, i) => {
    context.writeBigUInt64LE(word!, 0x78 + 8 * i);
  });
  context.writeUInt32LE(0x1f80, 0x118);
  kernel.write(at, context);
}

/** EXCEPTION_RECORD of a 64-bit system. */
export function writeExceptionRecord(
  kernel: Kernel,
  at: bigint,
  { code, address }: { code: number; address: bigint },
): void {
  const record = Buffer.alloc(0x98);
  record.writeUInt32LE(code, 0);
  record.writeBigUInt64LE(address, 0x10);
  kernel.write(at, record);
}

/** Crashes that keep the registers of DemoDispatch at its fault. */
export const RECORDS = {
  'trap frame on the stack, 0xD1': { code: 0xd1, parameters: ({ at }) => [0x10n, 2n, 0n, at] },
  'trap frame on the stack, 0x1E': { code: 0x1e, parameters: ({ at }) => [0xffffffff_c0000005n, at, 0n, 0x10n] },
  'trap frame that 0x139 names': { code: 0x139, parameters: ({ trap, exception }) => [3n, trap, exception, 0n] },
  'trap frame that 0x8E names': { code: 0x8e, parameters: ({ at, trap }) => [0xc0000005n, at, trap, 0n] },
  'CONTEXT that 0x3B names': { code: 0x3b, parameters: ({ at, context }) => [0xc0000005n, at, context, 0n] },
  'CONTEXT that 0x7E names': {
    code: 0x1000007e,
    parameters: ({ at, exception, context }) => [0xffffffff_c0000005n, at, exception, context],
  },
  'CONTEXT that 0x27 names': {
    code: 0x27,
    parameters: ({ exception, context }) => [0xbaad0073n, exception, context, 0n],
  },
  'trap frame of a call to nowhere': { code: 0xd1, parameters: () => [0n, 2n, 8n, 0n] },
} as const satisfies Record<string, { code: number; parameters: (places: Places) => Parameters }>;

type Parameters = readonly [bigint, bigint, bigint, bigint];

interface Places {
  /** Of the instruction at fault. */
  at: bigint;
  trap: bigint;
  exception: bigint;
  context: bigint;
  /** The interrupted stack pointer. */
  rsp: bigint;
}

/** Where a call leaves off in the guest's functions. */
const AFTER_CALL = 9n;

/** DemoDispatch has `call rax` where it would fault, with 0 in RAX. */
function callNowhere(kernel: Guest['kernel'], { at, trap, rsp }: Places): void {
  kernel.write(at, Buffer.from('ffd0', 'hex'));
  // The call has pushed its return address.
  writeTrapFrame(kernel, trap - 0x10n, { rip: 0n, rsp: rsp - 8n, faultAddress: 0n });
  kernel.u64(rsp - 8n, at + 2n);
}

/**
 * A guest whose stack no unwinding leads up: KeBugCheckEx returns to nothing. Above it are the records, and what DemoDispatch
 * was called by: IoCallDriver, which KiSystemServiceExit called.
 */
export function faultingGuest(
  name: keyof typeof RECORDS,
  change: (guest: Guest, places: Places) => void = () => undefined,
): { guest: Guest; places: Places } {
  const at = FAULT_AT.DemoDispatch;
  const { code, parameters } = RECORDS[name];
  const crash = { code, processor: 1, fault: 'DemoDispatch' as const };
  const first = buildGuest({ crash: { ...crash, parameters: [0n, 0n, 0n, 0n] } });
  const top = (first.truth.captured!.rsp - 0x3000n) & ~0xfn;
  const trap = top + 0x800n;
  const places: Places = { at, trap, exception: top + 0x1000n, context: top + 0x1100n, rsp: trap + 0x190n };
  const guest = buildGuest({ crash: { ...crash, parameters: parameters(places) } });
  const { kernel, truth } = guest;
  kernel.u64(truth.processors[1]!.context + 0x98n, top);
  // The stack that leads there by unwind data, gone.
  kernel.write(top, Buffer.alloc(Number(truth.captured!.rsp - top) + 0x180));
  writeTrapFrame(kernel, trap, { rip: at, rsp: places.rsp, faultAddress: 0x10n });
  writeExceptionRecord(kernel, places.exception, { code: 0xc0000005, address: at });
  writeContext(kernel, places.context, { rip: at, rsp: places.rsp });
  const callers = ['IoCallDriver', 'KiSystemServiceExit'].map((caller) => truth.exports.get(caller)! + AFTER_CALL);
  callers.forEach((caller, i) => {
    kernel.u64(places.rsp + 0x28n + BigInt(0x30 * i), caller);
  });
  if (name === 'trap frame of a call to nowhere') callNowhere(kernel, places);
  change(guest, places);
  return { guest, places };
}

/** An ARM64 guest whose 0x139 names a trap frame (as the debugger's engine reads it) and an exception record. */
export function faultingArm64Guest(): { guest: Arm64Guest; frame: bigint; pc: bigint; sp: bigint } {
  const crash = { code: 0x139, processor: 1 };
  const first = buildArm64Guest({ processors: 2, crash: { ...crash, parameters: [0n, 0n, 0n, 0n] } });
  const sp = first.truth.captured!.sp;
  const frame = (sp - 0x800n) & ~0xfn;
  const record = frame + 0x200n;
  const guest = buildArm64Guest({ processors: 2, crash: { ...crash, parameters: [2n, frame, record, 0n] } });
  const { kernel, truth } = guest;
  const pc = truth.exports.get('KeBugCheckEx')!;
  const bytes = Buffer.alloc(0x150);
  // PSTATE of EL1t, SP, X0 to X18, LR, FP, PC.
  bytes.writeUInt32LE(0x80000144, 0x90);
  bytes.writeBigUInt64LE(sp, 0x98);
  for (let i = 0; i < 19; i++) bytes.writeBigUInt64LE(0xc0de_0000_0000n + BigInt(i), 0xa0 + 8 * i);
  bytes.writeBigUInt64LE(truth.exports.get('KeBugCheck')! + 12n, 0x138);
  bytes.writeBigUInt64LE(sp, 0x140);
  bytes.writeBigUInt64LE(pc, 0x148);
  kernel.write(frame, bytes);
  writeExceptionRecord(kernel, record, { code: 0xc0000409, address: pc });
  return { guest, frame, pc, sp };
}

/** In the 32-bit guest: where DemoDispatch faults. */
const DEMO_32 = 0x8a460003;

/** What Windows puts into each trap frame of a 32-bit system. */
export const TRAP_MARK_32 = 0xbadb0d00;

/** A 32-bit guest with a trap frame, which 0x8E names, and which is on the stack of the crash for 0xD1. */
export function faultingGuest32(
  code: 0x8e | 0xd1,
  mark = TRAP_MARK_32,
): { guest: Guest32; frame: number; eip: number } {
  const parametersAt = (frame: number) =>
    code === 0x8e ? ([0xc0000005, DEMO_32, frame, 0] as const) : ([0x10, 2, 0, DEMO_32] as const);
  const guestAt = (frame: number) =>
    buildGuest32({ build: 'win7', crash: { code, parameters: parametersAt(frame), processor: 1 } });
  const { esp } = guestAt(0).truth.captured!;
  const frame = esp - (esp % 0x1000) + 0x80;
  const guest = guestAt(frame);
  const bytes = Buffer.alloc(0x74);
  // DbgArgMark; EDX, ECX, EAX; EDI, ESI, EBX, EBP; EIP, CS, EFLAGS.
  const words = { 8: mark, 60: 0xd, 64: 0xc, 68: 0xa, 84: 0xd1, 88: 0x51, 92: 0xb, 96: frame + 0xa0 };
  for (const [offset, value] of Object.entries({ ...words, 104: DEMO_32, 108: 8, 112: 0x10246 })) {
    bytes.writeUInt32LE(value, Number(offset));
  }
  guest.kernel.write(frame, bytes);
  // The stack of the crash begins below.
  guest.kernel.u32(guest.truth.processors[1]!.context + 0xc4, frame - 0x40);
  return { guest, frame, eip: DEMO_32 };
}
