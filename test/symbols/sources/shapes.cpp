// C++: namespaces, classes, templates, overloads, lambdas.
extern "C" {
#include "inlines.h"
}

namespace outer {
namespace inner {

class Shape {
 public:
  __declspec(noinline) Shape(u64 sides) : sides_(sides) { Sink = sides; }
  __declspec(noinline) ~Shape() { Sink = sides_ + 1; }
  __declspec(noinline) u64 area(u64 scale) const {
    return scaled(scale) + sides_;
  }
  __declspec(noinline) static u64 count() { return Table[5]; }
  __declspec(noinline) Shape &operator+=(u64 more) {
    sides_ += more;
    return *this;
  }

 private:
  __forceinline u64 scaled(u64 scale) const {
    u64 result = sides_ * scale;
    Sink = result;
    return Mix(result, scale);
  }
  u64 sides_;
};

template <typename T>
__declspec(noinline) T largest(T a, T b) {
  Sink = (u64)a;
  return a > b ? a : b;
}

__forceinline u64 helper(u64 x) {
  Sink = x;
  return x + 3;
}

}  // namespace inner

__declspec(noinline) u64 overloaded(u64 x) {
  return inner::helper(x) * 5;
}
__declspec(noinline) u64 overloaded(u64 x, int y) {
  return inner::helper(x) * 7 + y;
}

}  // namespace outer

namespace {
__declspec(noinline) u64 hidden(u64 x) {
  Sink = x;
  return x * 11;
}
}  // namespace

extern "C" __declspec(dllexport) u64 ShapesEntry(u64 x) {
  outer::inner::Shape shape(x);
  shape += 4;
  auto twice = [&](u64 y) __attribute__((noinline)) {
    Sink = y;
    return y * 2 + x;
  };
  return shape.area(3) + outer::inner::largest<u64>(x, 3) + outer::inner::largest<int>((int)x, 3) +
         outer::overloaded(x) + outer::overloaded(x, 1) + hidden(x) + twice(x) + outer::inner::Shape::count();
}
