/**
 * Declared binary layouts: one declaration gives the type, reading, writing, offsets and size.
 * Fields have explicit offsets; fields that overlap or stick out are refused when the module loads.
 */

/** One field of a declared structure: where it lies, and how it is read and written. */
export interface Field<T> {
  readonly offset: number;
  readonly size: number;
  read(buffer: Buffer, at: number): T;
  write(buffer: Buffer, at: number, value: T): void;
}

/** An unsigned byte. */
export const u8 = (offset: number): Field<number> => ({
  offset,
  size: 1,
  read: (b, at) => b.readUInt8(at),
  write: (b, at, v) => void b.writeUInt8(v, at),
});

/** An unsigned 16-bit little-endian word. */
export const u16 = (offset: number): Field<number> => ({
  offset,
  size: 2,
  read: (b, at) => b.readUInt16LE(at),
  write: (b, at, v) => void b.writeUInt16LE(v, at),
});

/** An unsigned 32-bit little-endian word. */
export const u32 = (offset: number): Field<number> => ({
  offset,
  size: 4,
  read: (b, at) => b.readUInt32LE(at),
  write: (b, at, v) => void b.writeUInt32LE(v, at),
});

/** An unsigned 64-bit little-endian word. Writing takes negative values as their two's complement. */
export const u64 = (offset: number): Field<bigint> => ({
  offset,
  size: 8,
  read: (b, at) => b.readBigUInt64LE(at),
  write: (b, at, v) => void b.writeBigUInt64LE(BigInt.asUintN(64, v), at),
});

/** A 32-bit little-endian address, sign-extended. Writing takes its lower half. */
export const address32 = (offset: number): Field<bigint> => ({
  offset,
  size: 4,
  read: (b, at) => BigInt.asUintN(64, BigInt(b.readInt32LE(at))),
  write: (b, at, v) => void b.writeUInt32LE(Number(BigInt.asUintN(32, v)), at),
});

/** `count` 32-bit addresses, sign-extended. */
export const address32s = (offset: number, count: number): Field<readonly bigint[]> => {
  const words = Array.from({ length: count }, (_, i) => address32(4 * i));
  return {
    offset,
    size: 4 * count,
    read: (b, at) => words.map((word) => word.read(b, at + word.offset)),
    write: (b, at, v) => {
      if (v.length !== count) throw new RangeError(`${v.length} words for a field of ${count}`);
      words.forEach((word, i) => {
        word.write(b, at + word.offset, v[i]!);
      });
    },
  };
};

/** An unsigned 32-bit little-endian word as a bigint, where wider forms of its structure have 64 bits. */
export const u32n = (offset: number): Field<bigint> => ({
  offset,
  size: 4,
  read: (b, at) => BigInt(b.readUInt32LE(at)),
  write: (b, at, v) => void b.writeUInt32LE(Number(v), at),
});

/** Raw bytes. Shorter values are zero-padded on writing. */
export const raw = (offset: number, size: number): Field<Buffer> => ({
  offset,
  size,
  read: (b, at) => b.subarray(at, at + size),
  write: (b, at, v) => {
    if (v.length > size) throw new RangeError(`${v.length} bytes do not fit a field of ${size}`);
    b.fill(0, at, at + size);
    v.copy(b, at);
  },
});

/** `count` 64-bit words. */
export const u64s = (offset: number, count: number): Field<readonly bigint[]> => ({
  offset,
  size: 8 * count,
  read: (b, at) => Array.from({ length: count }, (_, i) => b.readBigUInt64LE(at + 8 * i)),
  write: (b, at, v) => {
    if (v.length !== count) throw new RangeError(`${v.length} words for a field of ${count}`);
    v.forEach((word, i) => {
      b.writeBigUInt64LE(BigInt.asUintN(64, word), at + 8 * i);
    });
  },
});

/** A structure inside a structure. */
export const nested = <F extends Fields>(offset: number, layout: Struct<F>): Field<Values<F>> => ({
  offset,
  size: layout.size,
  read: (b, at) => layout.read(b, at),
  write: (b, at, v) => layout.write(b, at, v),
});

/** The fields of a structure by name. */
export type Fields = Record<string, Field<unknown>>;

/** The values that the fields `F` have. */
export type Values<F> = { [K in keyof F]: F[K] extends Field<infer T> ? T : never };

/** The value type of a declared structure: `StructOf<typeof Elf64Header>`. */
export type StructOf<S> = S extends Struct<infer F> ? Values<F> : never;

/** A structure as it is declared. */
export interface StructSpec<F> {
  /** Name as its specification has it. */
  name: string;
  /** Bytes. */
  size: number;
  fields: F;
}

/** A declared structure. The constructor throws on fields that overlap or end beyond the size. */
export class Struct<F extends Fields> {
  readonly name: string;
  readonly size: number;
  readonly fields: F;
  readonly #entries: readonly (readonly [string, Field<unknown>])[];

  constructor(spec: StructSpec<F>) {
    this.name = spec.name;
    this.size = spec.size;
    this.fields = spec.fields;
    this.#entries = Object.entries(spec.fields) as [string, Field<unknown>][];
    let end = 0;
    let previous = '';
    for (const [key, field] of [...this.#entries].sort((a, b) => a[1].offset - b[1].offset)) {
      if (field.offset < end) throw new Error(`${spec.name}: ${key} overlaps ${previous}`);
      end = field.offset + field.size;
      previous = key;
      if (end > spec.size) throw new Error(`${spec.name}: ${key} ends at ${end}, beyond the size ${spec.size}`);
    }
  }

  /** All fields. Throws RangeError if `buffer` is too short. */
  read(buffer: Buffer, at = 0): Values<F> {
    const result: Record<string, unknown> = {};
    for (const [key, field] of this.#entries) result[key] = field.read(buffer, at + field.offset);
    return result as Values<F>;
  }

  /** The fields that lie wholly within the first `available` bytes; the others are undefined. */
  readPartial(buffer: Buffer, available: number, at = 0): Partial<Values<F>> {
    const result: Record<string, unknown> = {};
    for (const [key, field] of this.#entries) {
      if (field.offset + field.size <= available) result[key] = field.read(buffer, at + field.offset);
    }
    return result as Partial<Values<F>>;
  }

  /** Writes the fields given, leaving all other bytes alone. */
  write(buffer: Buffer, at: number, values: Partial<Values<F>>): void {
    for (const [key, field] of this.#entries) {
      const value = (values as Record<string, unknown>)[key];
      if (value !== undefined) field.write(buffer, at + field.offset, value);
    }
  }

  offsetOf(field: keyof F): number {
    return this.fields[field]!.offset;
  }
}

/** Declares a structure. */
export const struct = <F extends Fields>(spec: StructSpec<F>): Struct<F> => new Struct(spec);
