// What a compiler makes of call chains on ARM64: packed unwind data and .xdata, leaf functions, frame pointers, large
// frames, saved vector registers, recursion, functions that never return. Processors end in HalHaltProcessor.
#include "guest.h"

// The compiler wants it where floating point is used.
int _fltused = 1;

EXPORT void HalHaltProcessor(u64 why);
EXPORT u64 DemoSwitchStack(char *top, u64 (*function)(u64), u64 argument);
EXPORT u64 DemoSigned(u64 (*function)(u64), u64 argument);

static char other_stacks[0x20000];

// An array whose size only the caller knows: a frame pointer that SP is not.
EXPORT NOINLINE u64 DemoDelay(u64 bytes, u64 processor) {
  char *buffer = __builtin_alloca(bytes);
  USED(buffer);
  HalHaltProcessor(processor);
  return buffer[0] + bytes;
}

// More than a page: probed.
EXPORT NOINLINE u64 DemoLarge(u64 processor) {
  char buffer[6000];
  USED(buffer);
  u64 result = DemoDelay(0x123 + processor * 0x40, processor);
  return result + buffer[5999];
}

EXPORT NOINLINE u64 DemoSmall(u64 a, u64 b, u64 c, u64 d, u64 processor) {
  u64 result = DemoSigned(DemoLarge, processor);
  return result + a * b + c * d;
}

EXPORT NOINLINE u64 DemoOnOtherStack(u64 processor) { return DemoSmall(processor, 2, 3, 4, processor) + 1; }

// Values in non-volatile vector registers over calls.
EXPORT NOINLINE double DemoFloating(u64 processor, double x) {
  double a = x * 1.5, b = x + 2.5, c = x / 3.5, e = x - 4.5;
  DemoSwitchStack(other_stacks + 0x8000 + 0x4000 * processor, DemoOnOtherStack, processor);
  double d = a * b;
  DemoLarge(processor);
  return a + b * c + d * e;
}

EXPORT NOINLINE u64 DemoRecurse(u64 depth, u64 processor) {
  if (depth == 0) return (u64)DemoFloating(processor, 1.25 + (double)processor);
  return DemoRecurse(depth - 1, processor) * 3 + depth;
}

// Its call is its last instruction: the return address is the next function's.
__attribute__((noreturn)) NOINLINE EXPORT void DemoNever(u64 processor) {
  DemoRecurse(3 + processor, processor);
  for (;;) HalHaltProcessor(processor);
}

EXPORT NOINLINE void DemoThread(u64 processor) {
  u64 copy[8];
  USED(copy);
  DemoNever(processor + (copy[0] & 0));
}

// Several ways out.
EXPORT NOINLINE u64 DemoWaysOut(u64 a, u64 b, u64 c) {
  u64 copy[20];
  USED(copy);
  if (a == 0) return DemoLarge(b) + copy[1];
  if (b == 0) return DemoSmall(a, b, c, copy[2], 0) * c;
  for (u64 i = 0; i < a; i++) copy[i & 7] += DemoLarge(i + c);
  return copy[3] + b;
}

// Parameters that are kept where variable arguments are.
EXPORT NOINLINE u64 DemoVariable(u64 count, ...) {
  __builtin_va_list list;
  __builtin_va_start(list, count);
  u64 sum = 0;
  for (u64 i = 0; i < count; i++) sum += DemoLarge(__builtin_va_arg(list, u64));
  __builtin_va_end(list);
  return sum;
}

EXPORT NOINLINE u64 DemoMany(u64 a, u64 b, u64 c, u64 d, u64 e, u64 f) {
  u64 r = DemoLarge(a);
  r += DemoLarge(b) * a + c;
  r += DemoLarge(c) * b + d;
  r += DemoLarge(d) * c + e;
  r += DemoLarge(e) * d + f;
  return r + DemoLarge(f) * e + a * b * c * d * e * f;
}

EXPORT NOINLINE u64 DemoSystemCall(u64 number, u64 argument) { return DemoLarge(number & 3) + argument; }

EXPORT NOINLINE u64 DemoLeaf(u64 a, u64 b) { return a * b + 17; }
