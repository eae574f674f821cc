/** When there is no Windows: what else is it? */
import type { ErrorCodeOf } from '../core/codes.ts';
import { MIB } from '../core/units.ts';
import type { MemoryImage } from '../memory/image.ts';

/** A Linux kernel's banner lies within its image, which is loaded low. */
const SEARCH_LIMIT = 512 * MIB;
const CHUNK = MIB;
const BANNER = Buffer.from('Linux version ');

/** `Linux version 6.1.0-18-amd64 (` */
const BANNER_PATTERN = /Linux version \d+\.\d+[\w.+~-]* \(/;

/** The system that the guest seems to run instead of Windows. */
interface OtherSystem {
  code: ErrorCodeOf<'unsupported'>;
  /** `Linux 6.1.0` */
  system: string;
  what: string;
  hint: string;
  /** The guest itself says so in a note; else a text in memory does. */
  certain: boolean;
}

/** undefined where it is not recognised. */
export function recogniseOtherSystem(image: MemoryImage): OtherSystem | undefined {
  const vmcoreinfo = image.notes.find((note) => note.name === 'VMCOREINFO');
  const release = vmcoreinfo?.head.toString('latin1').match(/OSRELEASE=([\w.+~-]{1,64})/)?.[1];
  const banner = release ? `Linux ${release}` : findBanner(image);
  if (!banner) return undefined;
  return {
    code: 'linux-guest',
    system: banner,
    certain: release !== undefined,
    what: `the guest runs ${banner}, not Windows`,
    hint: 'open the ELF file itself with crash or drgn',
  };
}

function findBanner(image: MemoryImage): string | undefined {
  const buffer = Buffer.alloc(CHUNK + 128);
  let searched = 0;
  for (const run of image.runs) {
    for (let at = 0; at < run.size && searched < SEARCH_LIMIT; at += CHUNK) {
      const chunk = buffer.subarray(0, Math.min(buffer.length, run.size - at));
      if (!image.readSync(run.start + at, chunk)) break;
      searched += chunk.length;
      for (let hit = chunk.indexOf(BANNER); hit >= 0; hit = chunk.indexOf(BANNER, hit + 1)) {
        const match = chunk.toString('latin1', hit, hit + 128).match(BANNER_PATTERN);
        if (match) return match[0].replace(/^Linux version /, 'Linux ').replace(/ \($/, '');
      }
    }
  }
  return undefined;
}
