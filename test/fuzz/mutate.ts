/** Damage of the kinds that files have and that attackers think of, by a seeded generator. */
import { random } from '../guest/memory.ts';
import type { Place, Subject } from './subjects.ts';

export interface Mutation {
  offset: number;
  /** Hexadecimal. */
  bytes: string;
}

/**
 * How far an input is taken: `open` reads what it holds; `plan` finds Windows and plans the dump, with the oracle;
 * `all` plans a triage dump too, walks the stacks, and says what `info` does.
 */
export type Depth = 'open' | 'plan' | 'all';

/** A file's damage, as a value that can be kept: the corpus is made of these. */
export interface Recipe {
  subject: string;
  mutations: Mutation[];
  /** The file ends here. */
  length?: number;
  /** Nothing that the guest or its notes say was changed, so what is shown as sure has to be right. */
  oracle: boolean;
  /** How far it is taken. Default `all`. */
  depth?: Depth;
  /** Two sources were made to contradict each other: what is shown without a word has to be what was built. */
  contradiction?: boolean;
}

const WORDS = [
  0n,
  1n,
  0x7fn,
  0xfffn,
  0x1000n,
  0x7fff_ffffn,
  0x8000_0000n,
  0xffff_ffffn,
  1n << 32n,
  1n << 52n,
  1n << 53n,
  1n << 63n,
  (1n << 63n) - 1n,
  (1n << 64n) - 1n,
  0xffff_8000_0000_0000n,
  0xffff_f780_0000_0000n,
];
/** Of a page-table entry: present, writable, and so on; large. */
const TABLE = 0x63n;
const LARGE = 0xe3n;

/** One of a list by any number: those that are slow come up in one of 128 turns. */
export function oftener<T extends { slow?: boolean }>(list: readonly T[], number: number): T {
  const quick = list.filter(({ slow }) => !slow);
  const turn = number % 128 === 0 ? list.filter(({ slow }) => slow) : [];
  const from = turn.length > 0 ? turn : quick;
  return from[Math.floor(number / 128) % from.length]!;
}

/** The damage of one input: a pure function of the seed. */
export function makeRecipe(all: readonly Subject[], seed: number, depth: Depth = 'all'): Recipe {
  const next = random(seed);
  const below = (n: number) => Math.floor(next() * n);
  const pick = <T>(list: readonly T[]): T => list[below(list.length)]!;
  const subject =
    depth === 'open'
      ? oftener(
          all.filter((s) => s.places.some(({ inMemory }) => !inMemory)),
          below(2 ** 30),
        )
      : pick(all);
  const { file } = subject;
  // A reader does not look into memory.
  const places = depth === 'open' ? subject.places.filter(({ inMemory }) => !inMemory) : subject.places;
  const recipe: Recipe = { subject: subject.name, mutations: [], depth, oracle: true };
  if (below(12) === 0) {
    const place = pick(places);
    recipe.length = pick([
      place.offset,
      place.offset + place.length,
      place.offset + below(place.length),
      below(file.length),
    ]);
    recipe.oracle = false;
  }
  const limit = recipe.length ?? file.length;
  for (let count = 1 + below(below(4) === 0 ? 12 : 3); count > 0; count--) {
    const place: Place =
      below(10) === 0 ? { what: 'anywhere', offset: 0, length: file.length, truth: true } : pick(places);
    const bytes = damage(subject, place, { below, pick, next });
    const offset =
      place.offset + Math.max(0, below(Math.max(1, place.length - bytes.length + 1)) & (bytes.length === 8 ? ~7 : ~0));
    const kept = bytes.subarray(0, Math.max(0, limit - offset));
    if (kept.length === 0) continue;
    recipe.mutations.push({ offset, bytes: kept.toString('hex') });
    if (place.truth) recipe.oracle = false;
  }
  return recipe;
}

function damage(
  subject: Subject,
  place: Place,
  { below, pick, next }: { below: (n: number) => number; pick: <T>(list: readonly T[]) => T; next: () => number },
): Buffer {
  const word = (value: bigint) => {
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64LE(BigInt.asUintN(64, value));
    return bytes;
  };
  const { truth } = subject.guest;
  switch (below(8)) {
    case 0: {
      const bytes = Buffer.alloc(1);
      bytes.writeUInt8(1 << below(8));
      return bytes;
    }
    case 1:
      return word(pick(WORDS));
    case 2:
      return Buffer.from(Array.from({ length: 1 + below(64) }, () => below(256)));
    case 3:
      // A whole page or more.
      return Buffer.alloc(Math.min(place.length, 0x1000), pick([0, 0xff, 0xcc]));
    case 4:
      // Entries that lead back: to the root, to another table, to nowhere.
      return word(
        BigInt(pick([truth.root, below(subject.guest.ramBytes / 0x1000) * 0x1000, 2 ** 51])) | pick([TABLE, LARGE]),
      );
    case 5:
      return word(
        pick([
          truth.kernelBase,
          truth.kdbg,
          truth.psLoadedModuleList,
          truth.processors[0]!.kpcr,
          truth.processors[0]!.prcb,
        ]),
      );
    case 6:
      // What comes from elsewhere in the file.
      return Buffer.from(subject.file.subarray(0, 8 + below(256)).map((byte) => byte ^ (next() < 0.1 ? 0x55 : 0)));
    default:
      return word(truth.kernelBase + BigInt(below(0x100000)) - 0x80000n);
  }
}

/** Applies a recipe to a subject's file and gives back how to undo it. */
export function apply(file: Buffer, recipe: Recipe): () => void {
  const originals = recipe.mutations.map(({ offset, bytes }) => ({
    offset,
    bytes: Buffer.from(file.subarray(offset, offset + bytes.length / 2)),
  }));
  for (const { offset, bytes } of recipe.mutations) Buffer.from(bytes, 'hex').copy(file, offset);
  return () => {
    for (const { offset, bytes } of originals.reverse()) bytes.copy(file, offset);
  };
}
