#!/bin/sh
# Prepare .venv for `make demo`, `make test` or `make bench`. Safe to run again: done work is skipped.
#
# PYTHON=...    interpreter to build the environment with (default: the first Python >= 3.11 found)
# Z1_TORCH=...  what to install as torch for the tests (default: torch==2.13.0; none: leave out the tests that need it)
set -eu
cd "$(dirname "$0")/.."
what=${1:?usage: scripts/setup.sh demo|test|bench}
venv=.venv

say() { printf '\033[1m%s\033[0m\n' "$*"; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"
    elif ! command -v sudo >/dev/null; then return 1
    elif [ -t 0 ]; then sudo "$@" # may ask for a password
    else sudo -n "$@"
    fi
}

apt_install() {
    command -v apt-get >/dev/null || return 1
    say "installing system packages: $*"
    log=$(mktemp)
    # A broken third-party repository fails the update; what we need may be there all the same.
    as_root apt-get update -q >"$log" 2>&1 || true
    if as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "$@" >>"$log" 2>&1
    then
        rm -f "$log"
    else
        tail -n 5 "$log" >&2
        rm -f "$log"
        return 1
    fi
}

candidates=${PYTHON:-python3 python3.12 python3.11 python3.13 /usr/bin/python3}

find_python() { # the first candidate that runs the given code
    for candidate in $candidates; do
        if "$candidate" -c "import sys; assert sys.version_info >= (3, 11); $1" 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

has_python() { "$venv/bin/python" -c "$1" >/dev/null 2>&1; }

# A sourced ROS 2 brings its own rclpy; the Python that can import it is used.
ros=pypi
if [ -n "${ROS_DISTRO:-}" ] && python=$(find_python 'import rclpy'); then
    ros=$ROS_DISTRO
elif python=$(find_python 'pass'); then
    if [ -n "${ROS_DISTRO:-}" ]; then
        say "ROS 2 $ROS_DISTRO is sourced, but no Python >= 3.11 here imports its rclpy: using PyPI's"
        unset PYTHONPATH # it is for another Python and would hide what we install
    fi
else
    fail "no Python >= 3.11 found (tried $candidates); set PYTHON=/path/to/python3"
fi

stamp="$venv/.ready-$what"
base="$ros $("$python" -V)"
want="$base ${Z1_TORCH:-} $(cat setup.py scripts/setup.sh | cksum)"
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$want" ] && has_python 'import rclpy, z1_ros'; then exit 0; fi

if ! has_python 'import pip' || [ "$(cat "$venv/.made-with" 2>/dev/null)" != "$base" ]; then
    say "creating $venv with $("$python" -V)"
    [ "$ros" = pypi ] && flags= || flags=--system-site-packages
    "$python" -m venv --clear $flags "$venv" >/dev/null 2>&1 ||
        { apt_install "python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv" &&
            "$python" -m venv --clear $flags "$venv" >/dev/null; } ||
        fail "cannot create a virtual environment; install python3-venv (apt-get install python3-venv)"
fi
printf '%s' "$base" >"$venv/.made-with"
export PYTHONWARNINGS=ignore # setuptools warns about every editable install
pip="$venv/bin/python -m pip install -q --disable-pip-version-check"

# Message libraries of a ROS installation are built against one NumPy major version: keep to it.
limits="$venv/constraints.txt"
: >"$limits"
if [ "$ros" != pypi ] && "$python" -c 'import numpy; raise SystemExit(int(numpy.__version__.split(".")[0]) >= 2)' 2>/dev/null; then
    printf 'numpy<2\nopencv-python-headless<4.12\n' >"$limits"
fi
$pip -U pip "setuptools<80"

if [ "$ros" = pypi ]; then
    say "installing rclpy from PyPI wheels"
    $pip 'ros-jazzy-rclpy[fastrtps]==7.1.6' 'ros-jazzy-common-interfaces==5.3.6' ||
        fail "no rclpy wheels for this machine ($(uname -m), $("$python" -V)); install ROS 2 and source it, then run this again"
else
    say "using rclpy of the sourced ROS 2 $ros"
fi
say "installing z1_ros and what it needs"
case $what in
demo) $pip -c "$limits" -e '.[demo]' ;;
test)
    if [ "${Z1_TORCH:-}" = none ]; then
        $pip -c "$limits" -e '.[demo,test]'
    else
        $pip -c "$limits" "${Z1_TORCH:-torch==2.13.0}"
        $pip -c "$limits" -e '.[demo,train,lora,test]'
    fi
    ;;
bench)
    $pip -c "$limits" -e '.[demo]'
    # robosuite 1.5.2 needs an older MuJoCo and its evdev a compiler: an environment of its own.
    if ! "$venv/lift/bin/python" -c 'import robosuite' >/dev/null 2>&1; then
        say "installing robosuite 1.5.2 into $venv/lift, to measure against"
        command -v gcc >/dev/null || apt_install gcc libc6-dev linux-libc-dev || fail "robosuite's evdev needs a C compiler (gcc)"
        "$python" -m venv --clear "$venv/lift"
        "$venv/lift/bin/python" -m pip install -q --disable-pip-version-check 'robosuite==1.5.2' 'mujoco==3.9.0' 'numpy<2' 'opencv-python<4.12'
    fi
    ;;
*) fail "unknown target $what: demo, test or bench" ;;
esac

# The cameras render off-screen: through the GPU's EGL, or Mesa's software renderer.
render='from z1_ros.sim.kitchen import KitchenEnv; e = KitchenEnv("OpenDrawer"); e.reset(0); e.observe()'
if ! has_python "$render"; then
    apt_install libegl1 libegl-mesa0 libgl1-mesa-dri libgl1 ||
        fail "cannot render off-screen; run: apt-get install libegl1 libegl-mesa0 libgl1-mesa-dri libgl1"
    has_python "$render" || { "$venv/bin/python" -c "$render" || true; fail "off-screen rendering does not work here (see above)"; }
fi
has_python 'import rclpy' || { "$venv/bin/python" -c 'import rclpy' || true; fail "rclpy cannot be imported (see above)"; }
printf '%s' "$want" >"$stamp"
