/** What a crash keeps of the code at fault: trap frames, CONTEXTs and exception records, by literal offsets (ntddk.h, winnt.h). */
import { buildGuest, FAULT_AT, type Guest } from './guest.ts';

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
