/**
 * What the four parameters of a bug check mean, in our words, after Microsoft's public pages on each code (Windows driver
 * documentation, November 2025). A code is one row; where the first parameter (or the fourth) decides what the others
 * are, `by` says so and `cases` has them.
 */

/** One parameter. A string alone is what it means; `null`: reserved or unused. */
export type Parameter = string | null | ParameterSpec;

export interface ParameterSpec {
  what: string;
  /** It is an address in the guest: where it lies is worth a look. */
  address?: true;
  /** Its value's words, where it is one of a few; `bits` are tested one by one. */
  values?: Readonly<Record<number, string>>;
}

export type Parameters = readonly [Parameter, Parameter, Parameter, Parameter];

export interface BugCheckParameters {
  parameters: Parameters;
  /** Index of the parameter that decides what the others are. */
  by?: 0 | 1 | 3;
  /** Replacements for `parameters`, by that one's value. */
  cases?: Readonly<Record<number, Parameters>>;
}

const at = (what: string): ParameterSpec => ({ what, address: true });
const one = (what: string, values: Readonly<Record<number, string>>): ParameterSpec => ({ what, values });

/** Values of NTSTATUS that exceptions and failed reads have (ntstatus.h). */
const STATUS: Readonly<Record<number, string>> = {
  2147483649: 'STATUS_GUARD_PAGE_VIOLATION',
  2147483650: 'STATUS_DATATYPE_MISALIGNMENT',
  2147483651: 'STATUS_BREAKPOINT',
  2147483652: 'STATUS_SINGLE_STEP',
  3221225473: 'STATUS_UNSUCCESSFUL',
  3221225477: 'STATUS_ACCESS_VIOLATION',
  3221225478: 'STATUS_IN_PAGE_ERROR',
  3221225486: 'STATUS_NO_SUCH_DEVICE',
  3221225487: 'STATUS_NO_SUCH_FILE',
  3221225489: 'STATUS_END_OF_FILE',
  3221225495: 'STATUS_NO_MEMORY',
  3221225501: 'STATUS_ILLEGAL_INSTRUCTION',
  3221225506: 'STATUS_ACCESS_DENIED',
  3221225509: 'STATUS_NONCONTINUABLE_EXCEPTION',
  3221225522: 'STATUS_DISK_CORRUPT_ERROR',
  3221225524: 'STATUS_OBJECT_NAME_NOT_FOUND',
  3221225530: 'STATUS_OBJECT_PATH_NOT_FOUND',
  3221225612: 'STATUS_ARRAY_BOUNDS_EXCEEDED',
  3221225614: 'STATUS_FLOAT_DIVIDE_BY_ZERO',
  3221225620: 'STATUS_INTEGER_DIVIDE_BY_ZERO',
  3221225621: 'STATUS_INTEGER_OVERFLOW',
  3221225622: 'STATUS_PRIVILEGED_INSTRUCTION',
  3221225626: 'STATUS_INSUFFICIENT_RESOURCES',
  3221225628: 'STATUS_DEVICE_DATA_ERROR',
  3221225629: 'STATUS_DEVICE_NOT_CONNECTED',
  3221225653: 'STATUS_IO_TIMEOUT',
  3221225725: 'STATUS_STACK_OVERFLOW',
  3221225730: 'STATUS_FILE_CORRUPT_ERROR',
  3221225773: 'STATUS_COMMITMENT_LIMIT',
  3221225804: 'STATUS_REGISTRY_CORRUPT',
  3221225805: 'STATUS_REGISTRY_IO_FAILED',
  3221225807: 'STATUS_UNRECOGNIZED_VOLUME',
  3221225861: 'STATUS_IO_DEVICE_ERROR',
  3221226008: 'STATUS_CANNOT_LOAD_REGISTRY_FILE',
  3221226010: 'STATUS_SYSTEM_PROCESS_TERMINATED',
  3221226017: 'STATUS_IMAGE_CHECKSUM_MISMATCH',
  3221226021: 'STATUS_NOT_FOUND',
  3221226094: 'STATUS_VOLUME_DISMOUNTED',
  3221226356: 'STATUS_HEAP_CORRUPTION',
  3221226505: 'STATUS_STACK_BUFFER_OVERRUN',
  3221226528: 'STATUS_ASSERTION_FAILURE',
};

const IRQL = one('IRQL at that time', { 0: 'PASSIVE_LEVEL', 1: 'APC_LEVEL', 2: 'DISPATCH_LEVEL', 15: 'HIGH_LEVEL' });
const READ_WRITE = { 0: 'read', 1: 'write' };
/** Bit 0 write, bit 3 execute (0xa, 0xd1). */
const ACCESS = one('operation', { 0: 'read', 1: 'write', 2: 'execute', 8: 'execute' });
/** 0 and 1 before Windows 10, the page fault's error code with bits 1 and 4 since then. */
const PAGE_FAULT_ACCESS = one('operation', { 0: 'read', 1: 'write', 2: 'write', 8: 'execute', 16: 'execute' });
const EXCEPTION_CODE = one('exception code that was not handled', STATUS);
const REFERENCED = at('address that was referenced');
const INSTRUCTION = at('address of the instruction');
const KIND = 'kind of fault; it decides what the others are';
const DEPENDS = 'depends on the first';
const TAG = 'pool tag';
const CALLER = at("the caller's address");
const FREED = at('address that was freed');
const CORRUPT_POOL_HEADER: Parameters = [
  'pool header corrupt',
  at('pool header'),
  "first part of the header's contents",
  null,
];
const CORRUPT_QUOTA: Parameters = [
  'quota of a corrupt pool block was released',
  at('address of the pool'),
  "the allocation's tag",
  at('bad pointer to the process with the quota'),
];
const NONPAGED_NOT_ALLOCATED: Parameters = [
  'a nonpaged address was freed that is not allocated',
  FREED,
  'physical page number',
  'highest physical page number',
];
const BAD_ENTRY = at('the bad pool entry');
const MISCALCULATED = at('entry that was calculated wrongly');
const NONE: Parameters = [null, null, null, null];
const EXCEPTION_IN_FILE_SYSTEM: Parameters = [
  "source file (high half) and line (low half) in the driver's source",
  at('exception record, if it was an exception'),
  at('context record, if it was an exception'),
  null,
];
const SPECIAL_POOL_FAULT: Parameters = [
  REFERENCED,
  one('operation', READ_WRITE),
  at('address of the instruction, if it is known'),
  null,
];
const IRQL_FAULT: Parameters = [REFERENCED, IRQL, one('operation', READ_WRITE), INSTRUCTION];
const WRITE_TO_READ_ONLY: Parameters = [
  at('address that was written to'),
  'contents of its page-table entry',
  null,
  null,
];
const TDR: Parameters = [
  'address of the recovery context, if there is one',
  at('address in the responsible display driver, such as its owner tag'),
  'error code of the last failed operation, or a key of the driver',
  'depends on the operation',
];
const PDC_HANG: Parameters = [
  'ID of the component that hangs',
  one('its type', {
    1: 'notification client',
    2: 'resiliency client',
    3: 'activator client',
    256: 'Win32k: monitor on',
  }),
  at('address of the client'),
  at('address of the triage block'),
];
const WATCHDOG_STATE: Parameters = [at('address of the thread'), at('address of the lock'), 'session or IRQL', null];
const LISTED = (what: string, values: Readonly<Record<number, string>>): Parameters => [
  one(what, values),
  DEPENDS,
  DEPENDS,
  DEPENDS,
];

