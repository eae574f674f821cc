// The unwinder with recipes: unwind data, code and stack as bytes, and what comes of them. Registers are numbered
// as instructions encode them: rax rcx rdx rbx rsp rbp rsi rdi r8 … r15.

import { describe, expect, it } from 'vitest';
import type { CodeImage, FrameState, FunctionEntry, UnwindStep } from '../../src/machines/unwinding.ts';
import { endsWithCall, unwind } from '../../src/machines/x64/unwind.ts';
import fc from '../support/properties.ts';

const BASE = 0xfffff804_10000000n;
const STACK = 0xffffa580_00001000n;
const RETURN = 0xfffff804_10003333n;

interface Recipe {
  /** UNWIND_INFO at RVA 0x2000, hex. */
  info?: string;
  /** Further bytes of the image, hex by RVA. */
  more?: Record<number, string>;
  /** The function's code at RVA 0x1000, hex. */
  code?: string;
  /** RVA of the instruction pointer. */
  at?: number;
  functions?: FunctionEntry[] | 'missing';
  /** Words on the stack from RSP up. */
  stack?: readonly bigint[];
  /** Words of the stack below RSP. */
  below?: number;
  integers?: Record<number, bigint>;
}

const FUNCTION: FunctionEntry = { begin: 0x1000, end: 0x1100, unwindInfo: 0x2000 };

function step(recipe: Recipe): UnwindStep {
  const memory = Buffer.alloc(0x4000);
  const put = (rva: number, hex: string) => Buffer.from(hex.replaceAll(' ', ''), 'hex').copy(memory, rva);
  // Bytes that no epilogue begins with.
  memory.fill(0x90, 0x1000, 0x1200);
  put(0x2000, recipe.info ?? '');
  put(recipe.at ?? 0x1080, recipe.code ?? '');
  for (const [rva, hex] of Object.entries(recipe.more ?? {})) put(Number(rva), hex);
  const image: CodeImage = {
    base: BASE,
    size: memory.length,
    read: (rva, length) => (rva + length <= memory.length ? memory.subarray(rva, rva + length) : undefined),
    functionAt: (rva) => {
      const functions = recipe.functions ?? [FUNCTION];
      return functions === 'missing' ? 'missing' : functions.find((f) => rva >= f.begin && rva < f.end);
    },
  };
  const words = recipe.stack ?? [];
  const integers = Array.from({ length: 16 }, (_, i) => recipe.integers?.[i] ?? BigInt(0x1000 + i));
  const rsp = STACK + BigInt(8 * (recipe.below ?? 0));
  integers[4] = rsp;
  const state: FrameState = {
    instructionPointer: BASE + BigInt(recipe.at ?? 0x1080),
    stackPointer: rsp,
    integers,
    native: true,
  };
  return unwind(state, image, (address, length) => {
    const bytes = Buffer.alloc(8 * words.length);
    words.forEach((word, i) => {
      bytes.writeBigUInt64LE(word, 8 * i);
    });
    const offset = Number(address - STACK);
    return address >= STACK && offset + length <= bytes.length ? bytes.subarray(offset, offset + length) : undefined;
  });
}

/** RIP, how far RSP moved, and the registers asked for. */
function seen(result: UnwindStep, ...registers: number[]): unknown {
  if ('stopped' in result) return result.stopped;
  const { instructionPointer, stackPointer, integers } = result.state;
  return [result.how, instructionPointer, Number(stackPointer - STACK), ...registers.map((r) => integers[r])];
}

const words = (count: number, at: Record<number, bigint> = {}): bigint[] =>
  Array.from({ length: count }, (_, i) => at[i] ?? BigInt(0xbad00 + i));

