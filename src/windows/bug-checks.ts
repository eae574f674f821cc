/** Bug checks in words: names, and what the parameters of one mean. */
import { BUG_CHECK_NAMES } from './bug-check-names.ts';
import { BUG_CHECK_PARAMETERS, type Parameter } from './bug-check-parameters.ts';

/** Set in the code by KeBugCheck's callers in some builds; the reference lists the code without it (`…_M`). */
const MINIDUMP_BIT = 0x1000_0000;

/** The code without the bit that some callers set. */
export const plainBugCheckCode = (code: number): number => (code >>> 28 === 1 ? code - MINIDUMP_BIT : code);

/** `DRIVER_IRQL_NOT_LESS_OR_EQUAL` for 0xd1; null for a code that is not in the table. */
export function bugCheckName(code: number): string | null {
  return BUG_CHECK_NAMES.get(code) ?? BUG_CHECK_NAMES.get(code & ~MINIDUMP_BIT) ?? null;
}

/** What one parameter of a bug check is. */
export interface ParameterMeaning {
  /** null: reserved, unused, or not in the table. */
  what: string | null;
  /** The value in words, where it is one of a few: `write`, `STATUS_ACCESS_VIOLATION`. */
  value: string | null;
  /** The value is an address in the guest. */
  address: boolean;
}

const UNKNOWN: ParameterMeaning = { what: null, value: null, address: false };

/** The four parameters of a bug check, decoded as far as the table goes. */
export function describeParameters(
  code: number,
  parameters: readonly bigint[],
): readonly [ParameterMeaning, ParameterMeaning, ParameterMeaning, ParameterMeaning] {
  const entry = BUG_CHECK_PARAMETERS.get(code) ?? BUG_CHECK_PARAMETERS.get(code & ~MINIDUMP_BIT);
  if (!entry) return [UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN];
  const { by } = entry;
  const chosen = by === undefined ? undefined : entry.cases?.[keyOf(parameters[by] ?? 0n)];
  const describe = (i: 0 | 1 | 2 | 3): ParameterMeaning => {
    const value = parameters[i] ?? 0n;
    // The deciding parameter itself keeps its own words: its value has the case's.
    return describeParameter(chosen === undefined || i === by ? entry.parameters[i] : chosen[i], value);
  };
  const described = [describe(0), describe(1), describe(2), describe(3)] as const;
  if (by === undefined || chosen === undefined) return described;
  const text = chosen[by];
  const [a, b, c, d] = described.map((p, i) =>
    i === by && p.value === null && typeof text === 'string' ? { ...p, value: text } : p,
  );
  return [a!, b!, c!, d!];
}

function describeParameter(parameter: Parameter, value: bigint): ParameterMeaning {
  if (parameter === null) return UNKNOWN;
  if (typeof parameter === 'string') return { what: parameter, value: null, address: false };
  return {
    what: parameter.what,
    value: parameter.values?.[keyOf(value)] ?? null,
    address: parameter.address === true,
  };
}

/** A value as a key of the tables: status codes are 32 bits, sign-extended by some callers. */
function keyOf(value: bigint): number {
  const signExtended = value >> 31n === 0x1_ffff_ffffn;
  // Beyond 2^53 there are no keys, and no rounding finds one.
  return Number(signExtended ? BigInt.asUintN(32, value) : value);
}