/** Rules of Driver Verifier, parameter 1 of 0xC4 (Microsoft's page on it; the most frequent ones). */
const VERIFIER_RULES: Readonly<Record<number, string>> = {
  0: 'pool of no bytes was requested',
  1: 'paged pool was allocated above APC_LEVEL',
  2: 'nonpaged pool was allocated above DISPATCH_LEVEL',
  16: 'an address was freed that no allocation returned',
  17: 'paged pool was freed above APC_LEVEL',
  18: 'nonpaged pool was freed above DISPATCH_LEVEL',
  19: 'pool was freed twice',
  20: 'pool was freed twice',
  21: 'pool was freed that holds an active timer',
  48: 'KeRaiseIrql was called with a lower IRQL, or none',
  49: 'KeLowerIrql was called with a higher IRQL, or none',
  50: 'a spin lock was released at another IRQL than DISPATCH_LEVEL',
  51: 'a fast mutex was acquired above APC_LEVEL',
  52: 'a fast mutex was released at another IRQL than APC_LEVEL',
  59: 'a thread waits at DISPATCH_LEVEL or above',
  60: 'ObReferenceObjectByHandle was called with a bad handle',
  64: 'KeAcquireSpinLockAtDpcLevel was called below DISPATCH_LEVEL',
  65: 'KeReleaseSpinLockFromDpcLevel was called below DISPATCH_LEVEL',
  66: 'a spin lock was acquired above DISPATCH_LEVEL',
  96: 'the driver unloads without freeing its pool',
  97: 'a thread of the driver allocates pool while the driver unloads',
  98: 'the driver unloads without freeing its pool',
  145: 'the driver switched stacks in a way that Windows does not support',
  224: 'a kernel function was called with an address of user mode',
  225: 'a synchronization object lies at an invalid or pageable address',
  226: 'a kernel-mode request (IRP) holds an address of user mode',
  227: 'a Zw function was called with an address of user mode',
  228: 'a Zw function was called with a malformed UNICODE_STRING',
  229: 'a kernel function was called at a wrong IRQL',
  230: 'a Zw function was called above PASSIVE_LEVEL, or with special kernel APCs disabled',
  240: 'memory was copied by memcpy to where it overlaps',
  245: 'ObReferenceObjectByHandle was called with a null handle',
  246: "a handle of user mode was referenced as the kernel's",
  247: "a handle of the kernel was referenced as user mode's in the System process",
  250: 'a completion routine returned at another IRQL',
  251: 'a completion routine changed the count of disabled APCs',
  252: 'ZwNotifyChangeKey was called with an ApcContext that is not supported',
  273: 'an interrupt service routine returned at another IRQL',
  277: 'shutting down took more than 20 minutes',
  4096: 'a thread waits for a resource that it owns shared itself',
  4097: 'deadlock: resources are acquired in another order elsewhere',
  4098: 'a resource was acquired that is not initialized',
  4099: 'resources were released in a wrong order',
  4100: 'a resource was released by another thread',
  4101: 'a resource was initialized twice',
  4103: 'a resource was released that was not acquired',
  8192: 'executable pool was requested',
  8193: 'executable memory was requested',
  8194: 'an executable mapping was requested',
  8195: 'the image has a section that is executable and writable',
  8196: 'the image has a section that is not page aligned',
};

const VERIFIER_CASES: Readonly<Record<number, Parameters>> = {
  0: [VERIFIER_RULES[0x0]!, 'IRQL at that time', 'pool type', 'bytes requested'],
  1: [VERIFIER_RULES[0x1]!, 'IRQL at that time', 'pool type', 'bytes requested'],
  2: [VERIFIER_RULES[0x2]!, 'IRQL at that time', 'pool type', 'bytes requested'],
  16: [VERIFIER_RULES[0x10]!, at('address that was freed'), null, null],
  17: [VERIFIER_RULES[0x11]!, 'IRQL at that time', 'pool type', at('address of the pool')],
  18: [VERIFIER_RULES[0x12]!, 'IRQL at that time', 'pool type', at('address of the pool')],
  19: [VERIFIER_RULES[0x13]!, null, at('pool header'), 'contents of the pool header'],
  20: [VERIFIER_RULES[0x14]!, null, at('pool header'), 'contents of the pool header'],
  21: [VERIFIER_RULES[0x15]!, at('timer entry'), 'pool type', at('address of the pool')],
  48: [VERIFIER_RULES[0x30]!, 'IRQL at that time', 'IRQL requested', null],
  49: [VERIFIER_RULES[0x31]!, 'IRQL at that time', 'IRQL requested', '0: a wrong IRQL; 1: wrong within a DPC'],
  50: [VERIFIER_RULES[0x32]!, 'IRQL at that time', at('spin lock'), null],
  51: [VERIFIER_RULES[0x33]!, 'IRQL at that time', at('fast mutex'), null],
  52: [VERIFIER_RULES[0x34]!, 'IRQL at that time', at('fast mutex'), null],
  59: [VERIFIER_RULES[0x3b]!, 'IRQL at that time', at('object that is waited for'), at('time-out')],
  60: [VERIFIER_RULES[0x3c]!, 'the handle', at('object type'), null],
  64: [VERIFIER_RULES[0x40]!, 'IRQL at that time', at('spin lock'), null],
  65: [VERIFIER_RULES[0x41]!, 'IRQL at that time', at('spin lock'), null],
  66: [VERIFIER_RULES[0x42]!, 'IRQL at that time', at('spin lock'), null],
  96: [VERIFIER_RULES[0x60]!, 'bytes of paged pool', 'bytes of nonpaged pool', 'allocations that were not freed'],
  97: [VERIFIER_RULES[0x61]!, 'bytes of paged pool', 'bytes of nonpaged pool', 'allocations that were not freed'],
  98: [VERIFIER_RULES[0x62]!, at("driver's name"), null, 'allocations that were not freed'],
  145: [VERIFIER_RULES[0x91]!, null, null, null],
  224: [VERIFIER_RULES[0xe0]!, at('the address'), 'bytes of the range', null],
  225: [VERIFIER_RULES[0xe1]!, at('the object'), null, null],
  226: [VERIFIER_RULES[0xe2]!, at('the IRP'), at('the address'), null],
  227: [VERIFIER_RULES[0xe3]!, at('call in the driver'), at('the address'), null],
  228: [VERIFIER_RULES[0xe4]!, at('call in the driver'), at('the string'), null],
  229: [VERIFIER_RULES[0xe5]!, 'IRQL at that time', null, null],
  230: [VERIFIER_RULES[0xe6]!, at('call in the driver'), 'IRQL at that time', 'special kernel APCs'],
  240: [VERIFIER_RULES[0xf0]!, at('destination'), at('source'), 'bytes to copy'],
  245: [VERIFIER_RULES[0xf5]!, 'the handle', at('object type'), null],
  246: [VERIFIER_RULES[0xf6]!, 'the handle', at('current process'), at('reference in the driver')],
  247: [VERIFIER_RULES[0xf7]!, 'the handle', at('object type'), 'access mode'],
  250: [VERIFIER_RULES[0xfa]!, at('completion routine'), 'IRQL before', 'IRQL after'],
  251: [VERIFIER_RULES[0xfb]!, at('completion routine'), 'count after', 'count before'],
  252: [VERIFIER_RULES[0xfc]!, at('call in the driver'), 'the ApcContext', null],
  273: [VERIFIER_RULES[0x111]!, at('interrupt service routine'), 'IRQL before', 'IRQL after'],
  277: [VERIFIER_RULES[0x115]!, at('thread that may be deadlocked'), null, null],
  4096: [VERIFIER_RULES[0x1000]!, at('the resource'), null, null],
  4097: [VERIFIER_RULES[0x1001]!, at('the resource that completed the deadlock'), null, null],
  4098: [VERIFIER_RULES[0x1002]!, at('the resource'), null, null],
  4099: [VERIFIER_RULES[0x1003]!, at('the resource'), at('the one that should have been released first'), null],
  4100: [VERIFIER_RULES[0x1004]!, at('the resource'), at('thread that acquired it'), at('current thread')],
  4101: [VERIFIER_RULES[0x1005]!, at('the resource'), null, null],
  4103: [VERIFIER_RULES[0x1007]!, at('the resource'), null, null],
  8192: [VERIFIER_RULES[0x2000]!, at('place in the driver'), 'pool type', 'pool tag'],
  8193: [VERIFIER_RULES[0x2001]!, at('place in the driver'), 'page protection', null],
  8194: [VERIFIER_RULES[0x2002]!, at('place in the driver'), 'page priority and mapping flags', null],
  8195: [VERIFIER_RULES[0x2003]!, at("image's name"), at('section header'), at("section's name")],
  8196: [VERIFIER_RULES[0x2004]!, at("image's name"), at('section header'), at("section's name")],
};

const APC_COUNT = "the thread's count of disabled APCs";

