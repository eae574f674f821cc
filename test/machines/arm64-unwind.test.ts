// Steps up ARM64 stacks by literal unwind data. That whole functions of a compiler are unwound as the debugger does it,
// test/operations/arm64-debugger.test.ts shows.
import { describe, expect, it } from 'vitest';
import { ARM64 } from '../../src/machines/arm64/index.ts';
import type { CodeImage, FrameState } from '../../src/machines/unwinding.ts';

const BASE = 0xfffff806_86030000n;
const STACK = 0xffff9700_12340000n;
const BEGIN = 0x1000;

/** Each word of the stack says where it is: what was read from where. */
const stackWord = (offset: number) => 0xfffff806_86000000n + BigInt(offset);
const read = (address: bigint, length: number): Buffer | undefined => {
  const offset = Number(address - STACK);
  if (offset < 0 || offset + length > 0x4000) return undefined;
  const bytes = Buffer.alloc(length);
  for (let at = 0; at + 8 <= length; at += 8) bytes.writeBigUInt64LE(stackWord(offset + at), at);
  return bytes;
};

const FP = 0x800;

/** The step from an instruction of a function with this unwind data. */
function step(
  unwindInfo: number,
  at: number,
  more: { length?: number; xdata?: Buffer; from?: Partial<FrameState> } = {},
) {
  const { length = 64, xdata, from } = more;
  const image: CodeImage = {
    base: BASE,
    size: 0x8000,
    read: (rva, count) => {
      const bytes = xdata && rva >= 0x7000 ? xdata.subarray(rva - 0x7000, rva - 0x7000 + count) : undefined;
      return bytes?.length === count ? bytes : undefined;
    },
    functionAt: (rva) =>
      rva >= BEGIN && rva < BEGIN + length ? { begin: BEGIN, end: BEGIN + length, unwindInfo } : undefined,
  };
  const integers: (bigint | undefined)[] = Array.from({ length: 31 }, (_, i) => BigInt(i));
  integers[29] = STACK + BigInt(FP);
  integers[30] = 0xfffff806_8603abc0n;
  const state = { instructionPointer: BASE + BigInt(BEGIN + at), stackPointer: STACK, integers, native: true, ...from };
  return ARM64.unwind(state, image, read);
}

/** SP, return address and registers of a step, as offsets in the stack; what no memory gave as it is. */
function seen(result: ReturnType<typeof step>) {
  if ('stopped' in result) return result.stopped;
  const { how, state } = result;
  const known = state.integers.flatMap((value, i) => {
    const offset = value === undefined ? -1n : value - stackWord(0);
    return i >= 19 && offset >= 0n && offset < 0x4000n ? [`x${i}@${offset}`] : [];
  });
  const lr = state.instructionPointer - stackWord(0);
  return [how, Number(state.stackPointer - STACK), lr < 0x4000n ? `@${lr}` : 'lr', ...known].join(' ');
}

const packed = (v: {
  length?: number;
  regF?: number;
  regI?: number;
  h?: number;
  cr?: number;
  frame?: number;
  flag?: number;
}) =>
  ((v.flag ?? 1) |
    (v.length ?? 64) |
    ((v.regF ?? 0) << 13) |
    ((v.regI ?? 0) << 16) |
    ((v.h ?? 0) << 20) |
    ((v.cr ?? 0) << 21) |
    (((v.frame ?? 0) / 16) << 23)) >>>
  0;

