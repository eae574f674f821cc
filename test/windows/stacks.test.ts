import { expect, it } from 'vitest';
import { locateWindows } from '../../src/locate/locator.ts';
import { walkStack } from '../../src/windows/stacks.ts';
import { knownGuest } from '../support/known-guest.ts';

it('a frame at an address that no code can have is not certain, nor is what follows', async () => {
  const { image, space, truth } = knownGuest();
  const windows = await locateWindows(image);
  const processor = windows.processors[0]!;
  const framesAt = (rip: bigint) => {
    const context = image.machine.encodeContext(processor.cpu!.registers!);
    context.writeBigUInt64LE(rip, 0xf8);
    return walkStack({ ...windows, space }, processor, context).frames;
  };
  expect(framesAt(truth.exports.get('PoIdle')!)[0]).toMatchObject({ how: 'registers', certain: true });
  const wild = framesAt(0x4141414141414141n);
  expect(wild[0]).toMatchObject({ how: 'registers', certain: false, module: undefined });
  expect(wild.map(({ certain }) => certain)).not.toContain(true);
});