describe('prologues', () => {
  it('a leaf function has its return address on top', () => {
    expect(seen(step({ functions: [], stack: [RETURN] }), 3)).toEqual(['leaf', RETURN, 8, 0x1003n]);
  });

  it('pushes and a small allocation', () => {
    // push rbx; push r14; sub rsp, 28h
    const info = '01 07 03 00 07 42 03 e0 01 30 0000';
    const stack = words(8, { 5: 0xe14n, 6: 0xb3n, 7: RETURN });
    expect(seen(step({ info, stack }), 3, 14)).toEqual(['unwound', RETURN, 64, 0xb3n, 0xe14n]);
  });

  it.each([
    ['before the first instruction', 0x1000, 0, [0x1003n, 0x100en]],
    ['behind the first push', 0x1001, 1, [7n, 0x100en]],
    ['behind both', 0x1003, 2, [8n, 7n]],
    ['behind the allocation', 0x1007, 7, [13n, 12n]],
  ])('in the prologue, %s', (_, at, slots, registers) => {
    const info = '01 07 03 00 07 42 03 e0 01 30 0000';
    const stack = words(9).map((_word, i) => (i === slots ? RETURN : BigInt(7 + i)));
    expect(seen(step({ info, at, stack }), 3, 14)).toEqual(['unwound', RETURN, 8 * slots + 8, ...registers]);
  });

  it('large allocations, in both sizes', () => {
    expect(seen(step({ info: '01 07 02 00 07 01 2000', stack: words(33, { 32: RETURN }) }))).toEqual([
      'unwound',
      RETURN,
      33 * 8,
    ]);
    expect(seen(step({ info: '01 07 03 00 07 11 0801 0000 0000', stack: words(34, { 33: RETURN }) }))).toEqual([
      'unwound',
      RETURN,
      34 * 8,
    ]);
  });

  it('registers saved behind the allocation, near and far, and XMM registers that are passed over', () => {
    // sub rsp, 58h; mov [rsp+40h], rsi; mov [rsp+48h], rdi (far); movaps [rsp+20h], xmm6; the same far
    const info = '01 18 0b 00 18 69 2000 0000 14 68 0200 10 75 4800 0000 0a 64 0800 05 a2 0000';
    const stack = words(12, { 8: 0x51n, 9: 0xd1n, 11: RETURN });
    expect(seen(step({ info, stack }), 6, 7)).toEqual(['unwound', RETURN, 96, 0x51n, 0xd1n]);
  });

  it('a register saved beyond 64 KiB', () => {
    // sub rsp, 10018h; mov [rsp+10008h], rsi
    const info = '01 10 06 00 10 65 0800 0100 07 11 1800 0100';
    expect(seen(step({ info, stack: words(0x2004, { 8193: 0x51n, 8195: RETURN }) }), 6)).toEqual([
      'unwound',
      RETURN,
      0x10020,
      0x51n,
    ]);
  });

  it('a frame pointer with an offset, where RSP has moved on', () => {
    // push rbp; sub rsp, 30h; lea rbp, [rsp+20h]; registers saved count from RBP - 20h
    const info = '01 0a 05 25 0f 64 0100 0a 03 05 52 01 50 0000';
    const stack = words(20, { 9: 0x51n, 14: 0xb5n, 15: RETURN });
    const integers = { 5: STACK + 8n * 8n + 0x20n };
    expect(seen(step({ info, stack, integers }), 5, 6)).toEqual(['unwound', RETURN, 128, 0xb5n, 0x51n]);
    // In the prologue, before the frame pointer is set, RSP counts.
    expect(seen(step({ info, at: 0x1005, stack: words(8, { 6: 0xb5n, 7: RETURN }), integers }), 5)).toEqual([
      'unwound',
      RETURN,
      64,
      0xb5n,
    ]);
  });

  it('a frame pointer that leads to another stack, which may lie below', () => {
    // push rbp; mov rbp, rsp; mov rsp, rcx
    const recipe = { info: '01 04 02 05 04 03 01 50', stack: words(40, { 2: 0xb5n, 3: RETURN }), below: 32 };
    expect(seen(step({ ...recipe, integers: { 5: STACK + 0x10n } }), 5)).toEqual(['unwound', RETURN, 0x20, 0xb5n]);
  });

  it.each([
    ['without', '01 00 01 00 00 0a 0000', 0],
    ['with', '01 00 01 00 00 1a 0000', 1],
  ])('a machine frame %s an error code', (_, info, skip) => {
    const stack = words(8, { [skip]: 0x7ff6_00001234n, [skip + 1]: 0x33n, [skip + 3]: 0xd5_0000e000n });
    expect(step({ info, stack })).toMatchObject({
      how: 'trap',
      state: { instructionPointer: 0x7ff6_00001234n, stackPointer: 0xd5_0000e000n, native: true },
    });
  });

  it('a machine frame of 32-bit code', () => {
    const stack = words(8, { 0: 0x401001n, 1: 0x23n, 3: 0x19f000n });
    expect(step({ info: '01 00 01 00 00 0a 0000', stack })).toMatchObject({ how: 'trap', state: { native: false } });
  });

  it('chained data, whose prologue was run to its end', () => {
    // The part at 0x1080 saves rsi; its parent pushed rbx and allocated 20h.
    const functions = [
      { begin: 0x1080, end: 0x1100, unwindInfo: 0x2000 },
      { begin: 0x1000, end: 0x1080, unwindInfo: 0x2040 },
    ];
    const info = '21 05 02 00 05 64 0300 00100000 80100000 40200000';
    const more = { 8256: '01 05 02 00 05 32 01 30' };
    const stack = words(6, { 3: 0x51n, 4: 0xb3n, 5: RETURN });
    expect(seen(step({ info, more, functions, at: 0x1090, stack }), 3, 6)).toEqual([
      'unwound',
      RETURN,
      48,
      0xb3n,
      0x51n,
    ]);
    // A part has no frame to establish: it is there from its first byte on.
    const framed = { 8256: '01 05 03 05 05 03 02 32 01 50 0000' };
    const infoFramed = '21 05 02 05 00 64 0300 00100000 80100000 40200000';
    expect(
      seen(
        step({
          info: infoFramed,
          more: framed,
          functions,
          at: 0x1080,
          stack: words(12, { 6: 0x51n, 7: 0xb5n, 8: RETURN }),
          integers: { 5: STACK + 0x18n },
        }),
        5,
        6,
      ),
    ).toEqual(['unwound', RETURN, 72, 0xb5n, 0x51n]);
    // Also if the part lies below its parent.
    const below = functions.map((f, i) => (i === 0 ? f : { ...f, begin: 0x1180, end: 0x1200 }));
    const infoBelow = '21 00 00 00 80110000 00120000 40200000';
    expect(
      seen(step({ info: infoBelow, more, functions: below, at: 0x1090, stack: words(6, { 4: 1n, 5: RETURN }) })),
    ).toEqual(['unwound', RETURN, 48]);
  });

  it('an entry that stands for another one', () => {
    const functions = [{ ...FUNCTION, unwindInfo: 0x2081 }];
    const more = { 8320: '00100000 00110000 40200000', 8256: '01 04 01 00 04 42 0000' };
    expect(seen(step({ functions, more, stack: words(6, { 5: RETURN }) }))).toEqual(['unwound', RETURN, 48]);
  });

  it('volatile registers are not known in the caller', () => {
    expect(seen(step({ functions: [], stack: [RETURN] }), 0, 1, 2, 8, 11, 12)).toEqual([
      'leaf',
      RETURN,
      8,
      ...Array(5).fill(undefined),
      0x100cn,
    ]);
  });
});

