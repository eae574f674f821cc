// A second file that inlines what the first one does.
#include "inlines.h"

NOINLINE u64 MixOutside(u64 a, u64 b) {
  if (a < b) return Mix(b, a);
  return Rotate(Mix(a, b),
                3);
}

static NOINLINE u64 StaticLeaf(u64 x) {
  return x ^ Table[3];
}

__declspec(dllexport) u64 SecondEntry(u64 x) {
  u64 y = StaticLeaf(x);
  y = Fold(y);
  return MixOutside(y, x);
}

__declspec(dllexport) NOINLINE u64 EqualFour(u64 x) {
  return x * 77 + 1;
}
