#!/usr/bin/env bash
# Runs the tests of migration streams, kdump files and libvirt's saves with Debian 13's QEMU 10 and libvirt 11:
#   scripts/newer-qemu.sh [DIR [TEST…]]
# DIR (default /var/tmp/elf2dmp-trixie, 900 MiB) gets a Debian 13 by debootstrap the first time and is used again after
# that. Needs root, debootstrap, and a way to Debian's mirror (MIRROR=URL for another one).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$(realpath -m "${1:-/var/tmp/elf2dmp-trixie}")
shift || true
mirror=${MIRROR:-http://deb.debian.org/debian}
packages=(qemu-system-x86 qemu-utils libvirt-daemon libvirt-daemon-driver-qemu libvirt-clients bzip2 xz-utils zstd lzop)

[ "$(id -u)" = 0 ] || { echo 'this needs root: it makes a root directory and mounts into it'; exit 2; }
[ -e "$root/bin/sh" ] || debootstrap --variant=minbase trixie "$root" "$mirror"

temporary=$(mktemp -d /tmp/qv.XXXXXX)
trap 'rm -rf "$temporary"; rmdir "$root$temporary" 2>/dev/null || true' EXIT
mkdir -p "$root$temporary"
chmod 755 "$temporary"
export root temporary packages_to_install="${packages[*]}"
# In a mount namespace of its own, so that nothing stays mounted. Files of the tests have the same path inside and outside.
unshare --mount bash -euc '
  mount --rbind /proc "$root/proc"
  mount --rbind /dev "$root/dev"
  mount --rbind /sys "$root/sys"
  mount --bind "$temporary" "$root$temporary"
  if ! [ -e "$root/usr/sbin/libvirtd" ] || ! [ -e "$root/usr/bin/lzop" ]; then
    export DEBIAN_FRONTEND=noninteractive
    chroot "$root" apt-get -q update
    chroot "$root" apt-get -q install -y --no-install-recommends $packages_to_install </dev/null
  fi
  chroot "$root" qemu-system-x86_64 --version | head -n 1
  chroot "$root" libvirtd --version
  export TMPDIR=$temporary ELF2DMP_QEMU_ROOT=$root ELF2DMP_REQUIRE_TOOLS=1
  node scripts/fresh-bundle.mjs
  node node_modules/vitest/vitest.mjs run "$@"
' bash "${@:-test/readers/qevm}"
