// Types of all kinds, as a kernel has them.
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned u32;
typedef unsigned long long u64;

enum kind { First, Last = 70000 };
struct opaque;
struct wide {
  char fill[0x12345];
  u64 last;
};

typedef struct _LIST_ENTRY {
  struct _LIST_ENTRY *Flink, *Blink;
} LIST_ENTRY;

typedef struct _KDPC_DATA {
  LIST_ENTRY DpcList;
  u64 DpcLock;
  volatile int DpcQueueDepth;
  u32 DpcCount;
  void *volatile ActiveDpc;
} KDPC_DATA;

struct _KPRCB {
  u32 MxCsr;
  u8 LegacyNumber;
  u8 Low : 3, High : 4;
  u16 Half;
  struct opaque *CurrentThread;
  KDPC_DATA DpcData[2];
  union {
    u64 Whole;
    struct {
      u32 LowPart, HighPart;
    };
  };
  union {
    u64 One;
    u32 Other;
  } Named;
  enum kind Kind;
  const volatile long long Constant;
  float Single;
  double Double;
  void (*Routine)(int);
  unsigned short *Text;
  u64 Nine : 9, Rest : 55;
  int Grid[3][5];
  struct wide Wide;
  u64 Behind;
  __int128 Huge;
  signed char Signed;
  short Short;
  _Bool Flag;
} Prcb;

#define TEN(p) u32 p##0, p##1, p##2, p##3, p##4, p##5, p##6, p##7, p##8, p##9;
#define HUNDRED(p) TEN(p##0) TEN(p##1) TEN(p##2) TEN(p##3) TEN(p##4) TEN(p##5) TEN(p##6) TEN(p##7) TEN(p##8) TEN(p##9)
#define THOUSAND(p) \
  HUNDRED(p##0) HUNDRED(p##1) HUNDRED(p##2) HUNDRED(p##3) HUNDRED(p##4) \
  HUNDRED(p##5) HUNDRED(p##6) HUNDRED(p##7) HUNDRED(p##8) HUNDRED(p##9)

// More members than one record holds.
struct _MANY {
  THOUSAND(AMemberWhoseNameIsLongEnoughToFillRecords0)
  THOUSAND(AMemberWhoseNameIsLongEnoughToFillRecords1)
  THOUSAND(AMemberWhoseNameIsLongEnoughToFillRecords2)
} Many;
