// What a report says of the Windows that was found.
import { describe, expect, it } from 'vitest';
import { locateWindows } from '../../src/locate/locator.ts';
import { chooseContexts } from '../../src/plan/contexts.ts';
import { openSource } from '../../src/readers/registry.ts';
import { reportWindows } from '../../src/report/windows.ts';
import { BufferSource } from '../../src/source/buffer.ts';
import type { Windows } from '../../src/windows/windows.ts';
import { writeElf } from '../guest/elf.ts';
import { buildGuest } from '../guest/guest.ts';

describe('the report of a Windows', () => {
  it("names the root that was found, and the header's where that is another", async () => {
    const windows = await locateWindows(openSource(new BufferSource(writeElf(buildGuest({ decoys: false })))));
    const rootsOf = (w: Windows) => {
      const { directoryTableBase, headerDirectoryTableBase } = reportWindows(w, chooseContexts(w, 'auto'));
      return [directoryTableBase, headerDirectoryTableBase];
    };
    const root = `0x${windows.root.toString(16)}`;
    expect(rootsOf(windows)).toEqual([root, null]);
    expect(rootsOf({ ...windows, headerRoot: 0x7000 as Windows['headerRoot'] })).toEqual([root, '0x7000']);
  });
});
