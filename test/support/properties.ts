/**
 * Property tests, and bytes that look random, the same in every run: what decides about a change has to say the same about
 * the same change. ELF2DMP_SEED=N takes other ones: a failure that it brings up fails again with that number.
 */
import fc from 'fast-check';
import { random } from '../guest/memory.ts';

const SEED = Number(process.env['ELF2DMP_SEED'] ?? 1);

fc.configureGlobal({ seed: SEED });

export default fc;

/** Bytes of every kind; `which` has others. */
export function noise(length: number, which = 0): Buffer {
  const next = random(Math.imul(SEED, 0x9e3779b1) + which);
  const bytes = Buffer.alloc(length + (-length & 3));
  for (let at = 0; at < bytes.length; at += 4) bytes.writeUInt32LE(next() * 2 ** 32, at);
  return bytes.subarray(0, length);
}