describe('packed unwind data of ARM64', () => {
  it('of a chained function: in its body, prologue and epilogue', () => {
    // stp fp, lr, [sp, #-48]!; mov fp, sp; …; ldp fp, lr, [sp], #48; ret
    const data = packed({ cr: 3, frame: 48 });
    const at = (offset: number) => seen(step(data, offset));
    expect([at(0), at(4), at(8), at(32)]).toEqual([
      'unwound 0 lr',
      'unwound 48 @8 x29@0',
      `unwound ${FP + 48} @${FP + 8} x29@${FP}`,
      `unwound ${FP + 48} @${FP + 8} x29@${FP}`,
    ]);
    expect([at(56), at(60)]).toEqual(['unwound 48 @8 x29@0', 'unwound 0 lr']);
  });

  it('of a function that saves registers in pairs, and LR with the last', () => {
    // stp x19, x20, [sp, #-32]!; stp x21, lr, [sp, #16]; sub sp, sp, #16
    const data = packed({ regI: 3, cr: 1, frame: 48 });
    expect(seen(step(data, 16))).toBe('unwound 48 @40 x19@16 x20@24 x21@32');
    expect(seen(step(data, 8))).toBe('unwound 32 @24 x19@0 x20@8 x21@16');
    expect(seen(step(data, 4))).toBe('unwound 32 lr x19@0 x20@8');
    expect(seen(step(data, 0))).toBe('unwound 0 lr');
    // add sp; ldp x21, lr; ldp x19, x20; ret
    expect([48, 52, 56, 60].map((at) => seen(step(data, at)))).toEqual([
      'unwound 48 @40 x19@16 x20@24 x21@32',
      'unwound 32 @24 x19@0 x20@8 x21@16',
      'unwound 32 lr x19@0 x20@8',
      'unwound 0 lr',
    ]);
  });

  it('of one that saves LR alone, or with one register', () => {
    expect(seen(step(packed({ cr: 1, frame: 16 }), 8))).toBe('unwound 16 @0');
    expect(seen(step(packed({ regI: 1, cr: 1, frame: 16 }), 16))).toBe('unwound 16 @8 x19@0');
    expect(seen(step(packed({ regI: 1, cr: 1, frame: 16 }), 4))).toBe('unwound 16 lr');
  });

  it('of one with vector registers, parameters and a large frame', () => {
    // 2 integers, 3 vectors, 8 parameters: 16 + 24 + 64 bytes, in 112; 5,008 more in two steps.
    const data = packed({ regI: 2, regF: 2, h: 1, frame: 5120 });
    expect(seen(step(data, 40))).toBe('unwound 5120 lr x19@5008 x20@5016');
    expect(seen(step(data, 32))).toBe('unwound 4192 lr x19@4080 x20@4088');
    expect(seen(step(data, 12))).toBe('unwound 112 lr x19@0 x20@8');
  });

  it('of a signed return address', () => {
    const data = packed({ cr: 2, frame: 32 });
    const signed = { integers: [...Array(29).fill(0n), STACK, 0x12bf_f806_8603_abc0n] };
    expect(step(data, 4, { from: signed })).toMatchObject({ state: { instructionPointer: 0xffff_f806_8603_abc0n } });
    expect(seen(step(data, 16))).toBe(`unwound ${FP + 32} @${FP + 8} x29@${FP}`);
  });

  it('of a part of a function: never in a prologue', () => {
    expect(seen(step(packed({ flag: 2, cr: 3, frame: 48 }), 0))).toBe(`unwound ${FP + 48} @${FP + 8} x29@${FP}`);
  });

  it.each([
    ['flag 3', packed({ flag: 3 }), 'its packed unwind data is not one'],
    ['11 registers', packed({ regI: 11 }), 'its packed unwind data is not one'],
    ['a frame that is too small', packed({ regI: 4, frame: 16 }), 'a frame smaller than what it saves'],
  ])('is refused with %s', (_, data, message) => {
    expect(seen(step(data, 8))).toContain(message);
  });
});

/** An .xdata record with one epilogue at the end, whose codes begin at `epilogue`, or with scopes. */
function xdata(
  codes: readonly number[],
  more: { epilogue?: number; scopes?: readonly number[]; extended?: boolean } = {},
) {
  const { epilogue, scopes = [], extended } = more;
  const padded = [...codes, ...Array(-codes.length & 3).fill(0xe3)];
  const words = padded.length / 4;
  const field = epilogue ?? scopes.length;
  const head = Buffer.alloc(extended ? 8 : 4);
  head.writeUInt32LE(
    (16 | (epilogue === undefined ? 0 : 1 << 21) | (extended ? 0 : (field << 22) | (words << 27))) >>> 0,
    0,
  );
  if (extended) head.writeUInt32LE(field | (words << 16), 4);
  const list = Buffer.alloc(4 * scopes.length);
  scopes.forEach((word, i) => {
    list.writeUInt32LE(word >>> 0, 4 * i);
  });
  return Buffer.concat([head, list, Buffer.from(padded)]);
}

