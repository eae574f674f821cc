// Where a thread of user mode begins.
#include "guest.h"

EXPORT NOINLINE void RtlUserThreadStart(void (*start)(u64), u64 argument) {
  u64 local = argument;
  USED(&local);
  start(local);
  for (;;);
}
