/** Options as the library names them. */
import type { Call } from '../options/row.ts';
import { ROWS } from '../options/table.ts';
import { type CallOptions, libraryName } from '../options/values.ts';

/** Those of a command's values that the function takes. */
export function optionsFor<Function extends Call>(
  call: Function,
  values: Readonly<Record<string, unknown>>,
): CallOptions<Function> {
  const taken = ROWS.filter(([name, row]) => row.calls.includes(call) && values[name] !== undefined);
  return Object.fromEntries(
    taken.map(([name, row]) => [libraryName(name, row), values[name]]),
  ) as CallOptions<Function>;
}
