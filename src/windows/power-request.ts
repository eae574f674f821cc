/** Which driver holds a power request, by the request's own structures, all of which wdm.h declares. */
import { isKernelAddress } from '../core/bits.ts';
import { IO_TYPE, IRP_MJ_POWER, REQUEST_STRUCTURES } from '../formats/win-kernel.ts';
import type { Module } from './modules.ts';
import type { Windows } from './windows.ts';

/**
 * The driver of the device that an IRP's current stack location is of. undefined where what is at `address` is no power
 * request, or its device is none of a loaded module's.
 */
export function holderOfPowerRequest({ space, modules, image }: Windows, address: bigint): Module | undefined {
  const { irp: layout, stackLocation, deviceDriver, driverStart } = REQUEST_STRUCTURES[image.machine.pointerSize];
  const read = (at: bigint, length: number) => (isKernelAddress(at) ? space.read(at, length) : undefined);
  const typeAt = (at: bigint) => read(at, 2)?.readUInt16LE();
  const pointer = (at: bigint) => (isKernelAddress(at) ? space.readPointer(at) : undefined);
  const bytes = read(address, layout.size);
  if (!bytes) return undefined;
  const { Type, StackCount, CurrentLocation, CurrentStackLocation } = layout.read(bytes);
  // Locations follow the IRP, the lowest driver's first.
  const location = address + BigInt(layout.size + (CurrentLocation - 1) * stackLocation.size);
  const isCurrent = CurrentLocation >= 1 && CurrentLocation <= StackCount && CurrentStackLocation === location;
  const current = Type === IO_TYPE.irp && isCurrent ? read(location, stackLocation.size) : undefined;
  if (!current) return undefined;
  const { MajorFunction, DeviceObject } = stackLocation.read(current);
  if (MajorFunction !== IRP_MJ_POWER || typeAt(DeviceObject) !== IO_TYPE.device) return undefined;
  const driver = pointer(DeviceObject + BigInt(deviceDriver));
  if (driver === undefined || typeAt(driver) !== IO_TYPE.driver) return undefined;
  const start = pointer(driver + BigInt(driverStart));
  return modules.find(({ base }) => base === start);
}