describe('epilogues of version 1, by the code', () => {
  // push rbx; push r14; sub rsp, 28h
  const info = '01 07 03 00 07 42 03 e0 01 30 0000';
  it.each([
    ['add rsp, imm8', '4883c428 415e 5b c3', 5],
    ['add rsp, imm32', '4881c428000000 415e 5b c3', 5],
    ['pops only', '415e 5b c3', 0],
    ['the last pop', '5b c3', -1],
    ['a return with a prefix', '5b f3c3', -1],
    ['a return behind BND', '5b f2c3', -1],
    ['a return that gives back arguments', '5b c20800', -1],
    ['a jump to another function', '5b e900100000', -1],
    ['a jump through memory', '5b ff2500000000', -1],
    ['a jump through a register, with REX.W', '5b 48ffe0', -1],
  ])('%s', (_, code, first) => {
    const stack = words(12, { [Math.max(first, 0)]: 0xe14n, [first + 1]: 0xb3n, [first + 2]: RETURN });
    const registers = first < 0 ? [3] : [3, 14];
    const values = first < 0 ? [0xb3n] : [0xb3n, 0xe14n];
    expect(seen(step({ info, code, stack }), ...registers)).toEqual(['unwound', RETURN, 8 * (first + 3), ...values]);
  });

  it('a jump to the beginning of the function itself, which is a call of itself', () => {
    // pop rbx; jmp $-0x82
    expect(seen(step({ info, code: '5b e97affffff', at: 0x1080, stack: [0xb3n, RETURN] }), 3)).toEqual([
      'unwound',
      RETURN,
      16,
      0xb3n,
    ]);
  });

  it.each([
    ['a jump within the function', '5b eb10'],
    ['other code', '5b 90 c3'],
    ['an addition to another register', '4883c028 415e 5b c3'],
  ])('not %s', (_, code) => {
    const stack = words(8, { 5: 0xe14n, 6: 0xb3n, 7: RETURN });
    expect(seen(step({ info, code, stack }), 3, 14)).toEqual(['unwound', RETURN, 64, 0xb3n, 0xe14n]);
  });

  it('not a jump into another part of the same function', () => {
    const functions = [FUNCTION, { begin: 0x1100, end: 0x1200, unwindInfo: 0x2040 }];
    const more = { 8256: '21 00 00 00 00100000 00110000 00200000' };
    const stack = words(8, { 7: RETURN });
    // jmp 0x1180
    const code = 'e9fb000000';
    expect(seen(step({ info, code, functions, more, stack }))).toEqual(['unwound', RETURN, 64]);
    // The same to a function of its own is an epilogue.
    const other = { 8256: '01 00 00 00' };
    expect(seen(step({ info, code, functions, more: other, stack: [RETURN] }))).toEqual(['unwound', RETURN, 8]);
  });

  it('lea rsp from the frame register', () => {
    // push rbp; sub rsp, 30h; lea rbp, [rsp+20h]
    const fp = '01 0a 03 25 0a 03 05 52 01 50 0000';
    const integers = { 5: STACK + 0x40n };
    const stack = words(12, { 10: 0xb5n, 11: RETURN });
    expect(seen(step({ info: fp, code: '488d6510 5d c3', integers, stack }), 5)).toEqual([
      'unwound',
      RETURN,
      96,
      0xb5n,
    ]);
    expect(seen(step({ info: fp, code: '488da510000000 5d c3', integers, stack }), 5)).toEqual([
      'unwound',
      RETURN,
      96,
      0xb5n,
    ]);
  });
});

