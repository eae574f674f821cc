/** Bug checks that one meets: names as Microsoft's bug check code reference has them, meanings in our words. */
const NAMES: Record<number, string> = {
  1: 'APC_INDEX_MISMATCH',
  10: 'IRQL_NOT_LESS_OR_EQUAL',
  24: 'REFERENCE_BY_POINTER',
  25: 'BAD_POOL_HEADER',
  26: 'MEMORY_MANAGEMENT',
  30: 'KMODE_EXCEPTION_NOT_HANDLED',
  35: 'FAT_FILE_SYSTEM',
  36: 'NTFS_FILE_SYSTEM',
  39: 'RDR_FILE_SYSTEM',
  46: 'DATA_BUS_ERROR',
  59: 'SYSTEM_SERVICE_EXCEPTION',
  61: 'INTERRUPT_EXCEPTION_NOT_HANDLED',
  68: 'MULTIPLE_IRP_COMPLETE_REQUESTS',
  76: 'FATAL_UNHANDLED_HARD_ERROR',
  78: 'PFN_LIST_CORRUPT',
  80: 'PAGE_FAULT_IN_NONPAGED_AREA',
  92: 'HAL_INITIALIZATION_FAILED',
  116: 'BAD_SYSTEM_CONFIG_INFO',
  118: 'PROCESS_HAS_LOCKED_PAGES',
  119: 'KERNEL_STACK_INPAGE_ERROR',
  121: 'MISMATCHED_HAL',
  122: 'KERNEL_DATA_INPAGE_ERROR',
  123: 'INACCESSIBLE_BOOT_DEVICE',
  124: 'BUGCODE_NDIS_DRIVER',
  126: 'SYSTEM_THREAD_EXCEPTION_NOT_HANDLED',
  127: 'UNEXPECTED_KERNEL_MODE_TRAP',
  128: 'NMI_HARDWARE_FAILURE',
  142: 'KERNEL_MODE_EXCEPTION_NOT_HANDLED',
  156: 'MACHINE_CHECK_EXCEPTION',
  159: 'DRIVER_POWER_STATE_FAILURE',
  165: 'ACPI_BIOS_ERROR',
  190: 'ATTEMPTED_WRITE_TO_READONLY_MEMORY',
  193: 'SPECIAL_POOL_DETECTED_MEMORY_CORRUPTION',
  194: 'BAD_POOL_CALLER',
  196: 'DRIVER_VERIFIER_DETECTED_VIOLATION',
  197: 'DRIVER_CORRUPTED_EXPOOL',
  201: 'DRIVER_VERIFIER_IOMANAGER_VIOLATION',
  206: 'DRIVER_UNLOADED_WITHOUT_CANCELLING_PENDING_OPERATIONS',
  209: 'DRIVER_IRQL_NOT_LESS_OR_EQUAL',
  213: 'DRIVER_PAGE_FAULT_IN_FREED_SPECIAL_POOL',
  218: 'SYSTEM_PTE_MISUSE',
  222: 'POOL_CORRUPTION_IN_FILE_AREA',
  226: 'MANUALLY_INITIATED_CRASH',
  227: 'RESOURCE_NOT_OWNED',
  230: 'DRIVER_VERIFIER_DMA_VIOLATION',
  239: 'CRITICAL_PROCESS_DIED',
  244: 'CRITICAL_OBJECT_TERMINATION',
  247: 'DRIVER_OVERRAN_STACK_BUFFER',
  252: 'ATTEMPTED_EXECUTE_OF_NOEXECUTE_MEMORY',
  254: 'BUGCODE_USB_DRIVER',
  257: 'CLOCK_WATCHDOG_TIMEOUT',
  265: 'CRITICAL_STRUCTURE_CORRUPTION',
  269: 'WDF_VIOLATION',
  275: 'VIDEO_DXGKRNL_FATAL_ERROR',
  278: 'VIDEO_TDR_FAILURE',
  279: 'VIDEO_TDR_TIMEOUT_DETECTED',
  281: 'VIDEO_SCHEDULER_INTERNAL_ERROR',
  283: 'DRIVER_RETURNED_HOLDING_CANCEL_LOCK',
  292: 'WHEA_UNCORRECTABLE_ERROR',
  299: 'FAULTY_HARDWARE_CORRUPTED_PAGE',
  307: 'DPC_WATCHDOG_VIOLATION',
  313: 'KERNEL_SECURITY_CHECK_FAILURE',
  314: 'KERNEL_MODE_HEAP_CORRUPTION',
  324: 'BUGCODE_USB3_DRIVER',
  339: 'KERNEL_LOCK_ENTRY_LEAKED_ON_THREAD_TERMINATION',
  340: 'UNEXPECTED_STORE_EXCEPTION',
  351: 'CONNECTED_STANDBY_WATCHDOG_TIMEOUT_LIVEDUMP',
  353: 'LIVE_SYSTEM_DUMP',
  356: 'WIN32K_CRITICAL_FAILURE',
  395: 'SECURE_KERNEL_ERROR',
  398: 'KERNEL_PARTITION_REFERENCE_VIOLATION',
  402: 'KERNEL_AUTO_BOOST_LOCK_ACQUISITION_WITH_RAISED_IRQL',
  458: 'SYNTHETIC_WATCHDOG_TIMEOUT',
  3221226008: 'STATUS_CANNOT_LOAD_REGISTRY_FILE',
  3221226010: 'STATUS_SYSTEM_PROCESS_TERMINATED',
  3221226017: 'STATUS_IMAGE_CHECKSUM_MISMATCH',
  3735936685: 'MANUALLY_INITIATED_CRASH1',
};

