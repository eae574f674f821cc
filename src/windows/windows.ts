import type { Diagnostics } from '../core/errors.ts';
import type { Reason } from '../core/reason.ts';
import type { PhysicalAddress } from '../core/units.ts';
import type { CpuState } from '../machines/machine.ts';
import type { AddressSpace } from '../memory/address-space.ts';
import type { MemoryImage } from '../memory/image.ts';
import type { Crash } from './crash.ts';
import type { Attempt } from './evidence.ts';
import type { Kdbg } from './kdbg.ts';
import type { KernelImage } from './kernel-image.ts';
import type { Module } from './modules.ts';
import type { RamRange } from './physical-memory.ts';
import type { BadProcessor, Processor } from './processors.ts';
import type { SharedData } from './shared-user-data.ts';
import type { WindowsVersion } from './version.ts';

/** Windows as found in a memory image. */
export interface Windows {
  image: MemoryImage;
  /** The kernel's address space, by the root that was accepted. */
  space: AddressSpace;
  root: PhysicalAddress;
  /** The root for the dump's header: debuggers walk four levels. */
  headerRoot: PhysicalAddress;
  kernel: KernelImage;
  kdbg: Kdbg;
  version: WindowsVersion;
  shared: SharedData;
  /** undefined in a guest that did not crash. */
  crash: Crash | undefined;
  processors: readonly Processor[];
  /** Entries of KiProcessorBlock that should be PRCBs and are not. */
  damagedProcessors: readonly BadProcessor[];
  /** CPU states that run no Windows processor. */
  strayCpus: readonly CpuState[];
  modules: readonly Module[];
  /** What Windows counts as RAM, or why that is unknown. */
  physicalMemory: readonly RamRange[] | Reason;
  evidence: readonly Attempt[];
  diagnostics: Diagnostics;
}
