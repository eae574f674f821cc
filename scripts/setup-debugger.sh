#!/usr/bin/env bash
# Puts the engine of WinDbg, a host program for it and a Wine prefix into a cache directory, so that tests can open
# dumps in the real debugger. Does only what is missing; see docs/debugger.md.
#
#   ELF2DMP_DEBUGGER_DIR   the cache directory (default: .cache/debugger in the project)
#   ELF2DMP_DBGENG_NUPKG   a downloaded Microsoft.Debugging.Platform.DbgEng nupkg, where there is no dotnet
set -euo pipefail

package=Microsoft.Debugging.Platform.DbgEng
version=20260109.1235.0
dlls=(dbgeng dbghelp dbgcore dbgmodel msdia140)

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${ELF2DMP_DEBUGGER_DIR:-$root/.cache/debugger}
source=$root/test/debugger/host.c

say() { echo "setup-debugger: $*" >&2; }
die() {
  say "$@"
  exit 1
}
first() { # the first of these programs that is there
  local program
  for program; do command -v "$program" 2>/dev/null && return; done
  return 1
}

mkdir -p "$cache"
cache=$(cd "$cache" && pwd)
# One at a time: test workers may come here together.
if command -v flock >/dev/null; then
  exec 9>"$cache/lock"
  flock 9
fi
work=$(mktemp -d "$cache/tmp.XXXXXX")
trap 'rm -rf "$work"' EXIT

wine=$(first wine64 wine64-stable /usr/lib/wine/wine64 wine) ||
  die "Wine is missing (Debian: apt-get install --no-install-recommends wine wine64)"
wineserver=$(first wineserver wineserver-stable /usr/lib/wine/wineserver /usr/lib/wine/wineserver64) || die "wineserver is missing"
compiler=$(first x86_64-w64-mingw32-gcc) ||
  die "x86_64-w64-mingw32-gcc is missing (Debian: apt-get install --no-install-recommends gcc-mingw-w64-x86-64)"

# ---- the engine: Microsoft's, from NuGet, under the Windows SDK licence; never part of this project ----
engine=$cache/engine-$version
if [ ! -d "$engine" ]; then
  content=
  if [ -n "${ELF2DMP_DBGENG_NUPKG:-}" ]; then
    [ -f "$ELF2DMP_DBGENG_NUPKG" ] || die "ELF2DMP_DBGENG_NUPKG: no such file: $ELF2DMP_DBGENG_NUPKG"
    content=$work/package
    mkdir "$content"
    # A nupkg is a zip archive.
    if command -v unzip >/dev/null; then
      unzip -q "$ELF2DMP_DBGENG_NUPKG" -d "$content" >&2
    elif command -v bsdtar >/dev/null; then
      bsdtar -xf "$ELF2DMP_DBGENG_NUPKG" -C "$content" >&2
    elif command -v python3 >/dev/null; then
      python3 -m zipfile -e "$ELF2DMP_DBGENG_NUPKG" "$content" >&2
    else
      die "unpacking a nupkg takes unzip, bsdtar or python3"
    fi || die "$ELF2DMP_DBGENG_NUPKG is not a whole nupkg (zip) file"
    grep -q "<version>$version</version>" "$content/$package.nuspec" 2>/dev/null ||
      die "$ELF2DMP_DBGENG_NUPKG is not $package $version"
  elif command -v dotnet >/dev/null; then
    say "fetching $package $version from NuGet"
    mkdir "$work/project"
    cat >"$work/project/fetch.csproj" <<EOF
<Project Sdk="Microsoft.NET.Sdk">
  <PropertyGroup>
    <TargetFramework>netstandard2.0</TargetFramework>
    <DisableImplicitFrameworkReferences>true</DisableImplicitFrameworkReferences>
  </PropertyGroup>
  <ItemGroup><PackageReference Include="$package" Version="[$version]" /></ItemGroup>
