// A program of ARM64 whose thread is caught in a system call, or in its own code.
#include "guest.h"

EXPORT u64 AppSystemCall(u64 number, u64 argument);
EXPORT NOINLINE void AppSpin(void) {
  for (;;) __asm__ volatile("");
}

EXPORT NOINLINE u64 AppWork(u64 depth, u64 processor) {
  u64 copy[10];
  USED(copy);
  if (depth == 0) {
    if (processor == 1) AppSpin();
    return AppSystemCall(processor, copy[1]);
  }
  return AppWork(depth - 1, processor) * 3 + copy[depth];
}

EXPORT NOINLINE void AppMain(u64 processor) {
  for (;;) AppWork(3, processor);
}

EXPORT void AppThread(u64 processor) {
  AppMain(processor);
  AppSpin();
}
