/** F_SETPIPE_SZ (fcntl(2)): a pipe takes 64 KiB unless somebody asks for more, and each fill costs two processes a switch. */
import { loadLibc } from './libc.ts';

const F_SETPIPE_SZ = 1031;

/** Gives a pipe a larger buffer, where the system lets it: without, reading is slower. Other files stay as they are. */
export async function enlargePipe(fd: number, size: number): Promise<void> {
  const libc = await loadLibc();
  if (typeof libc !== 'string') libc.library.func('int fcntl(int fd, int command, ...)')(fd, F_SETPIPE_SZ, 'int', size);
}
