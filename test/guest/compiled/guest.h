typedef unsigned long long u64;
#define EXPORT __declspec(dllexport)
#define NOINLINE __attribute__((noinline))
// The array is used, whatever the compiler thinks.
#define USED(array) __asm__ volatile("" ::"r"(array) : "memory")
