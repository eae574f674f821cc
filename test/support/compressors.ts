/** Debian's liblzo2 and libsnappy, which compress pages as QEMU does where it was built with them. */
import koffi from 'koffi';

export type Compressor = (page: Buffer) => Buffer;

/** For `describe.skipIf(!compressors)`. With ELF2DMP_REQUIRE_TOOLS=1 a missing library is an error. */
export function loadCompressors(): { lzo: Compressor; snappy: Compressor } | undefined {
  try {
    return { lzo: loadLzo(), snappy: loadSnappy() };
  } catch (cause) {
    if (process.env['ELF2DMP_REQUIRE_TOOLS'] === '1') throw cause;
    console.warn(`skipping the tests with liblzo2 and libsnappy (Debian: apt-get install liblzo2-2 libsnappy1v5)`);
    return undefined;
  }
}

function loadLzo(): Compressor {
  const library = koffi.load('liblzo2.so.2');
  const init = library.func('int __lzo_init_v2(uint, int, int, int, int, int, int, int, int, int)');
  // LZO_VERSION and the sizes of C's types; -1 is not checked.
  if (init(0x20a0, 2, 4, 8, 4, 8, 8, 8, 8, -1) !== 0) throw new Error('liblzo2 does not fit this machine');
  const compress = library.func('int lzo1x_1_compress(void *, uint64_t, void *, void *, void *)');
  return (page) => {
    const target = Buffer.alloc(page.length + (page.length >> 4) + 67);
    const size = Buffer.alloc(8);
    size.writeBigUInt64LE(BigInt(target.length));
    // Its working memory: LZO1X_1_MEM_COMPRESS.
    const result = compress(page, page.length, target, size, Buffer.alloc(8 * 16384));
    if (result !== 0) throw new Error(`lzo1x_1_compress: ${result}`);
    return target.subarray(0, Number(size.readBigUInt64LE()));
  };
}

function loadSnappy(): Compressor {
  const library = koffi.load('libsnappy.so.1');
  const compress = library.func('int snappy_compress(void *, uint64_t, void *, void *)');
  return (page) => {
    const target = Buffer.alloc(32 + page.length + Math.floor(page.length / 6));
    const size = Buffer.alloc(8);
    size.writeBigUInt64LE(BigInt(target.length));
    const result = compress(page, page.length, target, size);
    if (result !== 0) throw new Error(`snappy_compress: ${result}`);
    return target.subarray(0, Number(size.readBigUInt64LE()));
  };
}
