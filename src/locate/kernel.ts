/** The kernel image: from the interrupt handlers downwards to a PE whose export name or CodeView record is the kernel's. */
import { because, Reason } from '../core/reason.ts';
import { hex64, KIB, MIB, PAGE_SIZE, type VirtualAddress, va } from '../core/units.ts';
import { MZ } from '../formats/pe.ts';
import type { AddressSpace } from '../memory/address-space.ts';
import type { Evidence } from '../windows/evidence.ts';
import type { KernelImage } from '../windows/kernel-image.ts';
import { describeImage, exportName, NO_MZ, type PeImage, pdbIdentity, readPeImage } from '../windows/pe-image.ts';

/** Names this step in evidence. */
export const KERNEL_STEP = 'kernel image';

/** How far below a handler the image can begin: checked builds have some 32 MiB. */
export const MAX_KERNEL_SIZE = 64 * MIB;

/** Kernels since Windows 10 2004 begin at 2 MiB, older ones at 64 KiB or any page: try the wide steps first. */
const STEPS = [2 * MIB, 64 * KIB, PAGE_SIZE];

/** Handlers can be hooked by other modules, and stacks hold addresses of all: some are tried before giving up. */
const MAX_TRIES = 32;

/** Kernels of all flavours are linked as ntoskrnl.exe; older PDB names tell uni- from multiprocessor ones. */
const KERNEL_PDB = /^nt(oskrnl|krnlmp|krnlpa|krpamp|krla57)\.pdb$/i;
const KERNEL_NAME = /^nt(oskrnl|krnlmp|krnlpa|krpamp|krla57)\.exe$/i;

/** Names that an image has, and whether they are the kernel's. */
interface Named {
  kernel: KernelImage;
  /** `sure`: by a name that no other one contradicts. `doubtful`: its names differ. `nameless`: none is present. */
  verdict: 'sure' | 'doubtful' | 'nameless' | 'other';
}

/** Export name and CodeView record are two witnesses; a page of either may be missing, or have other contents. */
function nameImage(space: AddressSpace, image: PeImage): Named {
  const name = exportName(space, image);
  const pdb = pdbIdentity(space, image);
  const kernel = { ...image, exportName: name, pdb };
  if (name === undefined && pdb === undefined) return { kernel, verdict: 'nameless' };
  const votes = [name === undefined ? undefined : KERNEL_NAME.test(name), pdb && KERNEL_PDB.test(pdb.name)];
  if (!votes.includes(true)) return { kernel, verdict: 'other' };
  return { kernel, verdict: votes.includes(false) ? 'doubtful' : 'sure' };
}

const refusal = ({ exportName: name, pdb, ...image }: KernelImage): Reason =>
  because(`${describeImage(name ?? pdb?.name, image)} is not the kernel`);

/** The kernel image with its header at `base`: without a name too, where the caller knows that it is one. */
export function kernelAt(space: AddressSpace, base: bigint): KernelImage | Reason {
  const image = readPeImage(space, base, space.image.machine.imageFileMachine);
  if (image instanceof Reason) return image;
  const { kernel, verdict } = nameImage(space, image);
  return verdict === 'other' ? refusal(kernel) : kernel;
}

const roundDown = (address: bigint, step: number): bigint => address - (address % BigInt(step));

/** Looks below `address`, which is believed to lie in the kernel. */
function kernelBelow(space: AddressSpace, address: VirtualAddress): Named | Reason {
  let reason = because(`no image begins in the ${MAX_KERNEL_SIZE / MIB} MiB below`);
  const top = roundDown(address, PAGE_SIZE);
  const bottom = top - BigInt(MAX_KERNEL_SIZE);
  for (const step of STEPS) {
    let base = roundDown(top, step);
    while (base >= bottom) {
      const mapping = space.walk(base);
      if ('reason' in mapping) {
        // Nothing begins in a hole: go on at the last step below it.
        const region = BigInt(mapping.region);
        base = roundDown(base - (base % region) - 1n, step);
        continue;
      }
      const image = readPeImage(space, base, space.image.machine.imageFileMachine);
      if (!(image instanceof Reason)) {
        if (BigInt(image.size) <= address - base) {
          reason = because(`an image at ${hex64(base)} ends below it`);
        } else {
          const named = nameImage(space, image);
          if (named.verdict === 'sure' || named.verdict === 'doubtful') return named;
          reason = refusal(named.kernel);
        }
      } else if (image !== NO_MZ && step === PAGE_SIZE) {
        reason = because(`${hex64(base)}: ${image}`);
      }
      base -= BigInt(step);
    }
  }
  return reason;
}

