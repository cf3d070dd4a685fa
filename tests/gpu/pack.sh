#!/usr/bin/env bash
# Collects what `tests/gpu/run.sh` needs on a Linux x86_64 machine that has Python 3.12 with PyTorch and no network, as
# OUT/part-01.tar ... of at most 60 MB each: wheels of this project's packages, and assets out of gesso's cache.
#
#   tests/gpu/pack.sh OUT [NAME ...]    NAMEs: packages left out, since that machine has them (numpy, scipy, numba ...)
#
# TARGET names another Python than 3.12, ASSETS other assets.
# The parts can be carried one by one and in any order; wheels come first, then assets, the most wanted first.
set -euo pipefail
test $# -ge 1 || { sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 2; }
root=$(cd "$(dirname "$0")/../.." && pwd)
mkdir -p "$1"
out=$(cd "$1" && pwd); shift
python=${PYTHON:-$root/.venv/bin/python}
export PYTHONPATH=$root TARGET=${TARGET:-3.12}
limit=59000000 # with tar's own blocks under 60 MB
piece=19500000 # of larger files, so that parts are full
assets=${ASSETS:-vgg19_normalized terminal_museum inception}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/wheels"
"$python" "$root/tests/gpu/needed.py" "$@" > "$work/needed"
test -s "$work/needed"

pip=("$python" -m pip --disable-pip-version-check)
wanted=(--only-binary=:all: --python-version "$TARGET" --implementation cp)
for glibc in 39 35 34 31 28 27 24 17 12 5; do wanted+=(--platform "manylinux_2_${glibc}_x86_64"); done
wanted+=(--platform manylinux2014_x86_64 --platform manylinux1_x86_64)
grep -v '^deepspeed==' "$work/needed" > "$work/binary" || true
"${pip[@]}" download --quiet --quiet --no-deps "${wanted[@]}" --dest "$work/wheels" --requirement "$work/binary"
# It comes as source alone; without operators built beforehand it is pure Python.
if deepspeed=$(grep '^deepspeed==' "$work/needed"); then
  DS_BUILD_OPS=0 "${pip[@]}" wheel --quiet --quiet --no-deps --no-build-isolation --wheel-dir "$work/wheels" "$deepspeed"
fi

"$python" -c 'import sys; from datamodules.assets.fetching import fetch; [fetch(name) for name in sys.argv[1:]]' $assets
cache=$("$python" -c 'from datamodules.assets.fetching import cache_folder; print(cache_folder())')
mkdir -p "$work/cache/assets"
for name in $assets; do cp -r "$cache/assets/$name" "$cache/assets/$name.json" "$work/cache/assets/"; done

# Large files go in pieces, whose names tell how many there are.
cd "$work"
find wheels cache -type f -size +"$((piece / 1024))"k | while read -r file; do
  pieces=$(( ($(stat -c %s "$file") + piece - 1) / piece ))
  split -b "$piece" -d -a 3 "$file" "$file.of$pieces.piece"
  rm "$file"
done

rm -f "$out"/part-*.tar
number=0 size=0
: > list
close() {
  test -s list || return 0
  number=$((number + 1))
  tar -cf "$out/$(printf 'part-%02d.tar' "$number")" --files-from list
  : > list
  size=0
}
for folder in wheels $(for name in $assets; do echo "cache/assets/$name.json cache/assets/$name"; done); do
  while read -r file; do
    own=$(( $(stat -c %s "$file") + 2048 ))
    test $((size + own)) -le "$limit" || close
    echo "$file" >> list
    size=$((size + own))
  done < <(find "$folder" -type f | sort)
done
close
ls -l "$out"/part-*.tar
