// Functions of all kinds: exported, static, with inlined calls in one another, equal to others, without a return.
#include "inlines.h"

volatile u64 Sink;
u64 Table[64];

void MarkedLabel(void);

static NOINLINE u64 StaticLeaf(u64 x) {
  Sink = x;
  return x * 3 + Table[x & 63];
}

static NOINLINE u64 StaticCaller(u64 x) {
  u64 y = StaticLeaf(x);
  y += Fold(y);
  return StaticLeaf(y) + y;
}

// Equal but for their names: /opt:icf folds them.
__declspec(dllexport) NOINLINE u64 EqualOne(u64 x) {
  return x * 77 + 1;
}
__declspec(dllexport) NOINLINE u64 EqualTwo(u64 x) {
  return x * 77 + 1;
}
static NOINLINE u64 EqualThree(u64 x) { return x * 77 + 1; }

__declspec(dllexport) NOINLINE u64 DispatchRead(u64 a, u64 b) {
  u64 sum = 0;
  switch (a) {
    case 0: sum = StaticCaller(b); break;
    case 1: sum = Mix(b, a); break;
    case 2: sum = Fold(b) - Fold(a); break;
    case 3: sum = EqualOne(b); break;
    case 4: sum = EqualTwo(b) + EqualThree(a); break;
    default:
      for (u64 i = 0; i < a; i++) {
        sum ^= Mix(i, b);
        if (sum == 77)
          break;
      }
  }
  return sum;
}

__declspec(noreturn) NOINLINE void NeverReturns(u64 code) {
  Sink = code;
  for (;;) MarkedLabel();
}

__declspec(dllexport) NOINLINE u64 EndsInCall(u64 a) {
  if (a > 7) return Mix(a, a);
  NeverReturns(a);
}

__declspec(dllexport) NOINLINE u64 LongFunction(u64 a) {
  u64 sum = a;
  sum += Mix(sum, 1);
  sum += Mix(sum, 2);
  sum += Mix(sum, 3);
  sum += Fold(sum);
  sum = MixOutside(sum, 4);
  sum += StaticLeaf(sum);
  sum += Fold(sum);
  sum = Rotate(sum, 9) + Rotate(sum, 11);
  return sum;
}

__declspec(dllexport) u64 DriverEntry(u64 a, u64 b) {
  MarkedLabel();
  return DispatchRead(a, b) + EndsInCall(b) + LongFunction(a);
}