/** `DRIVER_IRQL_NOT_LESS_OR_EQUAL` for 0xd1; null for a code that is not in the table. */
export function bugCheckName(code: number): string | null {
  // Some callers set 0x10000000 in the code, which the reference lists as the same stop.
  return NAMES[code] ?? NAMES[code & ~0x1000_0000] ?? null;
}

type Meanings = readonly [string, string, string, string];

/** What the four parameters are. */
const PARAMETERS: ReadonlyMap<number, Meanings> = new Map<number, Meanings>([
  [
    0x1,
    [
      'address of the system call or worker routine',
      "the thread's ApcStateIndex",
      'special (low half) and kernel (high half) APC disable counts',
      '0 after a system call, 1 after a worker routine',
    ],
  ],
  [
    0xa,
    [
      'address that was referenced',
      'IRQL at that time',
      '0 read, 1 write, 8 execute (bits)',
      'address of the instruction',
    ],
  ],
  [
    0x18,
    ['object type of the object whose count is wrong', 'address of the object', 'reason', 'depends on the reason'],
  ],
  [
    0x19,
    [
      'kind of damage; it decides what the others are',
      'pool entry or block that was being looked at',
      'depends on the kind',
      'depends on the kind',
    ],
  ],
  [
    0x1a,
    [
      'kind of damage; it decides what the others are',
      'depends on the kind',
      'depends on the kind',
      'depends on the kind',
    ],
  ],
  [
    0x1e,
    [
      'exception code that was not handled',
      'address where it happened',
      'first parameter of the exception',
      'second parameter of the exception',
    ],
  ],
  [
    0x23,
    [
      'source file (high half) and line (low half) in the driver',
      'exception record, where it was an exception',
      'context record, where it was an exception',
      'reserved',
    ],
  ],
  [
    0x24,
    [
      'source file (high half) and line (low half) in the driver',
      'exception record, where it was an exception',
      'context record, where it was an exception',
      'reserved',
    ],
  ],
  [
    0x27,
    ['source file (high half) and line (low half) in the driver', 'exception record', 'context record', 'reserved'],
  ],
  [
    0x2e,
    [
      'virtual address that faulted',
      'its physical address',
      'processor status register',
      'faulting instruction register',
    ],
  ],
  [
    0x3b,
    ['exception code', 'address of the instruction that caused it', 'context record of the exception', 'reserved'],
  ],
  [0x3d, ['exception record', 'context record', 'reserved', 'reserved']],
  [0x44, ['address of the IRP', 'reserved', 'reserved', 'reserved']],
  [
    0x4c,
    ['the status code of the hard error', 'depends on the status', 'depends on the status', 'depends on the status'],
  ],
  [
    0x4e,
    [
      'kind of damage; it decides what the others are',
      'page frame or list entry',
      'depends on the kind',
      'depends on the kind',
    ],
  ],
  [
    0x50,
    [
      'address that was referenced',
      '0 read, 1 or 2 write, 0x10 execute',
      'address of the instruction, if it is known',
      'kind of page fault',
    ],
  ],
  [0x5c, ['which initialisation failed', 'depends on the first', 'depends on the first', 'depends on the first']],
  [
    0x74,
    [
      'reason: 1 to 4, where in loading the hive it failed',
      'depends on the reason',
      'depends on the reason',
      'status code, where there is one',
    ],
  ],
  [
    0x76,
    [
      'reason: 0 pages stay locked, others find a damaged list',
      'address of the process',
      'pages locked',
      "reserved, or address of the driver's list",
    ],
  ],
  [
    0x77,
    [
      '0, 1 or 2, or the status of the read',
      'status, or signature found on the stack page',
      '0, or block number in the page file',
      '0, or address on the stack',
    ],
  ],
  [
    0x7a,
    [
      'lock type, or address of the page-table entry',
      'status of the read, usually an I/O error',
      'process, or current page-table entry',
      'virtual address that could not be read in',
    ],
  ],
  [0x7b, ['path or device object of the boot device', 'status, or 0', 'reserved', 'reserved']],
  [
    0x7c,
    [
      'kind of fault; it decides what the others are',
      'depends on the kind',
      'depends on the kind',
      'depends on the kind',
    ],
  ],
  [0x7e, ['exception code that was not handled', 'address where it happened', 'exception record', 'context record']],
  [
    0x7f,
    [
      'number of the trap: 0 divide error, 6 invalid opcode, 8 double fault, 0xd general protection',
      'depends on the trap',
      'depends on the trap',
      "depends on the trap: often the instruction's address",
    ],
  ],
  [0x80, ['0x4f4454 and such: set by the platform', 'reserved', 'reserved', 'reserved']],
  [0x8e, ['exception code that was not handled', 'address where it happened', 'trap frame', 'reserved']],
  [
    0x9c,
    [
      'machine check bank',
      'address of the machine check exception record',
      "high half of the bank's status",
      "low half of the bank's status",
    ],
  ],
  [
    0x9f,
    [
      '1 to 6: what did not finish; 3 a device held a power IRP too long, 4 a power transition timed out',
      '3: physical device object; 4: timeout in seconds',
      '3: address of the triage block; 4: thread that holds the lock',
      '3: the IRP; 4: address of the triage block',
    ],
  ],
  [
    0xa5,
    [
      'which requirement the firmware broke; it decides what the others are',
      'depends on the first',
      'depends on the first',
      'depends on the first',
    ],
  ],
  [0xbe, ['address that was written to', 'its page-table entry', 'reserved, or trap frame', 'reserved']],
  [
    0xc1,
    [
      'address within the special pool block',
      'how the block was damaged or address of the damage',
      'size of the block',
      'kind of damage (0x20 to 0x32)',
    ],
  ],
  [
    0xc2,
    [
      'kind of misuse of the pool; 7 is freed twice; it decides what the others are',
      'depends on the kind',
      'depends on the kind',
      'address of the block, where there is one',
    ],
  ],
  [
    0xc4,
    [
      'which rule of Driver Verifier was broken; it decides what the others are',
      'depends on the rule',
      'depends on the rule',
      'depends on the rule',
    ],
  ],
  [0xc5, ['address that was referenced', 'IRQL at that time', '0 read, 1 write', 'address of the instruction']],
  [0xc9, ['which I/O rule was broken', 'depends on the rule', 'depends on the rule', 'depends on the rule']],
  [
    0xce,
    [
      'address that was referenced, in a driver that was unloaded',
      '0 read, 1 write, 2 execute',
      'address of the instruction, if it is known',
      'kind of page fault',
    ],
  ],
  [
    0xd1,
    [
      'address that was referenced',
      'IRQL at that time',
      '0 read, 1 write, 2 or 8 execute',
      'address of the instruction',
    ],
  ],
  [0xd5, ['address that was referenced', '0 read, 1 write', 'address of the instruction, if it is known', 'reserved']],
  [
    0xda,
    [
      'kind of misuse; it decides what the others are',
      'depends on the kind',
      'depends on the kind',
      'depends on the kind',
    ],
  ],
  [
    0xe2,
    [
      'set by what was pressed or asked for',
      'set by what was pressed or asked for',
      'set by what was pressed or asked for',
      'set by what was pressed or asked for',
    ],
  ],
  [0xe3, ['address of the resource', 'address of the thread', 'owner table, if there is one', 'reserved']],
  [0xe6, ['which DMA rule was broken', 'depends on the rule', 'depends on the rule', 'depends on the rule']],
  [0xef, ['address of the process or thread object', '0 a process ended, 1 a thread ended', 'reserved', 'reserved']],
  [
    0xf4,
    [
      '3 a process, 6 a thread',
      'address of the object',
      'name of the image file',
      'address of an explanation in ASCII',
    ],
  ],
  [0xf7, ['cookie found on the stack', 'cookie expected', 'bit complement of the cookie expected', 'reserved']],
  [0xfc, ['address that was to be executed', 'its page-table entry', 'trap frame', 'kind of fault']],
  [0xfe, ['kind of failure in the USB stack', 'depends on the kind', 'depends on the kind', 'depends on the kind']],
  [
    0x101,
    [
      'clock interrupts waited for, in clock ticks',
      'reserved',
      'PRCB of the processor that does not answer',
      'number of that processor',
    ],
  ],
  [
    0x109,
    ['reserved', 'reserved', 'depends on the kind: often the damaged region', 'kind of structure that was changed'],
  ],
  [
    0x10d,
    [
      'which rule of the driver framework was broken; it decides what the others are',
      'depends on the rule',
      'depends on the rule',
      'depends on the rule',
    ],
  ],
  [0x113, ['subtype of the violation', 'depends on the subtype', 'depends on the subtype', 'depends on the subtype']],
  [
    0x116,
    [
      "context of the display's recovery",
      'address in the display driver',
      'status of the last failed operation',
      'depends on the driver',
    ],
  ],
  [
    0x117,
    ["context of the display's recovery", 'address in the display driver', 'secondary tag', 'depends on the driver'],
  ],
  [0x119, ['subtype of the violation', 'depends on the subtype', 'depends on the subtype', 'depends on the subtype']],
  [
    0x124,
    [
      'source of the error: 0 machine check, others as firmware tables name them',
      'address of the error record',
      "high half of the machine check bank's status",
      "low half of the machine check bank's status",
    ],
  ],
  [
    0x12b,
    [
      'virtual address of the page, or how it was found',
      'physical page or checksum',
      'depends on the first',
      'depends on the first',
    ],
  ],
  [
    0x133,
    [
      '0 one DPC or ISR took too long, 1 the system stayed too long at DISPATCH_LEVEL or above',
      "0: ticks taken; 1: the watchdog's period in ticks",
      '0: ticks allowed',
      'address of global triage data, or a reason to look at the stack',
    ],
  ],
  [
    0x139,
    [
      'kind of corruption: 0 vtable, 2 stack cookie, 3 list entry, 8 bounds, 0xa indirect call, and others',
      'trap frame',
      'exception record',
      'reserved',
    ],
  ],
  [0x13a, ['kind of corruption in the heap', 'address of the heap', 'address where it was found', 'reserved']],
  [0x144, ['kind of failure in the USB 3 stack', 'depends on the kind', 'depends on the kind', 'depends on the kind']],
  [0x153, ['address of the thread', 'address of the lock entry', 'reserved', 'kind of leak']],
  [0x154, ['address of the store', 'exception record', 'context record', 'reserved']],
  [0x164, ['subtype of the failure', 'depends on the subtype', 'depends on the subtype', 'depends on the subtype']],
  [
    0xc000021a,
    [
      'address of the name of what ended, or of a text',
      'status code with which it ended',
      'reserved, or address',
      'reserved',
    ],
  ],
  [0xc0000218, ["address of the name of the hive's file", 'reserved', 'reserved', 'reserved']],
  [0xc0000221, ['address of the name of the damaged file', 'reserved', 'reserved', 'reserved']],
  [
    0xdeaddead,
    [
      'set by the driver that asked for it',
      'set by the driver that asked for it',
      'set by the driver that asked for it',
      'set by the driver that asked for it',
    ],
  ],
]);

/** What each parameter of a bug check means; nulls for a code that is not in the table. */
export function parameterMeanings(code: number): readonly (string | null)[] {
  return PARAMETERS.get(code) ?? PARAMETERS.get(code & ~0x1000_0000) ?? [null, null, null, null];
}
