#!/usr/bin/env bash
# Runs `python -m tests.gpu` on a machine with PyTorch and no network, with what `tests/gpu/pack.sh` has collected.
#
#   tests/gpu/run.sh FOLDER [PART ...] [--seconds S]    FOLDER: where part-01.tar ... lie, all or some
#
# Installs into FOLDER/carried only what the machine lacks. PYTHON names another interpreter than python3.
set -euo pipefail
test $# -ge 1 || { sed -n '2,6s/^# \{0,1\}//p' "$0"; exit 2; }
root=$(cd "$(dirname "$0")/../.." && pwd)
folder=$(cd "$1" && pwd); shift
python=${PYTHON:-python3}
carried=$folder/carried
mkdir -p "$carried/wheels" "$carried/site" "$carried/unpacked"

for part in "$folder"/part-*.tar; do
  done=$carried/unpacked/$(basename "$part")
  test -e "$done" || { tar -xf "$part" -C "$carried" && touch "$done"; }
done
find "$carried" -name '*.piece000' | while read -r first; do
  pieces=("${first%000}"*)
  name=${first%.piece000}
  wanted=${name##*.of}
  whole=${name%.of*}
  if test "${#pieces[@]}" -eq "$wanted"; then
    cat "${pieces[@]}" > "$whole" && rm "${pieces[@]}"
  else
    echo "$(basename "$whole"): ${#pieces[@]} of $wanted pieces are here" >&2
  fi
done

# This repository first: some package brings a folder `tests`.
export PYTHONPATH=$root:$carried/site
"$python" - "$carried" <<'PYTHON'
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

carried = Path(sys.argv[1])
missing = []
for wheel in sorted(carried.glob("wheels/*.whl")):
    try:
        version(wheel.name.split("-")[0])
    except PackageNotFoundError:
        missing.append(str(wheel))
if missing:
    print(f"installing {len(missing)} packages into {carried / 'site'}", flush=True)
    options = ["--quiet", "--quiet", "--no-index", "--no-deps", "--no-compile", "--disable-pip-version-check", "--root-user-action=ignore"]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, "--target", carried / "site", *missing], check=True)
PYTHON

# Nothing is to ask the network.
export GESSO_CACHE=$carried/cache GESSO_OFFLINE=1 WANDB_MODE=offline DS_BUILD_OPS=0 PIP_NO_INDEX=1
cd "$root"
exec "$python" -m tests.gpu "$@"
