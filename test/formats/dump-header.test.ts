// Forms of dump headers: what is encoded is decoded again, and a form's values fit its declaration.

import { describe, expect, it } from 'vitest';
import { DUMP_HEADER_FORM_64, type HeaderValues } from '../../src/formats/dump-header.ts';
import fc from '../support/properties.ts';

const FORM = DUMP_HEADER_FORM_64;

const u32 = fc.nat(0xffff_ffff);
const u64 = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });
const values: fc.Arbitrary<HeaderValues> = fc.record({
  majorVersion: u32,
  build: u32,
  directoryTableBase: fc.nat(2 ** 40),
  pfnDatabase: u64,
  psLoadedModuleList: u64,
  psActiveProcessHead: u64,
  machine: u32,
  processors: u32,
  bugCheck: fc.record({ code: u32, parameters: fc.tuple(u64, u64, u64, u64) }),
  kdDebuggerDataBlock: u64,
  context: fc.constantFrom(Buffer.alloc(0x4d0, 5), undefined),
  exceptionAddress: u64,
  dumpType: fc.constantFrom(1, 5, 6),
  attributes: fc.constantFrom(0, 0x40, undefined),
  systemTime: u64,
  systemUpTime: u64,
  productType: u32,
  suiteMask: u32,
  kdSecondaryVersion: fc.nat(255),
  pagingLevels: fc.constantFrom(4, undefined),
  bootId: fc.constantFrom(13, undefined),
  comment: fc.constantFrom('', 'Converted'),
  extents: fc.array(
    fc.record({
      start: fc.nat(2 ** 20).map((pfn) => pfn * 0x1000),
      size: fc.nat(2 ** 20).map((pages) => pages * 0x1000),
    }),
    { maxLength: 60 },
  ),
  pages: fc.nat(2 ** 40),
  requiredSpace: fc.nat(2 ** 50),
});

describe('the 64-bit dump header', () => {
  it('is decoded to what was encoded', () => {
    fc.assert(
      fc.property(values, (v) => {
        const bytes = FORM.encode(v);
        expect(bytes.length).toBe(FORM.size);
        expect(bytes.subarray(0, 8)).toEqual(FORM.signature);
        const header = FORM.decode(bytes);
        expect(header).toMatchObject({
          MinorVersion: v.build,
          DirectoryTableBase: BigInt(v.directoryTableBase),
          PsLoadedModuleList: v.psLoadedModuleList,
          MachineImageType: v.machine,
          BugCheckCode: v.bugCheck.code,
          BugCheckParameters: v.bugCheck.parameters,
          KdDebuggerDataBlock: v.kdDebuggerDataBlock,
          NumberOfPages: BigInt(v.pages),
          RequiredDumpSpace: BigInt(v.requiredSpace),
          DumpType: v.dumpType,
          NumberOfRuns: Math.min(v.extents.length, FORM.maxRuns),
        });
        v.extents.slice(0, FORM.maxRuns).forEach(({ start, size }, i) => {
          expect(FORM.runAt(header, i)).toEqual({ basePage: BigInt(start / 0x1000), pageCount: BigInt(size / 0x1000) });
        });
        // Windows leaves what it does not set as it filled the page.
        expect([header.Attributes, header.BootId, header.PagingLevels]).toEqual([
          v.attributes ?? 0x45474150,
          v.bootId ?? 0x45474150,
          v.pagingLevels ?? 0x47,
        ]);
        expect(header.VersionUser.toString('latin1')).toBe('PAGE'.repeat(8));
        expect([header.SecondaryDataState, header.bytes.readUInt32LE(0xf00 + 0x1c)]).toEqual([0x45474150, 0x45474150]);
        expect(header.Exception.ExceptionFlags).toBe(v.context ? 1 : 0);
      }),
      { numRuns: 100 },
    );
  });

  it('has structures within it where its declaration says', () => {
    for (const [field, { size }] of Object.entries(FORM.nested)) expect(FORM.layout.fields[field]?.size).toBe(size);
  });
});
