/** As much of the WebAssembly binary format (core specification 2.0, chapter 5) as one function needs. */

/** Value type: 32-bit integer. */
export const I32 = 0x7f;
/** Value type: 64-bit integer. */
export const I64 = 0x7e;
/** Value type: SIMD vector. */
export const V128 = 0x7b;

/** Signed LEB128. */
function signed(value: bigint): number[] {
  const bytes: number[] = [];
  for (let rest = value; ; ) {
    const byte = Number(rest & 0x7fn);
    rest >>= 7n;
    const last = (rest === 0n && (byte & 0x40) === 0) || (rest === -1n && (byte & 0x40) !== 0);
    bytes.push(last ? byte : byte | 0x80);
    if (last) return bytes;
  }
}

/** Unsigned LEB128. */
function unsigned(value: number): number[] {
  const bytes: number[] = [];
  for (let rest = value; ; rest = Math.floor(rest / 128)) {
    if (rest < 128) return [...bytes, rest];
    bytes.push((rest % 128) | 0x80);
  }
}

const simd = (opcode: number, ...immediate: number[]) => [0xfd, ...unsigned(opcode), ...immediate];
const i64Bytes = (value: bigint) => Array.from({ length: 8 }, (_, i) => Number((value >> BigInt(8 * i)) & 0xffn));

/** Instructions by their names in the specification. */
export const op = {
  get: (local: number) => [0x20, ...unsigned(local)],
  set: (local: number) => [0x21, ...unsigned(local)],
  i32: (value: number) => [0x41, ...signed(BigInt(value))],
  i64: (value: bigint) => [0x42, ...signed(value)],
  i32Load: (offset: number) => [0x28, 2, ...unsigned(offset)],
  i64Load: (offset: number) => [0x29, 3, ...unsigned(offset)],
  i32Store: (offset: number) => [0x36, 2, ...unsigned(offset)],
  i32Add: [0x6a],
  i32Sub: [0x6b],
  i32And: [0x71],
  i32Or: [0x72],
  i32Eq: [0x46],
  i32Eqz: [0x45],
  i32LessUnsigned: [0x49],
  i64Equal: [0x51],
  i64Add: [0x7c],
  v128Load: (offset: number) => simd(0x00, 4, ...unsigned(offset)),
  /** The same 64 bits twice. */
  v128Pair: (value: bigint) => simd(0x0c, ...i64Bytes(value), ...i64Bytes(value)),
  i64x2Splat: simd(0x12),
  v128And: simd(0x4e),
  v128Or: simd(0x50),
  v128AnyTrue: simd(0x53),
  i64x2AllTrue: simd(0xc3),
  i64x2Equal: simd(0xd6),
  /** Runs `body` again for as long as it leaves a true value. */
  repeatWhile: (...body: number[][]) => [0x03, 0x40, ...body.flat(), 0x0d, 0, 0x0b],
  when: (...body: number[][]) => [0x04, 0x40, ...body.flat(), 0x0b],
} as const;

/** A module with one exported function, `run`, that works on a memory of at least `pages` × 64 KiB, which it imports. */
export function wasmModule(
  {
    parameters,
    results,
    locals,
  }: { parameters: readonly number[]; results: readonly number[]; locals: readonly number[] },
  pages: number,
  code: readonly number[],
): Uint8Array<ArrayBuffer> {
  const vector = (items: readonly (readonly number[])[]) => [...unsigned(items.length), ...items.flat()];
  const name = (text: string) => vector([...Buffer.from(text)].map((byte) => [byte]));
  const section = (id: number, content: readonly number[]) => [id, ...unsigned(content.length), ...content];
  const types = (list: readonly number[]) => vector(list.map((type) => [type]));
  const body = [...vector(locals.map((type) => [1, type])), ...code, 0x0b];
  return Uint8Array.from([
    ...[0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(1, vector([[0x60, ...types(parameters), ...types(results)]])),
    ...section(2, vector([[...name(IMPORTED), ...name(IMPORTED), 2, 0, ...unsigned(pages)]])),
    ...section(3, vector([[0]])),
    ...section(7, vector([[...name('run'), 0, 0]])),
    ...section(10, vector([[...unsigned(body.length), ...body]])),
  ]);
}

/** What a module calls its memory, and the only module that it knows. */
const IMPORTED = 'memory';

/** A memory that modules import. */
export interface WasmMemory {
  readonly buffer: ArrayBuffer;
}

/** What is used of the global, which Node's types leave to browsers'. */
interface WebAssemblyApi {
  Memory: new (limits: { initial: number; maximum: number }) => WasmMemory;
  Module: new (bytes: Uint8Array) => object;
  Instance: new (module: object, imports: object) => { exports: Record<string, unknown> };
  CompileError: new () => Error;
}

const api = () => (globalThis as unknown as { WebAssembly: WebAssemblyApi }).WebAssembly;

/** A memory of `pages` × 64 KiB; undefined where there is no room for it. */
export function createMemory(pages: number): WasmMemory | undefined {
  try {
    return new (api().Memory)({ initial: pages, maximum: pages });
  } catch (error) {
    if (error instanceof RangeError) return undefined;
    throw error;
  }
}

/** The module's function; undefined where this engine lacks an instruction that it uses, or has no memory left for it. */
export function instantiate(bytes: Uint8Array, memory: WasmMemory): ((...args: never[]) => number) | undefined {
  const { Module, Instance, CompileError } = api();
  try {
    const { run } = new Instance(new Module(bytes), { [IMPORTED]: { [IMPORTED]: memory } }).exports;
    return run as (...args: never[]) => number;
  } catch (error) {
    if (error instanceof CompileError || error instanceof RangeError) return undefined;
    throw error;
  }
}
