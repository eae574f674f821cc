/**
 * The rings of tests, by file. Each test file is in one: `cli` files run the command, `outer` files need QEMU, the
 * debugger, compilers, mounted file systems, or many minutes of killing and restarting. All others are `unit` files,
 * which start no process.
 */
export const RING_FILES = {
  cli: [
    'test/batch/batch.test.ts',
    'test/batch/crash-dumps.test.ts',
    'test/batch/faults.test.ts',
    'test/batch/library.test.ts',
    'test/batch/outputs.test.ts',
    'test/batch/run.test.ts',
    'test/cli/*.test.ts',
    'test/files/unattended.test.ts',
    'test/readers/input.test.ts',
    'test/report/schemas.test.ts',
    'test/write/in-place.test.ts',
  ],
  outer: [
    'test/debugger/*.test.ts',
    'test/files/unwritable.test.ts',
    'test/guest/qemu.test.ts',
    'test/html/*.test.ts',
    'test/matrix/*.test.ts',
    'test/operations/arm64-debugger.test.ts',
    'test/operations/arm64-real-crash.test.ts',
    'test/operations/compiled-signatures.test.ts',
    'test/operations/compiled-stack.test.ts',
    'test/operations/compiled-symbols.test.ts',
    'test/operations/dump-input-debugger.test.ts',
    'test/operations/faults-debugger.test.ts',
    'test/operations/hangs-debugger.test.ts',
    'test/operations/in-place.test.ts',
    'test/operations/info-debugger.test.ts',
    'test/operations/qemu-win-dump.test.ts',
    'test/operations/real-windows-debugger.test.ts',
    'test/operations/real-crash.test.ts',
    'test/operations/reflink.test.ts',
    'test/operations/smaller-dumps-debugger.test.ts',
    'test/operations/triage-debugger.test.ts',
    'test/package/*.test.ts',
    'test/readers/forms.test.ts',
    'test/readers/kdump-qemu.test.ts',
    'test/readers/qevm/arm64-qemu.test.ts',
    'test/readers/qevm/kvm.test.ts',
    'test/readers/qevm/layouts.test.ts',
    'test/readers/qevm/libvirt.test.ts',
    'test/readers/qevm/newer-qemu.test.ts',
    'test/readers/qevm/qemu.test.ts',
    'test/reliability/*.test.ts',
    'test/symbols/compiled-structures.test.ts',
    'test/symbols/compiled.test.ts',
    'test/write/direct.test.ts',
  ],
} as const;

/** Names of the rings, as `npm test -- --ring NAME` takes them. */
export const RINGS = ['unit', 'cli', 'outer'] as const;