describe('epilogues of version 2, by the epilog codes', () => {
  // Epilogues of 4 bytes (pop r14; pop rbx; ret) at the end and 0x20 before it; then as above.
  const info = '02 07 05 00 04 16 20 06 07 42 03 e0 01 30 0000';
  it.each([
    ['at its beginning, at the end of the function', 0x10fc, { 0: 0xe14n, 1: 0xb3n, 2: RETURN }, 24, [0xb3n, 0xe14n]],
    ['behind the first pop', 0x10fe, { 0: 0xb3n, 1: RETURN }, 16, [0xb3n, 0x100en]],
    ['behind both', 0x10ff, { 0: RETURN }, 8, [0x1003n, 0x100en]],
    ['in the other one', 0x10e2, { 0: 0xb3n, 1: RETURN }, 16, [0xb3n, 0x100en]],
    ['outside', 0x10e4, { 5: 0xe14n, 6: 0xb3n, 7: RETURN }, 64, [0xb3n, 0xe14n]],
  ])('%s', (_, at, stack, moved, registers) => {
    expect(seen(step({ info, at, stack: words(9, stack) }), 3, 14)).toEqual(['unwound', RETURN, moved, ...registers]);
  });

  it('not at the end, where the first code does not say so', () => {
    const elsewhere = info.replace('04 16', '04 06');
    expect(seen(step({ info: elsewhere, at: 0x10fc, stack: words(8, { 7: RETURN }) }))).toEqual([
      'unwound',
      RETURN,
      64,
    ]);
    expect(seen(step({ info: elsewhere, at: 0x10e3, stack: [RETURN] }))).toEqual(['unwound', RETURN, 8]);
  });

  it('code that looks like an epilogue does not count', () => {
    expect(seen(step({ info, code: 'c3', stack: words(8, { 7: RETURN }) }))).toEqual(['unwound', RETURN, 64]);
  });

  it('IRETQ behind a machine frame', () => {
    // One epilogue of 2 bytes at the end; the processor pushed a frame with an error code.
    const trap = '02 00 03 00 02 16 0000 00 1a 0000';
    const stack = words(6, { 0: 0x7ff6_00001234n, 1: 0x33n, 3: 0xd5_0000e000n });
    expect(step({ info: trap, at: 0x10fe, stack })).toMatchObject({
      how: 'trap',
      state: { instructionPointer: 0x7ff6_00001234n, stackPointer: 0xd5_0000e000n },
    });
  });
});