</Project>
EOF
    for attempt in 1 2 3; do
      if (cd "$work/project" && DOTNET_NOLOGO=1 DOTNET_CLI_TELEMETRY_OPTOUT=1 DOTNET_CLI_HOME="${HOME:-$work}" \
        dotnet restore --packages "$work/packages" </dev/null >"$work/restore.log" 2>&1); then
        content=$work/packages/${package,,}/$version
        break
      fi
      [ "$attempt" = 3 ] || sleep 5
    done
    [ -n "$content" ] || { cat "$work/restore.log" >&2; die "dotnet could not restore $package $version"; }
  else
    die "the debugger engine is missing, and there is no dotnet to fetch it. Download version $version of the NuGet package
  $package by hand (its page on nuget.org has \"Download package\"; or with nuget.exe), and run
  ELF2DMP_DBGENG_NUPKG=/path/to/${package,,}.$version.nupkg scripts/setup-debugger.sh"
  fi
  mkdir "$work/engine"
  for dll in "${dlls[@]}"; do
    cp "$content/content/amd64/$dll.dll" "$work/engine/" || die "$package $version has no $dll.dll for amd64"
  done
  chmod 644 "$work/engine"/*.dll
  mv -T "$work/engine" "$engine"
fi

# ---- the host program, beside the engine's DLLs so that they are the ones it loads ----
hash=$(sha256sum "$source")
host=$engine/host-${hash:0:16}.exe
if [ ! -f "$host" ]; then
  say "building the host program"
  "$compiler" -O1 -Wall -Wextra -municode -o "$work/host.exe" "$source" || die "test/debugger/host.c does not compile"
  mv "$work/host.exe" "$host"
fi

# ---- a Wine prefix of our own ----
wineVersion=$("$wine" --version 2>/dev/null | tr -cs 'A-Za-z0-9.\n' '_')
prefix=$cache/prefix-${wineVersion%_}
if [ ! -d "$prefix" ]; then
  say "making a Wine prefix (once, about 15 s)"
  # No Mono, no Gecko, no menus, no display; nothing of this reaches the user's own prefix.
  if ! env -u DISPLAY -u WAYLAND_DISPLAY WINEPREFIX="$work/prefix" WINEARCH=win64 WINEDEBUG=-all \
    WINEDLLOVERRIDES='mscoree,mshtml,winemenubuilder.exe=' \
    timeout 300 "$wine" wineboot -i </dev/null >"$work/wineboot.log" 2>&1 9>&-; then
    cat "$work/wineboot.log" >&2
    WINEPREFIX="$work/prefix" "$wineserver" -k 2>/dev/null || true
    die "wineboot failed"
  fi
  # The registry is on disk only when the server is gone.
  WINEPREFIX="$work/prefix" timeout 60 "$wineserver" -w || WINEPREFIX="$work/prefix" "$wineserver" -k || true
  [ -f "$work/prefix/system.reg" ] || die "wineboot left no registry"
  # wineboot copies Wine's own DLLs, 600 MiB of them; links to the originals do as well.
  for libraries in /usr/lib/x86_64-linux-gnu/wine /usr/lib/wine /usr/lib64/wine "$(dirname "$wine")/../lib/wine"; do
    [ -f "$libraries/x86_64-windows/kernel32.dll" ] || continue
    for copy in "$work/prefix/drive_c/windows/system32"/*; do
      original=$libraries/x86_64-windows/${copy##*/}
      if [ -f "$original" ] && [ ! -L "$copy" ] && cmp -s "$copy" "$original"; then ln -sf "$original" "$copy"; fi
    done
    break
  done
  mv -T "$work/prefix" "$prefix"
fi

# What the tests read; it appears last, so what it names is complete.
cat >"$work/setup.json" <<EOF
{
  "engine": "$version",
  "host": "$host",
  "hostSource": "${hash%% *}",
  "wine": "$wine",
  "prefix": "$prefix"
}
EOF
cmp -s "$work/setup.json" "$cache/setup.json" || mv "$work/setup.json" "$cache/setup.json"
say "ready in $cache"
