/** Gates of the interrupt tables of x86 machines. */
import { isKernelAddress } from '../core/bits.ts';
import { va } from '../core/units.ts';
import type { Machine } from './machine.ts';
import type { InterruptGate, InterruptTable } from './page-search.ts';
import type { ReadVirtual } from './read-virtual.ts';

/** The processor exceptions; vectors above are not always installed. */
const EXCEPTION_VECTORS = 32;
const VECTORS = 256;

/**
 * How a machine reads its gates, which lie one behind the other.
 *
 * @param gateSize bytes of a gate
 * @param handlerAt where the gate at an offset leads; undefined for one that is not present
 */
export function gateReaders(
  gateSize: number,
  handlerAt: (bytes: Buffer, at: number) => bigint | undefined,
): Pick<Machine, 'interruptGates' | 'interruptHandlers'> {
  const gatesOf = ({ base, size }: InterruptTable, read: ReadVirtual, vectors: number): InterruptGate[] | undefined => {
    const bytes = read(base, Math.min(vectors * gateSize, size));
    if (!bytes) return undefined;
    const gates: InterruptGate[] = [];
    for (let at = 0; at + gateSize <= bytes.length; at += gateSize) {
      const handler = handlerAt(bytes, at);
      if (handler !== undefined) gates.push({ vector: at / gateSize, handler });
    }
    return gates;
  };
  return {
    interruptGates: (table, read) => gatesOf(table, read, VECTORS),
    interruptHandlers: (table, read) =>
      (gatesOf(table, read, EXCEPTION_VECTORS) ?? []).flatMap(({ handler }) =>
        isKernelAddress(handler) ? [va(handler)] : [],
      ),
  };
}
