/**
 * The devices' state in a stream: a section each without a length, whose fields the JSON at the stream's end names,
 * with the bytes that each took. Where it is missing (suppress-vmdesc, a cut stream), a section is found by its header.
 */
import { MIB } from '../../core/units.ts';
import { Section } from '../../formats/qevm.ts';
import { type ByteSource, readUpTo } from '../../source/source.ts';

/** One device's state. */
export interface DeviceState {
  name: string;
  instance: number;
  version: number;
  /** From its first field on: whole where `described`, else all that is left of the stream. */
  bytes: Buffer;
  /** Where each top-level field lies; undefined where nothing names them. */
  fields: ReadonlyMap<string, { offset: number; size: number; count: number }> | undefined;
}

/** Fields of 64 bits, at most, that are read here. */
const MAX_WORDS = 64;

/** A field of 64-bit numbers; undefined where the device has none of that name. */
export function fieldWords({ bytes, fields }: DeviceState, name: string): bigint[] | undefined {
  const field = fields?.get(name);
  if (field?.size !== 8 || field.count < 1 || field.count > MAX_WORDS) return undefined;
  return Array.from({ length: field.count }, (_, i) => bytes.readBigUInt64BE(field.offset + 8 * i));
}

interface JsonField {
  name?: unknown;
  size?: unknown;
  array_len?: unknown;
}

interface JsonDevice {
  name?: unknown;
  instance_id?: unknown;
  fields?: unknown;
  subsections?: unknown;
}

/** QEMU's devices take some 200 KiB; those of passed-through ones more. */
const MAX_DEVICES = 256 * MIB;

/** Takes what follows memory while it comes, until the description has come. */
export class ArrivingState {
  readonly #parts: Buffer[] = [];
  #size = 0;
  /** Bytes at which it is looked for the description again. */
  #look = 0;

  add(bytes: Buffer): void {
    if (this.#look === Number.POSITIVE_INFINITY) return;
    this.#parts.push(Buffer.from(bytes.subarray(0, MAX_DEVICES - this.#size)));
    this.#size += this.#parts.at(-1)!.length;
    if (this.#size < this.#look) return;
    // Bytes may follow, as on a volume.
    const whole = this.#size === MAX_DEVICES || findDescription(this.all()).length > 0;
    this.#look = whole ? Number.POSITIVE_INFINITY : 2 * this.#size;
  }

  all(): Buffer {
    if (this.#parts.length > 1) this.#parts.splice(0, this.#parts.length, Buffer.concat(this.#parts));
    return this.#parts[0] ?? Buffer.alloc(0);
  }
}

/** All that follows memory, from the first device's section on. */
export class Devices {
  readonly #state: Buffer;
  readonly #described: readonly DeviceState[];

  constructor(state: Buffer) {
    this.#state = state;
    this.#described = walk(state, findDescription(state));
  }

  /** In a range of a source. */
  static in(source: ByteSource, start: number, end: number): Devices {
    return new Devices(readUpTo(source, start, Math.min(end - start, MAX_DEVICES)));
  }

  /** Devices of a name, by their instance. */
  all(name: string): DeviceState[] {
    const described = this.#described.filter((device) => device.name === name);
    return described.length > 0 ? described : this.#search(name);
  }

  /** Sections found by what they begin with: type, ID, name, instance, version. */
  #search(name: string): DeviceState[] {
    const mark = Buffer.concat([Buffer.from([name.length]), Buffer.from(name, 'latin1')]);
    const found: DeviceState[] = [];
    for (let at = this.#state.indexOf(mark); at >= 0; at = this.#state.indexOf(mark, at + 1)) {
      const header = at + mark.length;
      if (at < 5 || this.#state[at - 5] !== Section.full || header + 8 > this.#state.length) continue;
      const [instance, version] = [this.#state.readUInt32BE(header), this.#state.readUInt32BE(header + 4)];
      // Instances follow each other, and versions are small: else it is chance.
      if (instance !== found.length || version > 255) continue;
      found.push({ name, instance, version, bytes: this.#state.subarray(header + 8), fields: undefined });
    }
    return found;
  }
}

/** The JSON: marked and with its length, between its braces. */
function findDescription(state: Buffer): readonly JsonDevice[] {
  const open = Buffer.from('{"', 'latin1');
  for (let at = state.indexOf(open); at >= 0; at = state.indexOf(open, at + 1)) {
    if (at < 5 || state[at - 5] !== Section.description) continue;
    const length = state.readUInt32BE(at - 4);
    if (at + length > state.length || state[at + length - 1] !== 0x7d) continue;
    try {
      const { devices } = JSON.parse(state.toString('utf8', at, at + length)) as { devices?: unknown };
      if (Array.isArray(devices)) return devices as JsonDevice[];
    } catch {
      // Not it.
    }
  }
  return [];
}

/** The sections in the order in which the JSON has them; ends where one is not as it says. */
function walk(state: Buffer, devices: readonly JsonDevice[]): DeviceState[] {
  const found: DeviceState[] = [];
  let at = 0;
  for (const device of devices) {
    at = skipCommands(state, at);
    const name = String(device.name);
    const header = at + 6 + name.length;
    if (header + 8 > state.length || state[at] !== Section.full) break;
    if (state[at + 5] !== name.length || state.toString('latin1', at + 6, header) !== name) break;
    const fields = new Map<string, { offset: number; size: number; count: number }>();
    const length = layOut(device, fields);
    if (length === undefined || header + 8 + length > state.length) break;
    found.push({
      name,
      instance: state.readUInt32BE(header),
      version: state.readUInt32BE(header + 4),
      bytes: state.subarray(header + 8, header + 8 + length),
      fields,
    });
    const end = header + 8 + length;
    at = state[end] === Section.footer ? end + 5 : end;
  }
  return found;
}

function skipCommands(state: Buffer, from: number): number {
  let at = from;
  while (at + 5 <= state.length && state[at] === Section.command) at += 5 + state.readUInt16BE(at + 3);
  return at;
}

/** Bytes of a description's fields and of the subsections behind them. */
function layOut(
  { fields, subsections }: { fields?: unknown; subsections?: unknown },
  places: Map<string, { offset: number; size: number; count: number }>,
): number | undefined {
  let offset = 0;
  for (const field of Array.isArray(fields) ? (fields as JsonField[]) : []) {
    const count = field.array_len === undefined ? 1 : Number(field.array_len);
    const size = Number(field.size);
    if (!Number.isInteger(size) || !Number.isInteger(count) || size < 0 || count < 0) return undefined;
    const name = String(field.name);
    // Elements of different sizes come one by one under the same name.
    if (!places.has(name)) places.set(name, { offset, size, count });
    offset += size * count;
  }
  for (const subsection of Array.isArray(subsections)
    ? (subsections as (JsonDevice & { vmsd_name?: unknown })[])
    : []) {
    const header = 1 + 1 + String(subsection.vmsd_name).length + 4;
    const inner = new Map<string, { offset: number; size: number; count: number }>();
    const length = layOut(subsection, inner);
    if (length === undefined) return undefined;
    for (const [name, place] of inner) {
      const key = `${String(subsection.vmsd_name)}/${name}`;
      places.set(key, { ...place, offset: offset + header + place.offset });
    }
    offset += header + length;
  }
  return offset;
}
