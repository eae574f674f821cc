// A kernel's worth of call chains, compiled for what the compiler makes of them: leaf functions, frame pointers,
// large frames, saved XMM registers, recursion. Every processor ends in HalHaltProcessor.
#include "guest.h"

// The compiler wants it where floating point is used.
int _fltused = 1;

EXPORT unsigned NtBuildNumber = 1;
// Filled in by the guest's builder: as drivers' entries are.
EXPORT void (*KiDispatchTable[4])(u64) = {(void (*)(u64))1};
// The builder's own variables lie here: see RVA in ../guest.ts.
EXPORT char KiBuilderData[0x60000];

EXPORT void HalHaltProcessor(u64 why);
EXPORT void KiChainedWait(u64 depth);
EXPORT u64 KiSwitchStack(char *top, u64 (*function)(u64), u64 argument);
EXPORT NOINLINE void KeBugCheckEx(u64 code) { HalHaltProcessor(code); }

// An array whose size only the caller knows: a frame pointer.
EXPORT NOINLINE u64 KeDelayExecutionThread(u64 bytes, u64 processor) {
  char *buffer = __builtin_alloca(bytes);
  USED(buffer);
  KiDispatchTable[0](processor);
  return buffer[0] + bytes;
}

// More than a page: probed, in a large allocation.
EXPORT NOINLINE u64 IoCallDriver(u64 processor) {
  char buffer[6000];
  USED(buffer);
  u64 result = KeDelayExecutionThread(0x123 + processor * 0x40, processor);
  return result + buffer[5999];
}

// Values in non-volatile XMM registers over calls.
EXPORT NOINLINE double KeFloatingWork(u64 processor, double x) {
  double a = x * 1.5, b = x + 2.5, c = x / 3.5;
  // Of what the builder leaves alone, the end.
  KiSwitchStack(KiBuilderData + 0x50000 + 0x4000 * processor, IoCallDriver, processor);
  double d = a * b;
  IoCallDriver(processor);
  return a + b * c + d;
}

EXPORT NOINLINE u64 KiRecurse(u64 depth, u64 processor) {
  if (depth == 0) return (u64)KeFloatingWork(processor, 1.25 + (double)processor);
  return KiRecurse(depth - 1, processor) * 3 + depth;
}

EXPORT NOINLINE void KiIdleLoop(u64 processor) {
  for (;;) KiRecurse(3 + processor, processor);
}

// A breakpoint in the kernel, whose handler then touches memory that is not there.
EXPORT NOINLINE u64 KiDebugBreak(u64 processor) {
  __asm__ volatile("int3" ::: "memory");
  return processor + 1;
}

EXPORT NOINLINE void KiTrapLoop(u64 processor) {
  for (;;) KiRecurse(KiDebugBreak(processor), processor);
}

EXPORT NOINLINE u64 KdReadMissing(const volatile u64 *address, u64 n) { return address[0] + n; }

EXPORT NOINLINE void KdTrap(u64 frame) {
  u64 copy[64];
  USED(copy);
  copy[0] = KdReadMissing((const volatile u64 *)0xffffb00000001008, copy[1]) + 1;
}

EXPORT NOINLINE void KiBugCheckDispatch(u64 code) {
  u64 copy[32];
  USED(copy);
  KeBugCheckEx(code + (copy[0] & 0));
}

// Near address 0 nothing is ever paged in.
EXPORT NOINLINE void MmAccessFault(u64 frame) {
  u64 address;
  __asm__ volatile("mov %%cr2, %0" : "=r"(address));
  if (address < 0x10000) KiBugCheckDispatch(0xd1);
  KiChainedWait(frame & 7);
}

EXPORT NOINLINE u64 NtDelayExecution(u64 frame, u64 number) {
  if (number != 0x34) KeBugCheckEx(number);
  return IoCallDriver(2) + frame;
}

// The processor's first function: nothing called it.
EXPORT void KiThreadStartup(u64 processor) {
  if (processor == 1) KiTrapLoop(processor);
  KiIdleLoop(processor);
  HalHaltProcessor(0);
}
