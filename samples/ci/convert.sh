#!/bin/sh
# A pipeline's step after VM tests: converts what they left in DIR, if anything.
#   sh convert.sh DIR OUT
# Fails when a dump can't be had (exit code 4 to 7), not for losses (3), which the report lists.
set -u
dir=${1:?directory that the VM tests leave dumps in}
out=${2:?directory for the crash dumps and the report}

if [ -z "$(ls -A "$dir" 2>/dev/null)" ]; then
  echo "no dumps in $dir"
  exit 0
fi
elf2dmp batch "$dir" --out "$out" --jsonl "$out/report.jsonl" --junit "$out/junit.xml"
code=$?
[ "$code" -eq 3 ] && exit 0
exit "$code"
