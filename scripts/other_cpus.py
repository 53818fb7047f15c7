"""Runs a command as it would run on other processors: with fewer instructions, with one thread.

    python scripts/other_cpus.py avx2 one-thread -- python -m pytest tests/face/test_people.py
    python scripts/other_cpus.py --list

Some libraries have switches for their code paths (``avx2``, ``default``); ``zen3`` and ``sse4`` need an Intel
processor, Linux and a C compiler, and reach all of them: scripts/masked_cpu.c says how.
"""

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

_AVX512 = "-AVX512F,-AVX512VL,-AVX512BW,-AVX512CD,-AVX512DQ"
PROCESSORS: dict[str, dict[str, str]] = {
    "own": {},
    "one-thread": {"OMP_NUM_THREADS": "1"},
    # Torch, oneDNN, MKL and OpenCV without AVX-512 ...
    "avx2": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "OPENCV_CPU_DISABLE": "AVX512-SKX",
    },
    # ... and with nothing newer than SSE4.
    "default": {
        "ATEN_CPU_CAPABILITY": "default",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
        "OPENCV_CPU_DISABLE": "AVX512-SKX,AVX2,FMA3",
    },
    "zen3": {"TALKFACE_CPU": "zen3", "GLIBC_TUNABLES": f"glibc.cpu.hwcaps={_AVX512}"},
    "sse4": {"TALKFACE_CPU": "sse4", "GLIBC_TUNABLES": f"glibc.cpu.hwcaps={_AVX512},-AVX2,-AVX,-FMA"},
}
"""Environment variables by the name of a processor."""
_SET_CPUID = 0x1012  # of arch_prctl
_AS_WRITTEN = argparse.RawDescriptionHelpFormatter


def environment(name: str, folder: Path) -> dict[str, str]:
    """The environment in which a command runs as on the named processor.

    Args:
        name: one of PROCESSORS.
        folder: where what must be built is put.

    Raises:
        OSError: this machine cannot imitate that processor.
    """
    changed, given = dict(PROCESSORS[name]), dict(os.environ)
    for other in PROCESSORS.values():  # perhaps this runs as on another processor already
        for switch in other.keys() - {"OMP_NUM_THREADS"}:
            given.pop(switch, None)
    if name not in ("own", "one-thread") and platform.machine() not in ("x86_64", "AMD64"):
        raise OSError("the switches are those of x86-64 processors")
    if "TALKFACE_CPU" in changed:
        changed["LD_PRELOAD"] = str(_built(folder.resolve()))
    return given | changed


def _built(folder: Path) -> Path:
    """The library that answers for CPUID."""
    library, compiler = folder / "masked_cpu.so", shutil.which("cc")
    if platform.system() != "Linux" or not _can_fault():
        raise OSError("it needs Linux on an Intel processor, where CPUID can be made to fault")
    if compiler is None:
        raise OSError("it needs a C compiler (cc)")
    if " " in str(library):
        raise OSError(f"the loader takes no path with a space in it: {library}")
    if not library.exists():
        source = Path(__file__).with_name("masked_cpu.c")
        command = [compiler, "-shared", "-fPIC", "-O2", "-o", str(library), str(source), "-ldl"]
        if subprocess.run(command, check=False).returncode:
            raise OSError("masked_cpu.c cannot be compiled here")
    return library


def _can_fault() -> bool:
    """Whether Linux can make CPUID fault here, tried in a process that does nothing else."""
    call = f"import ctypes; print(ctypes.CDLL(None).syscall(158, {_SET_CPUID}, 0))"
    done = subprocess.run([sys.executable, "-c", call], capture_output=True, text=True, check=False)
    return done.stdout.strip() == "0"


def run(names: list[str], command: list[str]) -> int:
    """Run a command under each processor; the last exit code that is not 0, or 3 if it never ran."""
    codes = []
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            try:
                settings = environment(name, Path(folder))
            except OSError as error:
                print(f"== {name}: left out: {error}", file=sys.stderr)
                continue
            print(f"== {name}", flush=True)
            codes.append(subprocess.run(command, env=settings, check=False).returncode)
    return next((code for code in reversed(codes) if code), 0) if codes else 3


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_AS_WRITTEN)
    parser.add_argument("names", nargs="*", metavar="PROCESSOR", help=", ".join(PROCESSORS))
    parser.add_argument("--list", action="store_true", help="which there are, and what they set")
    own, command = sys.argv[1:], []
    if "--" in own:
        place = own.index("--")
        own, command = own[:place], own[place + 1 :]
    given = parser.parse_args(own)
    if given.list:
        for name, changed in PROCESSORS.items():
            print(name, *(f"{key}={value}" for key, value in changed.items()))
        return 0
    unknown = [name for name in given.names if name not in PROCESSORS]
    if unknown or not given.names or not command:
        parser.error(f"name processors ({', '.join(PROCESSORS)}), then -- and a command")
    if shutil.which(command[0]) is None:
        parser.error(f"there is no program {command[0]}")
    return run(given.names, command)


if __name__ == "__main__":
    sys.exit(main())
