#!/usr/bin/env bash
# Measures the time from the wheel to drawn poses of six images, without a network connection.
#
#   tools/lab/first_minute.sh [--wheel FILE] [--torch-from PYTHON] [--wheelhouse FOLDER] [--python PYTHON] [--limit SECONDS]
#
# Creates an empty virtual environment in a temporary folder, installs posedy from the wheel with its dependencies, and runs
# `posedy predict --examples` with the network off (`unshare -rn`, where the system permits it). The time of building the wheel
# and of installing torch and torchvision is printed but not counted. Exits with status 1 if the total exceeds the limit of 60 s.
#
#   --wheel FILE          the wheel; without it one is built from the checkout (needs the package build)
#   --torch-from PYTHON   copy torch, torchvision and the packages that they require from the environment of another Python
#   --wheelhouse FOLDER   install packages from wheels in a folder only; without it from pip's index
#   --python PYTHON       the Python of the new environment (default: python3)
#   --limit SECONDS       the limit of the total (default: 60)

set -euo pipefail

fail() {
    echo "first_minute.sh: $*" >&2
    exit 2
}

wheel="" torch_from="" wheelhouse="" python="python3" limit=60
while [ $# -gt 0 ]; do
    if [ "$1" = "--help" ] || [ "$1" = "-h" ]; then
        sed -n '2,/^$/s/^# \{0,1\}//p' "$0"
        exit 0
    fi
    [ $# -ge 2 ] || fail "$1 needs a value; --help lists the options"
    case "$1" in
        --wheel) wheel=$2 ;;
        --torch-from) torch_from=$2 ;;
        --wheelhouse) wheelhouse=$2 ;;
        --python) python=$2 ;;
        --limit) limit=$2 ;;
        *) fail "unknown option $1; --help lists the options" ;;
    esac
    shift 2
done

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# stage NAME COUNTED COMMAND...: runs a command, prints its seconds and those of CPU time, and adds them to the total if
# COUNTED is yes; on a computer with other work the CPU time tells what it takes alone
total=0 total_cpu=0
TIMEFORMAT='%R %U %S'
stage() {
    local name=$1 counted=$2 seconds user system cpu
    shift 2
    { time "$@" > "$folder/log" 2>&1; } 2> "$folder/seconds" || { cat "$folder/log" >&2; fail "$name failed: $*"; }
    read -r seconds user system < "$folder/seconds"
    cpu=$(awk "BEGIN { print $user + $system }")
    if [ "$counted" = yes ]; then
        total=$(awk "BEGIN { print $total + $seconds }")
        total_cpu=$(awk "BEGIN { print $total_cpu + $cpu }")
        counted=""
    else
        counted=", not counted"
    fi
    printf '%-44s %6.1f s (%.1f s of CPU time)%s\n' "$name" "$seconds" "$cpu" "$counted"
}

if [ -z "$wheel" ]; then
    checkout=$(cd "$(dirname "$0")/../.." && pwd)
    # by way of the sdist, which leaves no folder build/ in the checkout
    stage "build the wheel" no "$python" -m build --outdir "$folder/dist" "$checkout"
    wheel=$(echo "$folder"/dist/posedy-*.whl)
fi
[ -f "$wheel" ] || fail "no wheel at $wheel"
echo "$(basename "$wheel"): $(wc -c < "$wheel" | awk '{ printf "%.1f MB", $1 / 1e6 }')"

stage "create the environment" yes "$python" -m venv "$folder/env"
bin=$folder/env/bin
pip=("$bin/python" -m pip install --quiet --disable-pip-version-check)
if [ -n "$wheelhouse" ]; then
    pip+=(--no-index --find-links "$wheelhouse")
fi

copy_torch() {
    local target
    target=$("$bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    "$torch_from" - "$target" << 'PYTHON'
"""Copies torch, torchvision and the packages that they require to a folder, by hard links where that is possible."""

import importlib.metadata
import os
import re
import shutil
import sys
from pathlib import Path

target, wanted, done = Path(sys.argv[1]), [("torch", ""), ("torchvision", "")], set()  # pairs of a package and an extra


def copy_file(source, destination):
    try:
        os.link(source, destination)
    except OSError:
        shutil.copy2(source, destination)


while wanted:
    name, extra = wanted.pop()
    if (name, extra) in done:
        continue
    done.add((name, extra))
    try:
        package = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        if name in ("torch", "torchvision"):
            sys.exit(f"{sys.executable} has no package {name}")
        continue  # a requirement of another platform
    for file in package.files or ():
        source = Path(package.locate_file(file))
        if ".." in file.parts or not source.is_file():  # scripts
            continue
        destination = target / file
        destination.parent.mkdir(parents=True, exist_ok=True)
        if not destination.exists():
            copy_file(source, destination)
    for line in package.requires or ():
        of_extra = re.search(r"extra == [\"']([^\"']+)", line)
        if (of_extra[1] if of_extra else "") != extra:
            continue
        entry, extras = re.match(r"([\w.-]+)\s*(?:\[([^]]*)])?", line).groups()
        entry = re.sub(r"[-_.]+", "-", entry).lower()
        wanted += [(entry, each.strip()) for each in ["", *(extras or "").split(",")]]
PYTHON
}

if [ -n "$torch_from" ]; then
    stage "copy torch and torchvision" no copy_torch
else
    stage "install torch and torchvision" no "${pip[@]}" torch torchvision
fi
stage "install posedy and its other dependencies" yes "${pip[@]}" "$wheel"

offline=()
if command -v unshare > /dev/null && unshare -rn true 2> /dev/null; then
    offline=(unshare -rn)
    echo "the network is off in the next stage"
else
    echo "the network is not off: unshare -rn is not available"
fi
# a new home has no caches of earlier runs; the folder has no posedy/ that Python would import instead
mkdir "$folder/home"
cd "$folder/home"
stage "posedy predict --examples" yes ${offline[@]+"${offline[@]}"} env HOME="$folder/home" PYTHONPATH= \
    "$bin/posedy" predict --examples --out "$folder/out"

drawings=$(find "$folder/out" -name '*.jpg' | wc -l)
[ "$drawings" -eq 6 ] || fail "expected 6 drawings, got $drawings"
"$bin/python" - "$folder/out/keypoints.json" << 'PYTHON'
import json
import sys

with open(sys.argv[1], encoding="utf-8") as file:
    images = json.load(file)
persons = [len(image["persons"]) for image in images]
print(f"persons in the images: {persons}")
sys.exit(len(persons) != 6 or 0 in persons)
PYTHON
printf '%-44s %6.1f s (%.1f s of CPU time)\n' "total" "$total" "$total_cpu"
awk "BEGIN { exit !($total <= $limit) }" || { echo "first_minute.sh: expected at most $limit s" >&2; exit 1; }
