/** The kernel when its header page is gone: by a KDBG near addresses in its code, and the module list that it leads to. */

import { isKernelAddress } from '../core/bits.ts';
import { Reason } from '../core/reason.ts';
import { hex, hex64, PAGE_SIZE, va } from '../core/units.ts';
import { readDebuggerData } from '../formats/win-kernel.ts';
import type { AddressSpace } from '../memory/address-space.ts';
import type { Evidence } from '../windows/evidence.ts';
import type { KernelImage } from '../windows/kernel-image.ts';
import { firstModule } from '../windows/modules.ts';
import { readPeImage } from '../windows/pe-image.ts';
import { decodeBlock, forEachPresentChunk, searchWithoutBase } from './kdbg.ts';
import type { CodeAddress } from './kernel.ts';
import { KERNEL_STEP, kernelAt, MAX_KERNEL_SIZE } from './kernel.ts';

/** Neighbourhoods searched: each takes about a second. */
const MAX_NEIGHBOURHOODS = 4;

/** Blocks looked at in each: a kernel has a dozen, hostile memory any number. */
const MAX_TRIES = 256;

/** Looks near each address in turn. Adds the loss of the header to the image's diagnostics. */
export function recoverKernel(
  space: AddressSpace,
  addresses: Iterable<CodeAddress>,
  evidence: Evidence,
): KernelImage | undefined {
  const tried = new Set<bigint>();
  for (const { address, why } of addresses) {
    const neighbourhood = address / BigInt(MAX_KERNEL_SIZE);
    if (tried.has(neighbourhood)) continue;
    if (tried.size >= MAX_NEIGHBOURHOODS) return undefined;
    tried.add(neighbourhood);
    const method = `KDBG near ${hex64(address)}, ${why}`;
    const kernel = kernelNear(space, address);
    if (!kernel) {
      evidence.reject(KERNEL_STEP, method, 'no block there leads to a module list whose first module it names');
      continue;
    }
    evidence.accept(
      KERNEL_STEP,
      method,
      `KernBase ${hex64(kernel.base)} is the first module's, which has ${hex(kernel.size)} bytes`,
    );
    if (kernel.directories.length === 0) {
      space.image.diagnostics.add(
        'loss',
        'kernel-header-missing',
        `the kernel's header page at ${hex64(kernel.base)} is missing or overwritten: its exports and PDB are unknown`,
        { virtual: hex64(kernel.base) },
      );
    }
    return kernel;
  }
  return undefined;
}

function kernelNear(space: AddressSpace, handler: bigint): KernelImage | undefined {
  let found: KernelImage | undefined;
  let tries = 0;
  const { pointerSize } = space.image.machine;
  const from = handler - (handler % BigInt(PAGE_SIZE)) - BigInt(MAX_KERNEL_SIZE);
  forEachPresentChunk(space, { base: from, size: 2 * MAX_KERNEL_SIZE }, (buffer, address) => {
    if (found) return;
    for (const { offset, size, rotation, kernBase } of searchWithoutBase(
      buffer,
      handler,
      MAX_KERNEL_SIZE,
      pointerSize,
    )) {
      if (++tries > MAX_TRIES) return;
      const bytes = space.read(address + BigInt(offset), size);
      if (!bytes) continue;
      const block = rotation === undefined ? bytes : decodeBlock(bytes, kernBase, rotation);
      const head = readDebuggerData(block, size, pointerSize).PsLoadedModuleList;
      if (head === undefined || !isKernelAddress(head)) continue;
      const first = firstModule(space, head);
      if (first?.base !== kernBase || handler >= kernBase + BigInt(first.size)) continue;
      found = {
        base: va(kernBase),
        size: first.size,
        timeDateStamp: 0,
        checkSum: 0,
        directories: [],
        exportName: undefined,
        pdb: undefined,
      };
      return;
    }
  });
  if (!found) return undefined;
  const header = readPeImage(space, found.base, space.image.machine.imageFileMachine);
  if (header instanceof Reason) return found;
  // An image with names was looked at and refused for them; without, the block's word is enough.
  const kernel = kernelAt(space, found.base);
  return kernel instanceof Reason ? undefined : kernel;
}
