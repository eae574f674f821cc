#!/usr/bin/env bash
# build-c-elf2dmp.sh DIR: builds QEMU's own elf2dmp (C) as DIR/elf2dmp, from Debian's source package, for comparison:
#   ELF2DMP_QEMU_ELF2DMP=DIR/elf2dmp npm run bench -- copying c-tool
# Only contrib/elf2dmp is compiled. It asks a server on this machine for its PDB, never Microsoft's (SYMBOLS below).
# Needs gcc, dpkg-dev, libglib2.0-dev and libcurl4-openssl-dev.
set -euo pipefail
SYMBOLS=http://127.0.0.1:18765/
mkdir -p "$1"
dir=$(cd "$1" && pwd)
cd "$dir"

# Source packages are seldom configured: the same servers have them.
options=()
if ! apt-cache showsrc qemu >/dev/null 2>&1; then
  mkdir -p lists/partial sources
  for file in /etc/apt/sources.list.d/*.sources; do
    sed 's/^Types: .*/Types: deb-src/' "$file" > "sources/$(basename "$file")"
  done
  if [ -f /etc/apt/sources.list ]; then sed -n 's/^deb /deb-src /p' /etc/apt/sources.list > sources/main.list; fi
  options=(-o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts="$dir/sources" -o Dir::State::lists="$dir/lists")
  apt-get "${options[@]}" update -q
fi
apt-get "${options[@]}" source -q --download-only qemu
rm -rf source
mkdir source
tar xf qemu_*.orig.tar.* -C source --strip-components=1 --wildcards '*/contrib/elf2dmp/*' '*/include/qemu/win_dump_defs.h'

# In place of QEMU's: the headers that it brings, and its compile-time assertions.
mkdir -p shim/qemu
cp source/include/qemu/win_dump_defs.h shim/qemu/
cat > shim/qemu/osdep.h <<'END'
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <glib.h>
#define QEMU_PACKED __attribute__((packed))
#define QEMU_ALIGNED(x) __attribute__((aligned(x)))
#define QEMU_BUILD_BUG_ON(x) _Static_assert(!(x), #x)
END
# elf.h is QEMU's own, and glibc's has what is used of it.
sed -i "s|^#define SYM_URL_BASE .*|#define SYM_URL_BASE \"$SYMBOLS\"|" source/contrib/elf2dmp/main.c
grep -q "$SYMBOLS" source/contrib/elf2dmp/main.c
# shellcheck disable=SC2046
gcc -O2 -g -Ishim -Isource/contrib/elf2dmp -o elf2dmp source/contrib/elf2dmp/*.c $(pkg-config --cflags --libs glib-2.0 libcurl)
echo "built $dir/elf2dmp of $(basename "$(ls qemu_*.dsc)" .dsc)"
