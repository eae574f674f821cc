/** What a seed stands for: so many of each kind of input that a long run spends its time where it is of use. */
import { random } from '../guest/memory.ts';
import { makeContradiction } from './contradict.ts';
import { makeRecipe, oftener, type Recipe } from './mutate.ts';
import { type Piece, runPiece } from './pieces.ts';
import { run } from './run.ts';
import type { Subject } from './subjects.ts';

/** `pieces`: one parser's bytes. `readers`: opened. `guests`, `contradictions`: whole conversions, planned. */
export type Kind = 'pieces' | 'readers' | 'guests' | 'contradictions';

/** Of so many inputs: a parser takes a twentieth of a millisecond, a reader half of one, a whole guest some five. */
const ROUND = 128;
const CONTRADICTIONS = 3;
const GUESTS = 1;
const READERS = 56;
/** Of so many whole guests one has its stacks walked and a triage dump planned too. */
const DEEP = 8;

/** Spread over the round: 37 has no divisor in common with it. */
function kindOf(seed: number): Kind {
  const at = (seed * 37) % ROUND;
  if (at < CONTRADICTIONS) return 'contradictions';
  if (at < CONTRADICTIONS + GUESTS) return 'guests';
  return at < CONTRADICTIONS + GUESTS + READERS ? 'readers' : 'pieces';
}

/** An input, made from its seed alone. */
export type Input =
  | { kind: 'pieces'; name: string; recipe: undefined; run: () => ReturnType<typeof runPiece> }
  | { kind: Exclude<Kind, 'pieces'>; name: string; recipe: Recipe; run: () => ReturnType<typeof run> };

/** Makes inputs of subjects and parsers, which are built once and damaged in place. */
export class Inputs {
  readonly #subjects: readonly Subject[];
  readonly #pieces: readonly Piece[];

  constructor(subjects: readonly Subject[], pieces: readonly Piece[]) {
    this.#subjects = subjects;
    this.#pieces = pieces;
  }

  of(seed: number): Input {
    const kind = kindOf(seed);
    if (kind === 'pieces') {
      const piece = oftener(this.#pieces, Math.floor(random(seed ^ 0x5eed)() * 2 ** 30));
      return { kind, name: piece.name, recipe: undefined, run: () => runPiece(piece, seed) };
    }
    const recipe = this.#recipe(kind, seed);
    const subject = this.#subjects.find(({ name }) => name === recipe.subject)!;
    return { kind, name: subject.name, recipe, run: () => run(subject, recipe) };
  }

  #recipe(kind: Exclude<Kind, 'pieces'>, seed: number): Recipe {
    if (kind === 'readers') return makeRecipe(this.#subjects, seed, 'open');
    const depth = Math.floor(seed / ROUND) % DEEP === 0 ? 'all' : 'plan';
    return kind === 'guests' ? makeRecipe(this.#subjects, seed, depth) : makeContradiction(this.#subjects, seed, depth);
  }
}
