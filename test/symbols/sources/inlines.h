// Functions that are inlined into those of two files, and into one another.
#pragma once

typedef unsigned long long u64;
#define NOINLINE __attribute__((noinline))
#define INLINE static inline __attribute__((always_inline))

extern volatile u64 Sink;
extern u64 Table[64];
u64 MixOutside(u64 a, u64 b);

INLINE u64 Rotate(u64 x, int by) {
  return (x << by) | (x >> (64 - by));
}

INLINE u64 Mix(u64 a, u64 b) {
  u64 c = Rotate(a, 7) ^ b;
  Sink = c;
  c += Table[c & 63];
  return c * 0x9e3779b97f4a7c15ull;
}

INLINE u64 Fold(u64 a) {
  u64 sum = 0;
  for (int i = 0; i < 5; i++) {
    sum += Mix(a, i);
    if (sum & 1) sum = MixOutside(sum, a);
  }
  return sum;
}
