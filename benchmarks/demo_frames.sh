#!/usr/bin/env bash
# MD5 of the decoded frames of the three demo pairs: equal before and after a change that must not change results, on one machine.
#   benchmarks/demo_frames.sh [OPTIONS OF ./inference.sh]
set -euo pipefail
here="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
for demo in 1 2 3; do
    "$here/inference.sh" --video_path "$here/assets/demo${demo}_video.mp4" --audio_path "$here/assets/demo${demo}_audio.wav" \
        --video_out_path "$work/$demo.mp4" --dtype fp32 --device cpu "$@" >&2
    echo "demo$demo $(ffmpeg -v error -i "$work/$demo.mp4" -map 0:v -f rawvideo -pix_fmt rgb24 - | md5sum | cut -d' ' -f1)"
done
