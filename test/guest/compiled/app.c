// A program: its processors are caught in a system call, or in its own loop.
#include "guest.h"

__declspec(dllimport) u64 NtDelayExecution(u64 a, u64 b);

EXPORT NOINLINE u64 AppSpin(u64 n) {
  for (;;) __asm__ volatile("pause" ::: "memory");
  return n;
}

EXPORT NOINLINE u64 AppWait(u64 bytes, u64 how) {
  char *buffer = __builtin_alloca(bytes);
  USED(buffer);
  u64 result = how == 2 ? NtDelayExecution(bytes, how) : AppSpin(bytes);
  return result + buffer[0];
}

EXPORT NOINLINE u64 AppWork(u64 depth, u64 how) {
  if (depth == 0) return AppWait(0x77, how);
  return AppWork(depth - 1, how) * 5 + depth;
}

EXPORT void AppMain(u64 how) {
  volatile u64 result = AppWork(3, how);
  (void)result;
  for (;;);
}
