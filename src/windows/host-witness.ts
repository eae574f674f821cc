/** Holds what the hypervisor recorded of a guest against what its memory says. */
import type { Diagnostics } from '../core/errors.ts';
import { hex64 } from '../core/units.ts';
import type { HostWitness } from '../memory/host-witness.ts';
import type { BugCheck } from './crash.ts';
import type { Evidence } from './evidence.ts';

const STEP = 'hypervisor';

/** Of HV_X64_MSR_GUEST_OS_ID: whose system it is and which; Microsoft's Windows NT. */
const MICROSOFT = 1n;
const WINDOWS_NT = 4n;

/** The build that a guest of Microsoft's told its hypervisor, modulo 2^16; undefined for others. */
export function guestBuild(id: bigint | undefined): number | undefined {
  if (id === undefined || id >> 63n !== 0n) return undefined;
  if (((id >> 48n) & 0x7fffn) !== MICROSOFT || ((id >> 40n) & 0xffn) !== WINDOWS_NT) return undefined;
  return Number(id & 0xffffn);
}

/** Adds evidence where both agree, and a warning where they do not. */
export function heedHost(
  host: HostWitness,
  { bugCheck, build }: { bugCheck: BugCheck | undefined; build: number },
  { diagnostics, evidence }: { diagnostics: Diagnostics; evidence: Evidence },
): void {
  const doubt = (message: string) => diagnostics.add('warning', 'host-contradicts', message);
  const told = guestBuild(host.guestOsId);
  if (told !== undefined) {
    const method = `guest OS ID ${hex64(host.guestOsId!)}`;
    if (told === (build & 0xffff)) evidence.accept(STEP, method, `build ${told}, as memory says`);
    else {
      evidence.reject(STEP, method, `build ${told}, but memory says ${build}`);
      doubt(`the guest told its hypervisor that it is build ${told}, but memory says ${build}: memory was believed`);
    }
  }
  const [code, ...parameters] = host.crash ?? [];
  if (code === undefined) {
    if (host.runState === 'guest-panicked' && !bugCheck)
      doubt('QEMU says that the guest panicked, but memory has no bug check');
    return;
  }
  const text = `${hex64(code)} (${parameters.map(hex64).join(', ')})`;
  const agrees =
    bugCheck !== undefined &&
    BigInt.asUintN(32, code) === BigInt(bugCheck.code >>> 0) &&
    bugCheck.parameters.every((parameter, i) => parameter === parameters[i]);
  if (agrees) {
    evidence.accept(STEP, 'crash parameters', `bug check ${text}, as memory says`);
    return;
  }
  const memory = bugCheck
    ? `${hex64(BigInt(bugCheck.code >>> 0))} (${bugCheck.parameters.map(hex64).join(', ')})`
    : 'none';
  evidence.reject(STEP, 'crash parameters', `bug check ${text}, but memory has ${memory}`);
  doubt(`the guest told its hypervisor of bug check ${text}, but memory has ${memory}: memory was believed`);
}