describe('.xdata of ARM64', () => {
  const at = (bytes: Buffer, offset: number, from?: Partial<FrameState>) =>
    seen(step(0x7000, offset, { xdata: bytes, ...(from && { from }) }));

  it.each([
    ['alloc_s', [0x02, 0xe4], 'unwound 32 lr'],
    ['alloc_m', [0xc1, 0x02, 0xe4], 'unwound 4128 lr'],
    ['alloc_l', [0xe0, 0x00, 0x00, 0x03, 0xe4], 'unwound 48 lr'],
    ['save_r19r20_x', [0x24, 0xe4], 'unwound 32 lr x19@0 x20@8'],
    ['save_fplr', [0x42, 0xe4], 'unwound 0 @24 x29@16'],
    ['save_fplr_x', [0x81, 0xe4], 'unwound 16 @8 x29@0'],
    ['save_regp', [0xc8, 0x82, 0xe4], 'unwound 0 lr x21@16 x22@24'],
    ['save_regp_x', [0xcc, 0x83, 0xe4], 'unwound 32 lr x21@0 x22@8'],
    ['save_reg', [0xd0, 0xc5, 0xe4], 'unwound 0 lr x22@40'],
    ['save_reg_x', [0xd4, 0x61, 0xe4], 'unwound 16 lr x22@0'],
    ['save_lrpair', [0xd6, 0x82, 0xe4], 'unwound 0 @24 x23@16'],
    ['save_fregp', [0xd8, 0x42, 0xe4], 'unwound 0 lr'],
    ['save_fregp_x', [0xda, 0x43, 0xe4], 'unwound 32 lr'],
    ['save_freg', [0xdc, 0x42, 0xe4], 'unwound 0 lr'],
    ['save_freg_x', [0xde, 0x43, 0xe4], 'unwound 32 lr'],
    ['set_fp', [0xe1, 0xe4], `unwound ${FP} lr`],
    ['add_fp', [0xe2, 0x04, 0xe4], `unwound ${FP - 32} lr`],
    ['nop', [0xe3, 0x01, 0xe4], 'unwound 16 lr'],
    ['save_next, twice', [0xe6, 0xe6, 0x26, 0xe4], 'unwound 48 lr x19@0 x20@8 x21@16 x22@24 x23@32 x24@40'],
    ['save_any_reg: one', [0xe7, 0x19, 0x02, 0xe4], 'unwound 0 lr x25@16'],
    ['save_any_reg: a pair, pre-indexed', [0xe7, 0x79, 0x01, 0xe4], 'unwound 32 lr x25@0 x26@8'],
    ['an unknown code', [0xdf, 0x01, 0xe4], 'the unwind data at RVA 0x7000 has the unknown code 0xdf'],
    ['no end', [0x01, 0x01, 0x01, 0x01], 'the unwind data at RVA 0x7000 has no end'],
    ['the frame of ARM64EC', [0xeb, 0xe4], 'it is the frame of emulated x64 code (ARM64EC)'],
    ['a next pair of nothing', [0xe6, 0xd0, 0xc5, 0xe4], 'its unwind data saves a next pair where there is no pair'],
  ])('%s', (_, codes, expected) => {
    expect(at(xdata(codes), 48)).toBe(expected);
  });

  it('has epilogues of its own, at the end or where its scopes say', () => {
    // Prologue: stp fp, lr, [sp, #-16]!; sub sp, sp, #32. Epilogue: the same backwards, at the end.
    const one = xdata([0x02, 0x81, 0xe4], { epilogue: 0 });
    expect([0, 4, 8, 48, 52, 56, 60].map((offset) => at(one, offset))).toEqual([
      'unwound 0 lr',
      'unwound 16 @8 x29@0',
      'unwound 48 @40 x29@32',
      'unwound 48 @40 x29@32',
      'unwound 48 @40 x29@32',
      'unwound 16 @8 x29@0',
      'unwound 0 lr',
    ]);
    const scoped = xdata([0x02, 0x81, 0xe4, 0x81, 0xe4], { scopes: [8 | (3 << 22)] });
    expect([28, 32, 36, 40].map((offset) => at(scoped, offset))).toEqual([
      'unwound 48 @40 x29@32',
      'unwound 16 @8 x29@0',
      'unwound 0 lr',
      'unwound 48 @40 x29@32',
    ]);
    const extended = xdata([0x02, 0x81, 0xe4, 0x81, 0xe4], { scopes: [8 | (3 << 22)], extended: true });
    expect(at(extended, 32)).toBe('unwound 16 @8 x29@0');
  });

  it('of a part of a function begins where another prologue ended', () => {
    const part = xdata([0xe5, 0x02, 0x81, 0xe4]);
    expect(at(part, 0)).toBe('unwound 48 @40 x29@32');
  });

  it('leads through trap frames, machine frames and contexts', () => {
    const trap = step(0x7000, 0, { xdata: xdata([0x01, 0xe8, 0xe4]) });
    // In its prologue: the frame is there, what the instructions do is not.
    expect(trap).toMatchObject({
      how: 'trap',
      state: { stackPointer: stackWord(0x98), instructionPointer: stackWord(0x148), afterCall: false },
    });
    const { state } = trap as { state: FrameState };
    expect([0, 18, 19, 29, 30].map((i) => state.integers[i])).toEqual([
      stackWord(0xa0),
      stackWord(0x130),
      19n,
      stackWord(0x140),
      stackWord(0x138),
    ]);
    expect(step(0x7000, 48, { xdata: xdata([0x01, 0xe9, 0xe4]) })).toMatchObject({
      how: 'trap',
      state: { stackPointer: stackWord(16), instructionPointer: stackWord(24) },
    });
    expect(step(0x7000, 48, { xdata: xdata([0xea, 0xe4]) })).toMatchObject({
      how: 'trap',
      state: { stackPointer: stackWord(0x100), instructionPointer: stackWord(0x108) },
    });
  });

  it('that is not in memory is said', () => {
    expect(seen(step(0x7000, 8))).toBe('the unwind data at RVA 0x7000 is not in memory');
    expect(at(xdata([0x01, 0xe4]).subarray(0, 4), 8)).toContain('are not in memory');
    const second = xdata([0x01, 0xe4]);
    second.writeUInt32LE(second.readUInt32LE(0) | (1 << 18), 0);
    expect(at(second, 8)).toBe('the unwind data at RVA 0x7000 has version 1');
  });
});

describe('a step up an ARM64 stack', () => {
  it('from a leaf is to LR, and a caller is no leaf that knows it', () => {
    expect(seen(step(0, 0x100))).toBe('leaf 0 lr');
    const result = step(packed({ frame: 16 }), 16) as { state: FrameState };
    expect(result.state.integers[30]).toBeUndefined();
    expect(seen(step(packed({ frame: 16 }), 16, { from: { integers: result.state.integers } }))).toBe(
      'its return address (lr) is not known',
    );
  });

  it('from a return address is from the call before it', () => {
    // Behind the last instruction of the function.
    expect(seen(step(packed({ cr: 3, frame: 48, length: 64 }), 64, { from: { afterCall: true } }))).toBe(
      'unwound 0 lr',
    );
    expect(seen(step(packed({ cr: 3, frame: 48, length: 64 }), 64))).toBe('leaf 0 lr');
  });

  it('stops where its stack is not in memory, or goes down', () => {
    expect(seen(step(packed({ cr: 1, frame: 16 }), 8, { from: { stackPointer: 0x1000n } }))).toBe(
      'the stack at 0x1000 is not in memory',
    );
    expect(seen(step(packed({ frame: 16 }), 3))).toContain('within an instruction');
  });
});
