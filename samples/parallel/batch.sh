#!/bin/sh
# GNU parallel over an archive, on this machine or, with --sshloginfile, on many that share its file system:
#   samples/parallel/batch.sh /archive /dumps
# Run again, it does the shards that failed (--resume-failed), and in them what is left.
set -u
archive=${1:?directory of the archive}
out=${2:?directory for the dumps}
shards=4

mkdir -p "$out"
parallel --jobs 2 --joblog "$out/parallel.log" --resume-failed \
  elf2dmp batch "$archive" --out "$out" --jsonl "$out/report.jsonl" --jobs 1 --quiet --shard "{}/$shards" \
  ::: $(seq 0 $((shards - 1)))
