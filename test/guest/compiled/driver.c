// A driver that the kernel calls through a pointer, and that calls the kernel through its import table.
#include "guest.h"

__declspec(dllimport) void HalHaltProcessor(u64 why);

#ifdef REBUILT
EXPORT NOINLINE u64 DemoNew(u64 a, u64 b) { return (a ^ b) * 0x123456789abcdef1 + (a >> (b & 31)); }
#endif

EXPORT NOINLINE u64 DemoWork(u64 a, u64 b, u64 c, u64 d, u64 e, u64 f, u64 g, u64 h) {
  HalHaltProcessor(a + b);
  return a * b + c * d + e * f + g * h;
}

// In the stack without symbols this is not to be seen.
static inline __attribute__((always_inline)) u64 DemoBlend(u64 a, u64 b) {
  u64 first = DemoWork(a, b, 1, 2, 3, 4, 5, 6);
  return first ^ DemoWork(b, first, 1, 2, 3, 4, 5, 6);
}

EXPORT NOINLINE u64 DemoTransfer(u64 processor) {
  u64 sum = 0;
  for (u64 i = 0; i < 4; i++) {
    sum += DemoBlend(processor + i, sum);
  }
  return sum;
}

EXPORT void DemoDispatch(u64 processor) {
  u64 results[32];
  USED(results);
  results[processor & 31] = DemoTransfer(processor) + 1;
}

// What crashes: filled in by the guest's builder.
EXPORT volatile u64 DemoCrashing = ~0ull;

EXPORT NOINLINE u64 DemoTouch(const volatile u64 *address) { return address[2]; }

EXPORT NOINLINE u64 DemoRead(u64 address) { return DemoTouch((const volatile u64 *)address) * 3 + 1; }

EXPORT NOINLINE u64 DemoReadToo(u64 address) { return DemoTouch((const volatile u64 *)address) * 5 + 2; }

EXPORT void DemoFault(u64 processor) {
  u64 results[32];
  USED(results);
  if (processor == DemoCrashing) results[0] = DemoRead(0);
  results[processor & 31] = DemoTransfer(processor) + 1;
}

EXPORT void DemoFaultToo(u64 processor) {
  u64 results[32];
  USED(results);
  if (processor == DemoCrashing) results[0] = DemoReadToo(0);
  results[processor & 31] = DemoTransfer(processor) + 1;
}
