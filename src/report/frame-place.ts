/** Where a frame's instruction lies, as plain data. */
import { hex, hex64 } from '../core/units.ts';
import type { StackFrame } from '../windows/stacks.ts';
import { type CodePlace, reportSymbol } from './processors.ts';

/** null outside all modules. */
export function reportFramePlace({
  module,
  instructionPointer,
  nearestExport: near,
  symbol,
}: Pick<StackFrame, 'module' | 'instructionPointer' | 'nearestExport' | 'symbol'>): CodePlace | null {
  if (!module) return null;
  return {
    module: module.name || null,
    base: hex64(module.base),
    offset: hex(instructionPointer - module.base),
    nearestExport: near ? { name: near.name, offset: hex(near.offset) } : null,
    symbol: reportSymbol(symbol),
  };
}
