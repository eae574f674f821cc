/**
 * What the hypervisor recorded of a guest besides its memory. It agrees with memory or contradicts it, and never decides:
 * any code in the guest's kernel may have told it.
 */
export interface HostWitness {
  /** QEMU's name of the guest's state when it was saved: `paused`, `guest-panicked`. */
  runState: string | undefined;
  /** HV_X64_MSR_CRASH_P0 to P4, which Windows sets at a bug check where QEMU has hv-crash: code and parameters. */
  crash: readonly bigint[] | undefined;
  /** HV_X64_MSR_GUEST_OS_ID (Hyper-V's functional specification, 2.6): the low 16 bits are Windows' build. */
  guestOsId: bigint | undefined;
}
