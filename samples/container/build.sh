#!/usr/bin/env bash
# Builds the image without a registry, from Debian's own packages, and runs it once as a pipeline would: as user 10001,
# with a read-only root, and by a shell. Needs root, buildah, debootstrap, and a package of `npm run package`.
#   samples/container/build.sh [PACKAGE.deb] [IMAGE]
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
deb=$(realpath "${1:-$(ls "$root"/out/package/elf2dmp_*_amd64.deb)}")
image=${2:-elf2dmp}
work=$(mktemp -d)
container=
cleanup() {
  for place in proc dumps .; do umount "$work/root/$place" 2>/dev/null || true; done
  [ -z "$container" ] || buildah rm "$container" >/dev/null
  rm -rf --one-file-system "$work"
}
trap cleanup EXIT
export BUILDAH_ISOLATION=chroot

if ! buildah inspect --type image elf2dmp-base >/dev/null 2>&1; then
  debootstrap --variant=minbase bookworm "$work/base" "${DEBIAN_MIRROR:-http://deb.debian.org/debian}" >"$work/log" ||
    { tail "$work/log" >&2; exit 1; }
  base=$(buildah from scratch)
  buildah add --quiet "$base" "$work/base" / >/dev/null
  buildah commit --quiet --rm "$base" elf2dmp-base >/dev/null
  rm -rf --one-file-system "$work/base"
fi

mkdir "$work/context"
cp "$deb" "$work/context/"
buildah build --quiet --build-arg BASE=localhost/elf2dmp-base --build-arg "DEB=$(basename "$deb")" \
  -f "$root/samples/container/Containerfile" -t "$image" "$work/context" >/dev/null

container=$(buildah from "localhost/$image")
echo "$(buildah inspect --format '{{.OCIv1.Config.User}} {{.OCIv1.Config.Entrypoint}}' "$container")"
# Its own run can lose what a short command prints: only the exit code counts here.
buildah run "$container" -- elf2dmp --version >/dev/null
buildah run "$container" -- sh -c 'test "$(id -u)" = 10001 && command -v elf2dmp' >/dev/null

# A read-only root: what a conversion writes is below its output's directory only.
mkdir "$work/root" "$work/dumps"
gzip -dc "$root/samples/crashed-19041-2cpu.elf.gz" >"$work/dumps/vm.elf"
chown -R 10001:10001 "$work/dumps"
mounted=$(buildah mount "$container")
mkdir -p "$mounted/dumps"
mount --bind "$mounted" "$work/root"
mount -o remount,ro,bind "$work/root"
mount --bind "$work/dumps" "$work/root/dumps"
mount -t proc proc "$work/root/proc"
chroot --userspec=10001:10001 "$work/root" sh -c 'id -u; command -v elf2dmp; elf2dmp --version'
chroot --userspec=10001:10001 "$work/root" elf2dmp batch /dumps/vm.elf --out /dumps/out
test -s "$work/dumps/out/vm.dmp"
echo "built and run: $image"