/** Further rules of Driver Verifier, each with its parameters. */
const MORE_VERIFIER_RULES: Readonly<Record<number, readonly [string, Parameter, Parameter, Parameter]>> = {
  22: ['pool was freed at a bad address, or with wrong parameters', null, at('address of the pool'), null],
  53: [
    'a spin lock was released at another IRQL than DISPATCH_LEVEL',
    'IRQL at that time',
    at('spin lock'),
    'IRQL before',
  ],
  54: [
    'a queued spin lock was released at another IRQL than DISPATCH_LEVEL',
    'IRQL at that time',
    'number of the spin lock',
    'IRQL before',
  ],
  55: ['a resource was acquired with APCs enabled', 'IRQL at that time', APC_COUNT, at('the resource')],
  56: ['a resource was released with APCs enabled', 'IRQL at that time', APC_COUNT, at('the resource')],
  57: [
    'a mutex was acquired as unsafe at another IRQL than APC_LEVEL',
    'IRQL at that time',
    APC_COUNT,
    at('the mutex'),
  ],
  58: [
    'a mutex was released as unsafe at another IRQL than APC_LEVEL',
    'IRQL at that time',
    APC_COUNT,
    at('the mutex'),
  ],
  61: ['a resource was acquired that is not aligned', null, null, at('the resource')],
  62: ['a critical region was left that was not entered', null, null, null],
  63: [
    'an object without references was referenced or dereferenced',
    at('the object'),
    'new reference count; -1: it was dereferenced',
    null,
  ],
  81: [
    'memory was written beyond the end of the allocation that is freed',
    at('address of the allocation'),
    at('address beyond it'),
    'bytes charged',
  ],
  82: [
    'memory was written beyond the end of the allocation that is freed',
    at('address of the allocation'),
    null,
    'bytes charged',
  ],
  83: [
    'memory was written beyond the end of the allocation that is freed',
    at('address of the allocation'),
    null,
    null,
  ],
  84: [
    'memory was written beyond the end of the allocation that is freed',
    at('address of the allocation'),
    null,
    null,
  ],
  89: [
    'memory was written beyond the end of the allocation that is freed',
    at('address of the allocation'),
    null,
    null,
  ],
  112: ['MmProbeAndLockPages was called above DISPATCH_LEVEL', 'IRQL at that time', at('MDL'), 'access mode'],
  115: ['MmMapIoSpace was called above DISPATCH_LEVEL', 'IRQL at that time', 'physical address', 'bytes'],
  116: [
    'MmMapLockedPages was called for the kernel above DISPATCH_LEVEL',
    'IRQL at that time',
    at('MDL'),
    'access mode',
  ],
  117: ['MmMapLockedPages was called for user mode above APC_LEVEL', 'IRQL at that time', at('MDL'), 'access mode'],
  118: [
    'MmMapLockedPagesSpecifyCache was called for the kernel above DISPATCH_LEVEL',
    'IRQL at that time',
    at('MDL'),
    'access mode',
  ],
  119: [
    'MmMapLockedPagesSpecifyCache was called for user mode above APC_LEVEL',
    'IRQL at that time',
    at('MDL'),
    'access mode',
  ],
  120: ['MmUnlockPages was called above DISPATCH_LEVEL', 'IRQL at that time', at('MDL'), null],
  121: [
    'MmUnmapLockedPages was called for the kernel above DISPATCH_LEVEL',
    'IRQL at that time',
    at('address that is unmapped'),
    at('MDL'),
  ],
  122: [
    'MmUnmapLockedPages was called for user mode above APC_LEVEL',
    'IRQL at that time',
    at('address that is unmapped'),
    at('MDL'),
  ],
  123: ['MmUnmapIoSpace was called above APC_LEVEL', 'IRQL at that time', at('address that is unmapped'), 'bytes'],
  124: ['pages were unlocked that are not locked', at('MDL'), 'flags of the MDL', null],
  125: ['pages of nonpaged pool were unlocked', at('MDL'), 'flags of the MDL', null],
  128: ['KeSetEvent was called above DISPATCH_LEVEL', 'IRQL at that time', at('the event'), null],
  129: ['MmMapLockedPages was called, which is obsolete', at('MDL'), 'flags of the MDL', null],
  130: ['MmMapLockedPagesSpecifyCache was called with BugCheckOnFailure', at('MDL'), 'flags of the MDL', null],
  131: [
    'MmMapIoSpace was called for pages that are not locked',
    'physical address',
    'bytes',
    'first page that is not locked',
  ],
  133: [
    'MmMapLockedPages was called for pages that are not locked',
    at('MDL'),
    'pages',
    'first page that is not locked',
  ],
  137: ['an MDL that is not for I/O has pages that are not memory', at('MDL'), at('the page in the MDL'), 'its number'],
  184: ['an MDL is freed while its pages are mapped', at('MDL'), 'flags of the MDL', null],
  192: ['IoCallDriver was called with interrupts disabled', at('the IRP'), null, null],
  193: ['a dispatch routine returned with interrupts disabled', at('dispatch routine'), null, null],
  194: ['a fast I/O routine was called with interrupts disabled', null, null, null],
  195: ['a fast I/O routine returned with interrupts disabled', at('fast I/O routine'), null, null],
  197: ['a dispatch routine changed the count of disabled APCs', at('dispatch routine'), 'count after', 'count before'],
  198: ['a fast I/O routine changed the count of disabled APCs', at('fast I/O routine'), 'count after', 'count before'],
  202: ['a lookaside list was initialized twice', at('the list'), null, null],
  203: ['a lookaside list was deleted that is not initialized', at('the list'), null, null],
  204: ['pool was freed that holds an active lookaside list', at('the list'), at('address of the pool'), 'bytes'],
  205: ['a lookaside list has blocks that are too small', at('the list'), 'bytes of a block', 'the least'],
  208: ['an ERESOURCE was initialized twice', at('the resource'), null, null],
  209: ['an ERESOURCE was deleted that is not initialized', at('the resource'), null, null],
  210: ['pool was freed that holds an active ERESOURCE', at('the resource'), at('address of the pool'), 'bytes'],
  218: ['the driver unloads with its WMI callback registered', at('start of the driver'), at('its callback'), null],
  219: ['a device object was deleted that is registered with WMI', at('the device object'), null, null],
  220: ['EtwUnregister was called with an invalid handle', null, null, null],
  221: ['the driver unloads without EtwUnregister', at('call of EtwRegister'), at('start of the driver'), 'the handle'],
  223: ["a synchronization object lies in a session's memory", at('the object'), null, null],
  234: ['a push lock was acquired with APCs enabled', 'IRQL at that time', APC_COUNT, at('the push lock')],
  235: ['a push lock was released with APCs enabled', 'IRQL at that time', APC_COUNT, at('the push lock')],
  261: ['an IRP was freed by ExFreePool', at('the IRP'), null, null],
  266: ["pool was charged to the Idle process's quota", null, null, null],
  267: ['pool was charged to a quota from a DPC', null, null, null],
  272: [
    'an interrupt service routine corrupted the extended context',
    at('interrupt service routine'),
    at('context before'),
    at('context after'),
  ],
  282: ['KeEnterCriticalRegion was called above APC_LEVEL', 'IRQL at that time', null, null],
  283: ['KeLeaveCriticalRegion was called above APC_LEVEL', 'IRQL at that time', null, null],
};

const ALL_VERIFIER_RULES: Readonly<Record<number, string>> = {
  ...VERIFIER_RULES,
  ...Object.fromEntries(Object.entries(MORE_VERIFIER_RULES).map(([rule, [words]]) => [rule, words])),
};