describe('data that lies', () => {
  it.each<[string, Recipe, RegExp]>([
    ['no exception directory', { functions: 'missing' }, /exception directory is not in memory/],
    ['outside the image', { at: 0x5000 }, /outside its image/],
    ['unwind data outside the image', { functions: [{ ...FUNCTION, unwindInfo: 0xfffffffc }] }, /not in memory/],
    ['unwind data that is not aligned', { functions: [{ ...FUNCTION, unwindInfo: 0x2002 }] }, /not in memory/],
    ['another version', { info: '03 00 00 00' }, /version 3/],
    [
      'more codes than the image has room for',
      { functions: [{ ...FUNCTION, unwindInfo: 0x3ff8 }], more: { 16376: '01 00 ff 00' } },
      /codes at RVA/,
    ],
    ['an unknown code', { info: '01 00 01 00 00 0b 0000' }, /unknown code 11/],
    ['a code without its operand', { info: '01 00 01 00 00 04 0000' }, /ends within a code/],
    ['a chain that loops', { info: '21 00 00 00 00100000 00110000 00200000' }, /chain of more than 32/],
    [
      'an indirect entry that is indirect',
      { functions: [{ ...FUNCTION, unwindInfo: 0x2081 }], more: { 8320: '00100000 00110000 81200000' } },
      /yet another/,
    ],
    ['a push of RSP', { info: '01 00 01 00 00 40 0000', stack: words(4) }, /restores RSP/],
    ['an allocation beyond the stack', { info: '01 07 03 00 07 11 f8ff ffff 0000', stack: words(4) }, /not in memory/],
    [
      'a frame register below the stack',
      { info: '01 00 01 05 00 03 0000', integers: { 5: STACK - 0x10n } },
      /not in memory/,
    ],
    [
      'an epilogue that the codes do not describe',
      { info: '02 00 04 00 04 16 0000 00 30 00 42', at: 0x10fc, stack: words(9) },
      /does not describe/,
    ],
  ])('%s', (_, recipe, reason) => {
    expect(seen(step(recipe))).toMatch(reason);
  });

  it('a frame register that is not known in the caller', () => {
    const result = step({ functions: [], stack: [RETURN] });
    if (!('state' in result)) throw new Error(result.stopped);
    // A volatile register as frame register: no compiler does that.
    const memory = Buffer.from('01000101000300000000', 'hex');
    const image: CodeImage = {
      base: BASE,
      size: 0x4000,
      read: (_rva, length) => Buffer.concat([memory, Buffer.alloc(64)]).subarray(0, length),
      functionAt: () => ({ begin: 0, end: 0x4000, unwindInfo: 0x2000 }),
    };
    expect(seen(unwind(result.state, image, () => Buffer.alloc(8)))).toMatch(
      /frame register \(number 1\) is not known/,
    );
  });

  it('never throws, and every step leads up or off the stack', () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: 0x40, maxLength: 0x80 }),
        fc.uint8Array({ minLength: 48, maxLength: 48 }),
        fc.array(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), { minLength: 8, maxLength: 64 }),
        fc.constantFrom(1, 2, 0x21, 0x22),
        fc.nat(0xff),
        fc.constantFrom('', '5b', '4883c428', '488d6510', '415e415f415c', '5858585858585858585858585858585858585858e9'),
        (data, code, stack, version, at, start) => {
          data[0] = version;
          const result = step({
            info: Buffer.from(data).toString('hex'),
            code: start + Buffer.from(code).toString('hex'),
            at: 0x1000 + at,
            stack,
            integers: { 5: STACK + 0x20n },
          });
          if ('stopped' in result) expect(result.stopped).not.toBe('');
          else if (result.how !== 'trap') expect(result.state.stackPointer).toBeGreaterThan(STACK);
        },
      ),
      { numRuns: 3000 },
    );
  });
});

it.each([
  ['e800000000', true],
  ['ffd0', true],
  ['41ffd3', true],
  ['ff5008', true],
  ['ff542408', true],
  ['ff9088000000', true],
  ['ff1500000000', true],
  ['ff942488000000', true],
  ['ff142500000000', true],
  ['e900000000', false],
  ['ff2500000000', false],
  ['ffe0', false],
  ['ff50', false],
  ['90909090', false],
  ['', false],
])('%s ends with a call: %s', (code, expected) => {
  // Behind other code, as it is found.
  expect(endsWithCall(Buffer.from(code, 'hex'))).toBe(expected);
  expect(endsWithCall(Buffer.concat([Buffer.alloc(7 - code.length / 2, 0x90), Buffer.from(code, 'hex')]))).toBe(
    expected,
  );
});
