import { describe, expect, it } from 'vitest';
import { baseBuild, releaseName } from '../../src/windows/releases.ts';

describe('releases', () => {
  it('know the builds that enablement packages made of others', () => {
    expect([18363, 19042, 19043, 19044, 19045, 22631, 26200].map(baseBuild)).toEqual([
      18362, 19041, 19041, 19041, 19041, 22621, 26100,
    ]);
    expect([3790, 19041, 22000, 25398, 28000, 12345].map(baseBuild)).toEqual([3790, 19041, 22000, 25398, 28000, 12345]);
  });

  it('have the names of client and server', () => {
    expect([releaseName(6003, 3), releaseName(28000, 1), releaseName(12345, 1)]).toEqual([
      'Windows Server 2008 SP2',
      'Windows 11 26H1',
      null,
    ]);
  });
});