/** By code, without the bit 0x10000000 that some callers set. */
export const BUG_CHECK_PARAMETERS: ReadonlyMap<number, BugCheckParameters> = new Map<number, BugCheckParameters>([
  [
    0x1,
    {
      parameters: [
        at('address of the system call or worker routine'),
        "the thread's ApcStateIndex",
        'special (low half) and kernel (high half) APC disable counts',
        one('after', { 0: 'a system call', 1: 'a worker routine' }),
      ],
    },
  ],
  [0xa, { parameters: [REFERENCED, IRQL, ACCESS, INSTRUCTION] }],
  [
    0x12,
    {
      parameters: [
        one('kind', {
          1: 'unexpected interrupt',
          2: 'unknown floating-point exception',
          3: 'enabled and asserted status bits',
        }),
        DEPENDS,
        null,
        null,
      ],
    },
  ],
  [
    0x18,
    {
      parameters: [
        at('type of the object whose reference count went below zero'),
        at('address of the object'),
        'reason',
        'depends on the reason',
      ],
    },
  ],
  [
    0x19,
    {
      parameters: LISTED('kind of damage; it decides what the others are', {
        2: 'special pool pattern check failed',
        3: 'free list corrupt',
        5: 'two adjacent headers contradict each other',
        6: "the header's previous size is too large",
        7: "the header's size is corrupt",
        8: "the header's size is zero",
        9: "the header's size is too large",
        10: "the header's size is corrupt",
        13: 'the header of a freed block was changed',
        14: 'the header of a freed block was changed',
        15: 'the header of a freed block was changed',
        32: "the header's size is corrupt",
        33: 'the data after the pool block is corrupt',
        34: 'an address was freed that is not tracked',
        35: 'the header of a freed block was changed',
        36: 'the header of a freed block was changed',
        37: 'the header of a freed block was changed',
      }),
      by: 0,
      cases: {
        2: ['special pool pattern check failed', at('pool entry that was checked'), 'bytes of the block', null],
        3: [
          'free list corrupt',
          at('pool entry that was checked'),
          at('forward link read back'),
          at('backward link read back'),
        ],
        5: [
          'two adjacent headers contradict each other',
          at('one of the pool entries'),
          null,
          at('the other pool entry'),
        ],
        6: ["the header's previous size is too large", MISCALCULATED, null, BAD_ENTRY],
        7: ["the header's size is corrupt", null, null, BAD_ENTRY],
        8: ["the header's size is zero", null, null, BAD_ENTRY],
        9: ["the header's size is too large", MISCALCULATED, null, BAD_ENTRY],
        10: [
          "the header's size is corrupt",
          at('pool entry that should have been found'),
          null,
          at('page that should have had the pool entry'),
        ],
        ...Object.fromEntries(
          [13, 14, 15, 35, 36, 37].map((kind) => [kind, ['the header of a freed block was changed', null, null, null]]),
        ),
        32: ["the header's size is corrupt", at('pool entry that should have been found'), at('next pool entry'), null],
        33: [
          'the data after the pool block is corrupt',
          at('address of the pool block'),
          'bytes of the block',
          'the corrupt value behind it',
        ],
        34: ['an address was freed that is not tracked', at('address that was freed'), null, null],
      },
    },
  ],
  [
    0x1a,
    {
      parameters: LISTED('kind of damage; it decides what the others are', {
        49: 'image relocation or code stream corrupt',
        63: 'a page read in has a wrong checksum',
        1027: 'page table and page frame numbers out of step',
        1028: 'page-table entry and PFN disagree while a page is deleted',
        1041: 'page-table entry corrupt',
        4112: 'a pageable section is unlocked that is not locked',
        4659: 'a driver maps a page that is not locked',
        4660: 'a pageable section is locked that does not exist',
        4661: 'an MDL with an invalid mapping is protected',
        4662: 'an MDL contains a page that is not locked, or invalid',
        4672: 'an MDL is built for addresses that are not resident',
        4673: "an MDL's addresses were unmapped while it was built",
        13056: 'an address is wrongly marked as copy on write',
        13393: 'page-table entries of an outswapped kernel stack corrupt',
        13395: 'page tables of an exited process are still referenced',
        13424: 'a cached kernel stack was corrupted while it was free',
        17527: 'a driver wrote to an unallocated user address of the System process',
        20483: 'working-set free list corrupt',
        20736: 'allocation bitmap corrupt',
        20992: 'a page on a free pool list corrupt',
        21253: 'an invalid pool address was freed',
        24577: "the memory store's private memory corrupt",
        34948: 'two pages on the standby list have unequal priorities',
        34949: 'two pages on the standby list have unequal priorities',
        34950: 'two pages on the standby list have unequal priorities',
        34951: 'two pages on the standby list have unequal priorities',
        34952: 'internal structures of memory management corrupt',
        34953: 'internal structures of memory management corrupt',
        34954: 'page-table entry or PFN corrupt',
        38550: 'a PFN has lost its link to its process',
        86016: 'memory is unsecured with a wrong address or in a wrong process',
        86017: 'memory that was secured could not be unsecured',
        266753: 'PFN and current page-table entry disagree',
        266754: 'page-table entry corrupt',
        266883: 'the working-set index in a page-table entry corrupt',
        266884: 'page-table entry or working-set list corrupt',
        266886: 'an invalid pool address was freed',
        266887: 'illegal page fault while working-set synchronization is held',
        268165: 'working-set list corrupt',
        268176: 'page-table page corrupt',
        268178: 'corrupt page-table entry found',
        268179: 'page-table page corrupt: its count of used entries is wrong',
        399680: 'a page-directory entry became invalid unexpectedly',
        399681: 'paging hierarchy corrupt',
        399686: 'the MDL being created is flawed',
      }),
      by: 0,
      cases: {
        63: [
          'a page read in has a wrong checksum',
          'offset in the page file',
          'checksum of the page',
          'expected checksum',
        ],
        1028: [
          'page-table entry and PFN disagree while a page is deleted',
          'expected page-table entry',
          'contents of the page-table entry',
          "the PFN's page-table entry",
        ],
        1041: ['page-table entry corrupt', at('address of the page-table entry'), null, null],
        4659: ['a driver maps a page that is not locked', 'page frame number', null, null],
        268178: [
          'corrupt page-table entry found',
          at('address of the page-table entry'),
          'low part of the entry',
          'high part of the entry',
        ],
        399681: ['paging hierarchy corrupt', at('address that faulted'), null, null],
      },
    },
  ],
  [
    0x1e,
    {
      parameters: [
        EXCEPTION_CODE,
        at('address where it happened'),
        'first parameter of the exception',
        'second parameter of the exception',
      ],
    },
  ],
  [0x20, { parameters: [at('address of the pending APC'), "the thread's APC disable count", 'current IRQL', null] }],
  [0x22, { parameters: EXCEPTION_IN_FILE_SYSTEM }],
  [0x23, { parameters: EXCEPTION_IN_FILE_SYSTEM }],
  [0x24, { parameters: EXCEPTION_IN_FILE_SYSTEM }],
  [0x26, { parameters: EXCEPTION_IN_FILE_SYSTEM }],
  [0x27, { parameters: EXCEPTION_IN_FILE_SYSTEM }],
  [0x2b, { parameters: [at('address of the trap frame'), null, null, null] }],
  [
    0x2e,
    {
      parameters: [
        at('virtual address that faulted'),
        'its physical address',
        'processor status register',
        'faulting instruction register',
      ],
    },
  ],
  [0x34, { parameters: ["source file (high half) and line (low half) in the driver's source", null, null, null] }],
  [0x35, { parameters: [at('address of the IRP'), null, null, null] }],
  [
    0x3b,
    {
      parameters: [
        one('exception code', STATUS),
        at('address of the instruction that caused it'),
        at('context record of the exception'),
        null,
      ],
    },
  ],
  [0x3d, { parameters: [at('exception record'), at('context record'), null, null] }],
  [
    0x3f,
    {
      parameters: [
        one('kind of page-table entries', { 0: 'system expansion', 1: 'nonpaged pool expansion' }),
        'page-table entries requested',
        'system page-table entries that are free',
        'system page-table entries in all',
      ],
    },
  ],
  [0x44, { parameters: [at('address of the IRP'), null, null, null] }],
  [0x4a, { parameters: [at('address of the system call routine'), 'current IRQL', null, null] }],
  [
    0x4c,
    {
      parameters: [
        one('status code of the hard error', STATUS),
        'depends on the status',
        'depends on the status',
        'depends on the status',
      ],
    },
  ],
  [
    0x4e,
    {
      parameters: LISTED(KIND, {
        1: 'list head corrupt',
        2: 'list entry corrupt',
        6: 'page-table entry or prototype entry corrupt',
        7: 'a page was unlocked more often than locked',
        141: 'free list corrupt: a page is in an inconsistent state',
        143: 'head of the free or zeroed list corrupt',
        153: 'page-table entry or PFN corrupt',
        154: 'a page was freed that is still locked for I/O',
      }),
      by: 0,
      cases: {
        1: ['list head corrupt', 'value of the list head', 'pages available', null],
        2: [
          'list entry corrupt',
          'entry that is removed',
          'highest physical page number',
          "the entry's reference count",
        ],
        6: [
          'page-table entry or prototype entry corrupt',
          'page frame number',
          'prototype entry',
          'contents of the page-table entry',
        ],
        7: ['a page was unlocked more often than locked', 'page frame number', 'its share count', null],
        141: ['free list corrupt: a page is in an inconsistent state', 'page frame number', null, null],
        143: ['head of the free or zeroed list corrupt', 'new page number', 'old page number', null],
        153: ['page-table entry or PFN corrupt', 'page frame number', "the page's state", null],
        154: [
          'a page was freed that is still locked for I/O',
          'page frame number',
          "the page's state",
          "the page's reference count",
        ],
      },
    },
  ],
  [
    0x50,
    {
      parameters: [
        REFERENCED,
        PAGE_FAULT_ACCESS,
        at('address of the instruction, if it is known'),
        one('kind of page fault', {
          0: 'the page-table entry is marked as free',
          2: 'no valid page-table entry',
          3: 'session space, from a process without that session',
          4: 'the address is not canonical',
          15: 'a user address, with access to user memory switched off',
        }),
      ],
    },
  ],
  [
    0x51,
    {
      parameters: [
        null,
        null,
        at('address of the hive, if it is known'),
        'result of the check of the hive, if it is corrupt',
      ],
    },
  ],
  [0x5c, { parameters: LISTED('which initialization failed', {}) }],
  [0x67, { parameters: [null, 'place in the code', one('status code', STATUS), null] }],
  [0x6b, { parameters: [one('status code of the failure', STATUS), null, null, null] }],
  [0x74, { parameters: [null, null, null, one('status code, if there is one', STATUS)] }],
  [
    0x76,
    {
      parameters: LISTED(KIND, {
        0: 'the process ends with locked pages',
        1: 'pages are unlocked that are not locked',
      }),
      by: 0,
      cases: {
        0: [
          'the process ends with locked pages',
          at('address of the process'),
          'pages locked',
          at("address of the drivers' stacks, if they are recorded"),
        ],
        1: [
          'pages are unlocked that are not locked',
          at('address of the MDL'),
          'pages that the process has locked',
          at("address of the drivers' stacks, if they are recorded"),
        ],
      },
    },
  ],
  [
    0x77,
    {
      parameters: [
        one('status code', STATUS),
        one('status code of the read', STATUS),
        'page file number',
        'offset in the page file',
      ],
      by: 0,
      cases: {
        0: [
          'the page came from the page cache',
          'value in place of the signature',
          null,
          at('address of the signature'),
        ],
        1: ['the page came from disk', 'value in place of the signature', null, at('address of the signature')],
        2: [
          'the page came from disk, and its size was wrong',
          'value in place of the signature',
          null,
          at('address of the signature'),
        ],
      },
    },
  ],
  [
    0x79,
    {
      parameters: LISTED('kind of mismatch', {
        1: 'PRCB levels of kernel and HAL',
        2: 'build types of kernel and HAL',
        3: 'loader and HAL versions',
      }),
    },
  ],
  [
    0x7a,
    {
      parameters: [
        'lock type (1 to 4), or address of the page-table entry',
        one('status code of the read, usually an I/O error', STATUS),
        'process (lock type 1), or in-page support block, or contents of the page-table entry',
        at('virtual address that could not be read in'),
      ],
    },
  ],
  [0x7b, { parameters: [at("address of the boot device's name, or of its device object"), null, null, null] }],
  [
    0x7c,
    {
      parameters: LISTED(KIND, {
        1: 'shared memory was allocated at a raised IRQL',
        2: 'a shared memory page is corrupt',
        3: 'shared memory was freed twice',
        4: 'a driver was added that is not on the list',
      }),
    },
  ],
  [
    0x7e,
    { parameters: [EXCEPTION_CODE, at('address where it happened'), at('exception record'), at('context record')] },
  ],
  [
    0x7f,
    {
      parameters: [
        one('trap', {
          0: 'divide error',
          1: 'debug',
          2: 'NMI',
          3: 'breakpoint',
          4: 'overflow',
          5: 'bounds check',
          6: 'invalid opcode',
          7: 'coprocessor not available',
          8: 'double fault',
          10: 'invalid TSS',
          11: 'segment not present',
          12: 'stack fault',
          13: 'general protection',
          15: 'reserved trap',
          16: 'x87 error',
          17: 'alignment check',
        }),
        'depends on the trap',
        'depends on the trap',
        'depends on the trap',
      ],
    },
  ],
  [0x80, { parameters: ['set by the platform', null, null, null] }],
  [0x8e, { parameters: [EXCEPTION_CODE, at('address where it happened'), at('trap frame'), null] }],
  [
    0x96,
    {
      parameters: [
        at('queue entry whose link is null'),
        at('address of the queue'),
        at('base of the array of worker queues'),
        at('worker routine of the entry, if it is a work item'),
      ],
    },
  ],
  [
    0x9c,
    {
      parameters: [
        'machine check bank',
        at('address of the machine check exception record'),
        "high half of the bank's status",
        "low half of the bank's status",
      ],
    },
  ],
  [
    0x9f,
    {
      parameters: LISTED(KIND, {
        1: 'a device object was freed with a power request outstanding',
        2: 'a driver did not call PoStartNextPowerIrp',
        3: 'a device held a power IRP for too long',
        4: 'a power transition timed out waiting for Plug and Play',
        5: 'a device failed a directed power transition in time',
        6: 'a device failed the callback of a directed power transition',
        1280: 'a driver did not call PoStartNextPowerIrp',
      }),
      by: 0,
      cases: {
        1: ['a device object was freed with a power request outstanding', at('device object'), null, null],
        2: [
          'a driver did not call PoStartNextPowerIrp',
          at("target device's device object"),
          at('device object'),
          at('driver object'),
        ],
        3: [
          'a device held a power IRP for too long',
          at('physical device object of the stack'),
          at('triage block (nt!_TRIAGE_9F_POWER)'),
          at('the IRP'),
        ],
        4: [
          'a power transition timed out waiting for Plug and Play',
          'time-out in seconds',
          at('thread that holds the Plug and Play lock'),
          at('triage block (nt!_TRIAGE_9F_PNP)'),
        ],
        1280: [
          'a driver did not call PoStartNextPowerIrp',
          null,
          at("target device's device object"),
          at('device object'),
        ],
      },
    },
  ],
  [0xa0, { parameters: LISTED(KIND, { 1: 'an error in handling a power IRP' }) }],
  [0xa5, { parameters: LISTED('requirement that the firmware broke; it decides what the others are', {}) }],
  [
    0xab,
    {
      parameters: [
        'session ID',
        'bytes of paged pool that leak',
        'bytes of nonpaged pool that leak',
        'allocations that leak: nonpaged (high half), paged (low half)',
      ],
    },
  ],
  [0xb8, { parameters: [at('thread that switched'), at('thread switched to'), at('stack of the first thread'), null] }],
  [0xbe, { parameters: WRITE_TO_READ_ONLY }],
  [
    0xc1,
    {
      parameters: [
        at('address that was freed or allocated'),
        'depends on the fourth',
        'depends on the fourth',
        one(KIND, {
          32: 'pool was freed that is not allocated',
          33: 'a bad address was freed',
          34: 'a bad address was freed',
          35: 'bytes near the block, in its page, are corrupt',
          36: 'bytes behind the block are overwritten',
          48: 'pool was allocated at a wrong IRQL',
          49: 'pool was freed at a wrong IRQL',
          50: 'a single bit near the block, in its page, is wrong',
        }),
      ],
      by: 3,
      cases: {
        35: [
          at('address that was freed'),
          at('where bytes are corrupt'),
          null,
          'bytes near the block, in its page, are corrupt',
        ],
        36: [
          at('address that was freed'),
          at('where bytes are corrupt'),
          null,
          'bytes behind the block are overwritten',
        ],
        48: ['current IRQL', 'pool type', 'bytes', 'pool was allocated at a wrong IRQL'],
      },
    },
  ],
  [
    0xc2,
    {
      parameters: LISTED('kind of misuse of the pool; it decides what the others are', {
        0: 'no bytes were requested',
        1: 'pool header corrupt',
        2: 'pool header corrupt',
        4: 'pool header corrupt',
        6: 'pool was freed twice',
        7: 'pool was freed twice',
        8: 'pool was allocated at a wrong IRQL',
        9: 'pool was freed at a wrong IRQL',
        10: 'pool was freed with a wrong tag',
        11: 'quota of a corrupt pool block was released',
        12: 'quota of a corrupt pool block was released',
        13: 'quota of a corrupt pool block was released',
        64: 'a user address was freed to the pool',
        65: 'a nonpaged address was freed that is not allocated',
        66: 'an address was freed that is in no pool',
        67: 'an address was freed that is in no pool',
        68: 'a nonpaged address was freed that is not allocated',
        70: 'an invalid pool address was freed',
        71: 'a nonpaged address was freed that is not allocated',
        72: 'a paged address was freed that is not allocated',
        80: 'a paged address was freed that is not allocated',
        96: 'an invalid contiguous memory address was freed',
        153: 'an invalid address was freed',
        154: 'pool was allocated as MUST_SUCCEED',
        155: 'pool was allocated with a tag of zero',
        156: 'pool was allocated with a tag of BIG',
        157: 'pool was allocated with a tag without letters or digits',
        266886: 'a paged address was freed within an allocation',
      }),
      by: 0,
      cases: {
        0: ['no bytes were requested', null, 'pool type', TAG],
        1: CORRUPT_POOL_HEADER,
        2: CORRUPT_POOL_HEADER,
        4: CORRUPT_POOL_HEADER,
        6: ['pool was freed twice', null, at('pool header'), 'contents of the pool header'],
        7: ['pool was freed twice', null, 'contents of the pool header', at('address of the block')],
        8: ['pool was allocated at a wrong IRQL', 'current IRQL', 'pool type', 'bytes'],
        9: ['pool was freed at a wrong IRQL', 'current IRQL', 'pool type', at('address of the pool')],
        10: [
          'pool was freed with a wrong tag',
          at('address of the pool'),
          "the allocation's tag",
          'tag it was freed with',
        ],
        11: CORRUPT_QUOTA,
        12: CORRUPT_QUOTA,
        13: CORRUPT_QUOTA,
        64: ['a user address was freed to the pool', FREED, 'start of system address space', null],
        65: NONPAGED_NOT_ALLOCATED,
        66: ['an address was freed that is in no pool', FREED, null, null],
        67: ['an address was freed that is in no pool', FREED, null, null],
        68: ['a nonpaged address was freed that is not allocated', FREED, null, null],
        70: ['an invalid pool address was freed', FREED, null, null],
        71: NONPAGED_NOT_ALLOCATED,
        72: ['a paged address was freed that is not allocated', FREED, null, null],
        80: [
          'a paged address was freed that is not allocated',
          FREED,
          'its offset in paged pool, in pages',
          'bytes of paged pool',
        ],
        96: ['an invalid contiguous memory address was freed', FREED, null, null],
        153: ['an invalid address was freed', FREED, null, null],
        154: ['pool was allocated as MUST_SUCCEED', 'pool type', 'bytes', TAG],
        155: ['pool was allocated with a tag of zero', 'pool type', 'bytes', CALLER],
        156: ['pool was allocated with a tag of BIG', 'pool type', 'bytes', CALLER],
        157: ['pool was allocated with a tag without letters or digits', TAG, 'pool type', CALLER],
        266886: ['a paged address was freed within an allocation', null, null, 'its offset in paged pool, in pages'],
      },
    },
  ],
  [
    0xc4,
    {
      parameters: LISTED('rule that the driver broke; it decides what the others are', ALL_VERIFIER_RULES),
      by: 0,
      cases: { ...VERIFIER_CASES, ...MORE_VERIFIER_RULES },
    },
  ],
  [0xc5, { parameters: IRQL_FAULT }],
  [
    0xc6,
    {
      parameters: [REFERENCED, one('operation', READ_WRITE), one('from', { 0: 'kernel mode', 1: 'user mode' }), null],
    },
  ],
  [
    0xc7,
    {
      parameters: LISTED(KIND, {
        0: 'a timer lies in memory where none may',
        1: 'a DPC lies in memory where none may',
        2: "a DPC's routine lies in memory where none may",
        3: "a DPC's processor number is wrong",
        4: 'a DPC changed the APC disable count or the IRQL',
        5: 'a DPC changed the APC disable count or the IRQL',
        6: 'a timer DPC changed the APC disable count or the IRQL',
      }),
    },
  ],
  [0xc9, { parameters: LISTED('rule of I/O that the driver broke; it decides what the others are', {}) }],
  [0xca, { parameters: LISTED('error in Plug and Play; it decides what the others are', {}) }],
  [0xcb, { parameters: [at('lock tracking structure'), null, at('MDL with the locked pages'), 'pages locked'] }],
  [0xcc, { parameters: SPECIAL_POOL_FAULT }],
  [0xcd, { parameters: SPECIAL_POOL_FAULT }],
  [
    0xce,
    {
      parameters: [REFERENCED, PAGE_FAULT_ACCESS, at('address of the instruction, if it is known'), null],
    },
  ],
  [0xd0, { parameters: IRQL_FAULT }],
  [0xd1, { parameters: [REFERENCED, IRQL, ACCESS, INSTRUCTION] }],
  [0xd3, { parameters: IRQL_FAULT }],
  [0xd5, { parameters: SPECIAL_POOL_FAULT }],
  [0xd6, { parameters: SPECIAL_POOL_FAULT }],
  [
    0xd8,
    {
      parameters: [
        at("address of the driver's name, or 0"),
        'page-table entries that it uses',
        'system page-table entries that are free',
        'system page-table entries in all',
      ],
    },
  ],
  [
    0xda,
    {
      parameters: LISTED(KIND, {
        1: 'a mapping is freed twice',
        2: 'a wrong number of mappings is freed',
        3: 'a wrong address is freed',
        4: "the mapping's first page changed",
        5: "the mapping's start changed",
        6: 'the MDL was never mapped, or is not any more',
        256: 'no mappings were requested',
        257: 'mappings are freed by one who does not own them',
        258: 'the mapping space is empty',
      }),
    },
  ],
  [0xdb, { parameters: [REFERENCED, IRQL, one('operation', READ_WRITE), INSTRUCTION] }],
  [0xdc, { parameters: NONE }],
  [0xde, { parameters: NONE }],
  [0xe0, { parameters: ['set by the firmware', 'set by the firmware', 'set by the firmware', 'set by the firmware'] }],
  [
    0xe1,
    {
      parameters: [
        at('address of the worker routine'),
        'IRQL at which it returned',
        "the work item's parameter",
        at('address of the work item'),
      ],
    },
  ],
  [0xe2, { parameters: NONE }],
  [
    0xe4,
    {
      parameters: LISTED(KIND, {
        0: 'an active work item was freed',
        1: 'an active work item was queued',
        2: 'a queued I/O work item was freed',
        3: 'a work item was initialized with an invalid object',
        5: 'a work item was queued before the queue existed',
        6: 'an invalid queue type',
        7: 'an invalid worker routine',
      }),
    },
  ],
  [0xe6, { parameters: LISTED('rule of DMA that the driver broke', {}) }],
  [
    0xea,
    {
      parameters: [
        at('thread that is stuck'),
        at('watchdog object'),
        at("address of the driver's name"),
        'times that this was seen',
      ],
    },
  ],
  [
    0xed,
    { parameters: [at('device object of the boot volume'), one('status code of the file system', STATUS), null, null] },
  ],
  [
    0xef,
    { parameters: [at('address of the process'), one('what ended', { 0: 'a process', 1: 'a thread' }), null, null] },
  ],
  [
    0xf4,
    {
      parameters: [
        one('what ended', { 3: 'a process', 6: 'a thread' }),
        at('address of the object'),
        at("address of the process's image name"),
        at('address of a text about it'),
      ],
    },
  ],
  [
    0xf7,
    {
      parameters: ['cookie found on the stack', 'cookie expected', 'complement of the cookie expected', null],
    },
  ],
  [
    0xf9,
    {
      parameters: [
        at('device object that was opened'),
        at('device object that the request went to'),
        at('address of the new name'),
        'information that the driver returned',
      ],
    },
  ],
  [0xfc, { parameters: [at('address that was to be executed'), 'contents of its page-table entry', null, null] }],
  [
    0xfd,
    {
      parameters: [
        'dirty pages',
        'dirty pages that can not be written',
        null,
        one('status of the last failed write', STATUS),
      ],
    },
  ],
  [
    0xfe,
    {
      parameters: LISTED(KIND, {
        1: 'an internal error of the USB stack',
        2: 'a URB was submitted that belongs to another IRP',
        3: 'the miniport driver raised it, usually for a hardware failure',
        4: 'an IRP was submitted that is pending already',
        5: 'a hardware failure: a bad physical address in a hardware structure',
        6: 'an internal data structure is corrupt',
        7: 'see the message that the second parameter names',
        8: 'a trap of the hub driver',
      }),
    },
  ],
  [
    0x101,
    {
      parameters: ['time-out in clock ticks', null, at('PRCB of the processor that does not answer'), 'its index'],
    },
  ],
  [0x102, { parameters: ['time-out in clock ticks', at('PRCB of the processor that hangs'), null, null] }],
  [
    0x103,
    {
      parameters: LISTED(KIND, {
        1: 'no file context was found for the file object',
        2: 'the file context is not the expected one',
      }),
    },
  ],
  [0x108, { parameters: ['file system', at('exception record'), at('context record'), null] }],
  [
    0x109,
    {
      parameters: [
        null,
        null,
        null,
        one('what was changed', {
          0: 'a data region',
          1: 'a function',
          2: 'an interrupt descriptor table',
          3: 'a global descriptor table',
          4: 'a process list',
          5: 'a process list',
          6: 'a debug routine',
          7: 'a critical MSR',
          8: 'an object type',
          9: 'an interrupt vector table',
          10: 'a system service function',
          11: 'session data',
          12: 'a session function or its .pdata',
          13: 'an import table',
          14: 'a session import table',
          15: 'Win32 callouts of Ps',
          16: 'a debug switch routine',
          17: 'an IRP allocator',
          18: 'a driver call dispatcher',
          19: 'an IRP completion dispatcher',
          20: 'an IRP deallocator',
          21: 'a processor control register',
          22: 'a floating-point control register',
          23: 'a local APIC',
          24: 'a kernel notification callout',
          25: 'the list of loaded modules',
          26: 'a process list',
          27: 'a process list',
          28: 'a driver object',
          29: 'an executive callback object',
          30: "a module's padding",
          31: 'a protected process',
          32: 'a data region',
          33: 'a page with a known hash',
          34: 'a session page with a known hash',
          35: 'a load configuration directory',
          36: 'the inverted function table',
          37: 'the session configuration',
          38: 'an extended processor control register',
          39: 'pool',
          40: 'pool',
          41: 'pool',
          257: 'pool',
          258: 'win32k.sys',
        }),
      ],
    },
  ],
  [
    0x10d,
    {
      parameters: LISTED('error; it decides what the others are', {
        1: 'a driver timed out in a power operation',
        2: 'a lock is acquired that is held already',
        3: 'a request was completed with references to its buffers outstanding',
        4: 'a null parameter was passed',
        5: 'a handle of a wrong type was passed',
        6: 'a fatal error in handling a request',
        7: 'an object was deleted by dereferencing it',
        8: 'a DMA transaction is in a wrong state',
        10: 'a fatal error with a request in a queue',
        11: 'a lock was acquired or released wrongly',
        12: 'a Plug and Play IRP arrived while another was processed',
        13: 'a power IRP arrived that was not requested',
        14: 'a callback returned at another IRQL',
        15: 'a callback did not leave its critical region',
      }),
    },
  ],
  [0x10e, { parameters: LISTED('error in video memory', {}) }],
  [
    0x112,
    {
      parameters: LISTED('kind of state violation', {
        1: 'a non-continuable exception was continued',
        2: 'ALPC returned an error',
      }),
    },
  ],
  [0x113, { parameters: LISTED('error of the graphics kernel', {}) }],
  [0x116, { parameters: TDR }],
  [0x117, { parameters: TDR }],
  [
    0x119,
    {
      parameters: LISTED('error of the scheduler', {
        1: 'the driver reported an invalid fence ID',
        2: 'the driver failed to submit a command',
        3: 'the driver failed to patch the command buffer',
        4: 'the driver reported an invalid flip capability',
        5: 'the driver failed a system or paging command',
        6: 'the driver reported no adapter for an interrupt',
        7: 'the driver reported a VSync on an adapter without displays',
        8: 'the node that caused the reset has no bit set',
        9: 'the driver failed a cancel command',
        10: 'the driver reported an aborted fence out of range',
        12: 'a fatal page fault of the GPU',
        13: 'the driver reported wrong page fault flags',
      }),
    },
  ],
  [0x11b, { parameters: [at('address of the canceled IRP'), at('address of the cancel routine'), null, null] }],
  [0x11c, { parameters: WRITE_TO_READ_ONLY }],
  [
    0x121,
    {
      parameters: [
        one('kind', { 1: 'a function was called at a wrong IRQL', 2: 'a function was called at too high an IRQL' }),
        'current IRQL',
        'required or highest allowed IRQL',
        null,
      ],
    },
  ],
  [
    0x122,
    {
      parameters: LISTED('what WHEA failed to do', {
        1: 'allocate memory for the error sources',
        2: 'allocate memory for each processor',
        5: 'enumerate the error sources',
        6: 'initialize an error source',
        7: 'allocate memory',
        8: 'allocate memory for descriptors',
      }),
    },
  ],
  [
    0x124,
    {
      parameters: [
        one('kind of error', {
          0: 'machine check exception',
          1: 'corrected machine check',
          2: 'corrected platform error',
          3: 'NMI',
          4: 'uncorrectable PCI Express error',
          5: 'generic hardware error',
          6: 'initialization error',
          7: 'boot error',
          8: 'scalable coherent interface error',
          9: 'Itanium machine check abort',
          10: 'Itanium machine check',
          11: 'Itanium platform error',
          12: 'other source',
          13: 'ACPI generic hardware error source',
          14: 'baseboard management controller',
          15: 'persistent memory',
          16: "a device driver's error source",
          17: 'Arm synchronous external abort',
          18: 'Arm SError interrupt',
        }),
        at('error record (WHEA_ERROR_RECORD)'),
        "high half of the bank's status",
        "low half of the bank's status",
      ],
      by: 0,
      cases: {
        3: ['NMI', at('error record (WHEA_ERROR_RECORD)'), null, null],
        4: ['uncorrectable PCI Express error', at('error record (WHEA_ERROR_RECORD)'), null, null],
        5: ['generic hardware error', at('error record (WHEA_ERROR_RECORD)'), null, null],
      },
    },
  ],
  [
    0x12b,
    {
      parameters: [
        'virtual address of the page (zero page found changed), or status of the decompression',
        'physical page number, or bytes of the compressed page',
        '0, or address of the compressed data',
        '0, or address that it was to be read to',
      ],
    },
  ],
  [0x12c, { parameters: EXCEPTION_IN_FILE_SYSTEM }],
  [
    0x133,
    {
      parameters: LISTED('kind of time-out', {
        0: 'one DPC or ISR took too long',
        1: 'the system stayed too long at DISPATCH_LEVEL or above',
      }),
      by: 0,
      cases: {
        0: [
          'one DPC or ISR took too long',
          'ticks that it took',
          'ticks that it may take',
          at('triage block (nt!DPC_WATCHDOG_GLOBAL_TRIAGE_BLOCK)'),
        ],
        1: [
          'the system stayed too long at DISPATCH_LEVEL or above',
          "the watchdog's period in ticks",
          at('triage block (nt!DPC_WATCHDOG_GLOBAL_TRIAGE_BLOCK)'),
          null,
        ],
      },
    },
  ],
  [
    0x135,
    { parameters: [one('exception code', STATUS), at('context record'), at("address of the driver's callback"), null] },
  ],
  [
    0x139,
    {
      parameters: [
        one('kind of corruption', {
          0: 'stack buffer overrun (legacy /GS)',
          1: 'virtual function table (VTGuard)',
          2: 'stack cookie: stack buffer overrun',
          3: 'list entry corrupt, such as one removed twice',
          5: 'invalid parameter',
          6: 'stack cookie not initialized',
          7: 'fatal exit',
          8: 'array index out of bounds',
          9: 'unsafe registry query',
          10: 'indirect call guard: invalid control transfer',
          11: 'write guard: invalid memory write',
          12: 'invalid fiber switch',
          13: 'invalid set of context',
          14: 'invalid reference count',
          18: 'invalid jump buffer',
          19: 'read-only data was changed',
          20: 'cryptographic self-test failed',
          21: 'invalid exception chain',
          22: 'cryptographic library error',
          23: 'invalid call from DllMain',
          24: 'invalid image base address',
          25: 'delay-load protection failed',
          26: 'unsafe extension call',
          27: 'deprecated service invoked',
          28: 'out-of-bounds buffer access',
          29: 'RTL_BALANCED_NODE tree corrupt',
          37: 'out-of-range switch jump-table entry',
          38: 'longjmp to an invalid target',
          39: 'export suppressed call target',
        }),
        at('trap frame'),
        at('exception record'),
        null,
      ],
    },
  ],
  [
    0x13a,
    {
      parameters: [
        one('kind of corruption in the heap', {
          3: 'an entry header is corrupt',
          4: 'several entry headers are corrupt',
          5: 'the header of a large allocation is corrupt',
          6: 'it looks like a buffer overrun',
          7: 'it looks like a buffer underrun',
          8: 'a free block was used as a busy one',
          9: 'an invalid argument',
          10: 'an internal error of the allocation type',
          11: 'it looks like a use after free',
          12: 'a wrong heap was named',
          13: 'a free list is corrupt',
          14: 'another list is corrupt',
          15: 'an operation on a free block',
          16: 'invalid internal state, as after a buffer overflow',
          17: 'invalid internal state, as after a double free',
          18: 'invalid internal state, as after a use after free',
          19: 'no heap was named',
          20: 'the allocation is larger than the limit',
          21: 'the commit limit would be exceeded',
          22: 'an internal error',
          23: 'a block on a delayed free list is corrupt',
        }),
        at('address of the heap'),
        at('address where it was found'),
        null,
      ],
    },
  ],
  [0x141, { parameters: TDR }],
  [0x142, { parameters: [TDR[0], TDR[1], TDR[2], 'ID of the process that is kept from the GPU'] }],
  [
    0x144,
    {
      parameters: LISTED('kind of failure in the USB 3 stack', {
        1: 'a URB was used that had been sent already',
        2: 'a boot or paging device failed to be enumerated again',
        3: 'a corrupt URB was sent',
        2048: 'streams were opened at a wrong IRQL',
      }),
    },
  ],
  [
    0x149,
    { parameters: ['source line', at('exception record'), at('context record'), at('address where it happened')] },
  ],
  [0x14b, { parameters: [at('details of the failure'), null, null, at("the vendor's data, if there is any")] }],
  [0x14f, { parameters: PDC_HANG }],
  [
    0x153,
    {
      parameters: [
        at('address of the thread'),
        at('address of the lock entry'),
        one('state of the entry', {
          1: 'its lock pointer is not null',
          2: 'reserved bits of its thread pointer are set',
          3: 'its thread pointer is corrupt',
          4: 'boosts are left in it',
        }),
        null,
      ],
    },
  ],
  [0x154, { parameters: [at('address of the store'), at('exception record'), null, null] }],
  [0x15c, { parameters: PDC_HANG }],
  [0x15d, { parameters: [at('details of the failure'), null, null, at("the vendor's data, if there is any")] }],
  [
    0x15f,
    {
      parameters: LISTED('kind of time-out', {
        1: 'no deepest idle state, without a device in the way',
        2: 'no deepest idle state: a device constraint',
        3: 'no deepest idle state: a veto',
      }),
    },
  ],
  [
    0x161,
    {
      parameters: [one('who asked for it', { 23751046395160430: 'Task Manager' }), null, null, null],
    },
  ],
  [0x162, { parameters: [WATCHDOG_STATE[0], WATCHDOG_STATE[1], "the thread's session ID", null] }],
  [
    0x164,
    {
      parameters: LISTED('kind of failure', {
        1: 'a region is outside of its surface',
        2: 'operator new allocated memory',
        3: 'a critical API set is missing',
        4: 'a sprite surface was deleted wrongly',
        5: 'the pointer device could not be opened',
      }),
    },
  ],
  [
    0x165,
    { parameters: ["the cluster service's process ID, if it is known", 'node that saw the time-out', null, null] },
  ],
  [0x170, { parameters: ['ID of the thread that handles the disconnect', 'time-out in milliseconds', null, null] }],
  [
    0x17e,
    {
      parameters: [
        'CPUID signature of the processor',
        'expected microcode revision',
        'reported microcode revision',
        "the processor's index",
      ],
    },
  ],
  [0x192, { parameters: [WATCHDOG_STATE[0], WATCHDOG_STATE[1], 'IRQL at which the lock was acquired', null] }],
  [
    0x19c,
    {
      parameters: LISTED('what does not make progress', {
        16: 'the queue of power requests',
        32: 'setting the power state',
        48: 'powering on the display',
        64: 'rendering by DWM',
        80: 'powering on by the monitor driver',
      }),
    },
  ],
  [0x1a1, { parameters: [at('thread that does not return from the callout'), null, null, null] }],
  [
    0x1a3,
    {
      parameters: [
        at('process of the thread'),
        at('thread whose call does not return'),
        'time-out in milliseconds',
        at('watchdog (nt!_PO_CALL_HAS_NOT_RETURNED_WATCHDOG)'),
      ],
    },
  ],
  [
    0x1c6,
    {
      parameters: LISTED('rule of fast resources that was broken', { 0: 'the IRQL is too high', 5: 'called in a DPC' }),
    },
  ],
  [
    0x1c7,
    {
      parameters: [
        one('kind of corruption', {
          0: "the hash of a store's buffer does not match",
          1: "the hash of a store's buffer does not match, after an exception",
          2: "the hash of a page record's buffer does not match",
        }),
        at('buffer whose hash does not match'),
        'expected hash',
        'page frame number of the corrupt page',
      ],
    },
  ],
  [
    0x1c8,
    {
      parameters: [
        'milliseconds for which the power button was held',
        at('triage block (nt!_POP_POWER_BUTTON_TRIAGE_BLOCK)'),
        null,
        null,
      ],
    },
  ],
  [
    0x1ca,
    {
      parameters: [
        'time since the watchdog was reset',
        'interrupt time',
        'performance counter',
        'index of the clock processor',
      ],
    },
  ],
  [
    0x1d5,
    {
      parameters: [
        "first characters of the device's service",
        at('triage block (nt!TRIAGE_PNP_WATCHDOG)'),
        at('thread that does not make progress'),
        'milliseconds since the watchdog was armed',
      ],
    },
  ],
  [
    0x1d6,
    {
      parameters: [
        at('address of the worker routine'),
        'workload class',
        "the work item's parameter",
        at('address of the work item'),
      ],
    },
  ],
  [0x20001, { parameters: NONE }],
  [
    0xc000021a,
    {
      parameters: [at('address of a text about it'), one('status code with which it ended', STATUS), null, null],
    },
  ],
  [0xc0000218, { parameters: [at("address of the name of the hive's file"), null, null, null] }],
  [0xc0000221, { parameters: [at('address of the name of the damaged file'), null, null, null] }],
  [
    0xdeaddead,
    {
      parameters: [
        'set by the driver that asked for it',
        'set by the driver that asked for it',
        'set by the driver that asked for it',
        'set by the driver that asked for it',
      ],
    },
  ],
]);