/** Looks below each address in turn. An image whose names differ is the kernel only where none is for sure. */
export function findKernel(
  space: AddressSpace,
  addresses: Iterable<CodeAddress>,
  evidence: Evidence,
): KernelImage | undefined {
  const tried = new Set<bigint>();
  let doubtful: { kernel: KernelImage; method: string } | undefined;
  for (const { address, why } of addresses) {
    // Addresses of one image lie close together: one try per 64 KiB is enough.
    const neighbourhood = address >> 16n;
    if (tried.has(neighbourhood)) continue;
    if (doubtful && isIn(doubtful.kernel, address)) continue;
    if (tried.size >= MAX_TRIES) break;
    tried.add(neighbourhood);
    const method = `down from ${hex64(address)}, ${why}`;
    const found = kernelBelow(space, address);
    if (found instanceof Reason) evidence.reject(KERNEL_STEP, method, found.text);
    else if (found.verdict === 'doubtful') doubtful ??= { kernel: found.kernel, method };
    else {
      if (doubtful)
        evidence.reject(KERNEL_STEP, doubtful.method, `${describeKernel(doubtful.kernel)}: its names differ`);
      evidence.accept(KERNEL_STEP, method, describeKernel(found.kernel));
      return found.kernel;
    }
  }
  if (!doubtful) return undefined;
  const detail = `${describeKernel(doubtful.kernel)}: its names differ, and no other image has the kernel's`;
  evidence.accept(KERNEL_STEP, doubtful.method, detail);
  return doubtful.kernel;
}

/** Pages that `kernelsAmongImages` looks at: 2 GiB of images. */
const MAX_IMAGE_PAGES = 1 << 19;

/** What was found in a space already: the search for a kernel and the recovery of one without its header both ask. */
const AMONG_IMAGES = new WeakMap<AddressSpace, readonly CodeAddress[]>();

/** Addresses in images that have the kernel's names, of all that begin where the machine's Windows maps images. */
export function* kernelsAmongImages(space: AddressSpace): Generator<CodeAddress> {
  const known = AMONG_IMAGES.get(space);
  if (known) return yield* known;
  const found: CodeAddress[] = [];
  for (const address of searchImages(space)) {
    found.push(address);
    yield address;
  }
  AMONG_IMAGES.set(space, found);
}

function* searchImages(space: AddressSpace): Generator<CodeAddress> {
  const { images, imageFileMachine } = space.image.machine;
  const magic = Buffer.alloc(2);
  if (!images) return;
  const end = images.from + BigInt(images.size);
  let at: bigint = images.from;
  for (let pages = 0; at < end && pages < MAX_IMAGE_PAGES; pages++) {
    const mapping = space.walk(at);
    if ('reason' in mapping) {
      const region = BigInt(mapping.region);
      at += region - (at % region);
      continue;
    }
    // Most pages begin no image: that is seen without another walk.
    const isImage = space.image.peek(mapping.physical, magic) && magic.readUInt16LE() === MZ;
    const image = isImage ? readPeImage(space, at, imageFileMachine) : NO_MZ;
    if (image instanceof Reason) {
      at += BigInt(PAGE_SIZE);
      continue;
    }
    const { kernel, verdict } = nameImage(space, image);
    const last = va(at + BigInt(Math.max(image.size, PAGE_SIZE) - 1));
    if (verdict === 'sure' || verdict === 'doubtful') {
      yield { address: last, why: `end of ${describeImage(kernel.exportName, kernel)}` };
    }
    at = last + 1n;
    at += (BigInt(PAGE_SIZE) - (at % BigInt(PAGE_SIZE))) % BigInt(PAGE_SIZE);
  }
}

const isIn = ({ base, size }: KernelImage, address: bigint): boolean =>
  address >= base && address < base + BigInt(size);

/** For evidence: name, base, size and PDB. */
export const describeKernel = (kernel: KernelImage): string =>
  `${describeImage(kernel.exportName, kernel)}, ${kernel.size / KIB} KiB${kernel.pdb ? `, PDB ${kernel.pdb.name}` : ''}`;

/** An address that may lie in the kernel image. */
export interface CodeAddress {
  address: VirtualAddress;
  /** For evidence: `interrupt handler of CPU 2`. */
  why: string;
}
