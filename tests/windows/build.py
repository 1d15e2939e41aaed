"""Build a Windows CPython 3.11 that runs under wine: python tests/windows/build.py FOLDER.

There is no installer that could be fetched from a package index, but the parts of one are in packages:

- the wheel of panda3d for Windows has the interpreter's DLL and the extension modules of its library;
- the rest of the library, which is the same on all systems, is copied from a Python 3.11 of this machine;
- python.exe, which calls the DLL, and python3.dll, which forwards the stable ABI to it, are built here,
  with the compiler and linker of the package ziglang.

FOLDER then holds a wine prefix with Python in C:\\python. A build that is complete and still up to date is
kept. Exits with 77, and a reason, where wine or Python 3.11 is missing.
"""

import fcntl
import hashlib
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NoReturn
from zipfile import ZipFile

WINE = "/usr/lib/wine/wine64"
WINESERVER = "/usr/lib/wine/wineserver64"
SKIPPED = 77  # the exit code by which automake's tests, too, say that they can't run here

INTERPRETER = "panda3d==1.10.16"
COMPILER = "ziglang==0.17.1"
PACKAGES = [
    "cloudpickle==3.1.3",
    "colorama==0.4.6",  # which pytest needs on Windows, but pip looks at the system it runs on
    "hypothesis==6.170.17",
    "numpy==1.26.4",  # later ones do not run there
    "psutil==7.2.2",
    "pytest==9.2.0",
    "pytest-xdist==3.8.0",
    "pyzmq==27.1.0",
]
WINDOWS = ["--platform=win_amd64", "--python-version=3.11", "--implementation=cp", "--only-binary=:all:"]
SILENT = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
NOT_NEEDED = ("site-packages", "dist-packages", "lib-dynload", "test", "__pycache__", "config-*", "ensurepip")

# Without a C runtime and its headers, which ziglang would compile for more than a minute.
PYTHON_EXE = """
typedef unsigned short wide;
__declspec(dllimport) wide *GetCommandLineW(void);
__declspec(dllimport) wide **CommandLineToArgvW(wide *line, int *argc);
__declspec(dllimport) void ExitProcess(unsigned code);
__declspec(dllimport) int Py_Main(int argc, wide **argv);

void start(void)
{
    int argc;
    wide **argv = CommandLineToArgvW(GetCommandLineW(), &argc);
    ExitProcess(Py_Main(argc, argv));
}
"""
PYTHON3_DLL = "int start(void *module, unsigned reason, void *reserved) { return 1; }"


def main(folder: Path) -> None:
    """Build it in the folder, unless it is there."""
    version = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder.parent, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)  # two may be called at once; the second then finds what the first built
    if (folder / "version").is_file() and (folder / "version").read_text() == version:
        return
    library = standard_library()
    if not Path(WINE).exists():
        skip(f"there is no {WINE} (apt-get install wine64)")
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{folder.name}.") as name:
        work, new = Path(name), Path(name, "new")
        create_prefix(new, work)
        create_python(new / "drive_c/python", library, work)
        (new / "version").write_text(version)
        shutil.rmtree(folder, ignore_errors=True)
        new.rename(folder)


def skip(reason: str) -> NoReturn:
    """Exit because something that can't be had from a package index is missing."""
    print(f"skipped: {reason}", file=sys.stderr)
    sys.exit(SKIPPED)


def standard_library() -> str:
    """Return the folder with the standard library of some Python 3.11."""
    python = sys.executable if sys.version_info[:2] == (3, 11) else shutil.which("python3.11")
    if python is None:
        skip("there is no Python 3.11, whose standard library is needed (apt-get install python3.11)")
    code = "import sysconfig; print(sysconfig.get_path('stdlib'), end='')"
    return subprocess.run([python, "-c", code], stdout=subprocess.PIPE, text=True, check=True).stdout


def create_prefix(prefix: Path, work: Path) -> None:
    """Have wine create drive C and the registry."""
    environment = {"WINEPREFIX": str(prefix), "WINEDEBUG": "-all", "HOME": str(work), "TMPDIR": str(work)}
    for name in "TEMP", "TMP":  # wine does not take these from the environment
        command = ["reg", "add", r"HKEY_CURRENT_USER\Environment", "/f", "/v", name, "/d", "T:\\"]
        subprocess.run([WINE, *command], env=environment, check=True, **SILENT)
    subprocess.run([WINESERVER, "--wait"], env=environment, check=True)


def create_python(python: Path, library: str, work: Path) -> None:
    """Put together the interpreter, its library, and the packages."""
    (python / "DLLs").mkdir(parents=True)
    pip("download", "--no-deps", *WINDOWS, f"--dest={work}", INTERPRETER)
    with ZipFile(*work.glob("*.whl")) as wheel:
        for name in wheel.namelist():
            folder, _, file = name.partition("/")
            if folder == "deploy_libs" and not file.startswith("api-ms-"):  # these are wine's
                target = python if file.lower() in ("python311.dll", "vcruntime140.dll") else python / "DLLs"
                (target / file).write_bytes(wheel.read(name))
    shutil.copytree(library, python / "Lib", ignore=shutil.ignore_patterns(*NOT_NEEDED))
    link(python, work)
    pip("install", "--no-warn-conflicts", *WINDOWS, f"--target={python / 'Lib/site-packages'}", *PACKAGES)


def link(python: Path, work: Path) -> None:
    """Build python.exe and python3.dll."""
    names = exports((python / "python311.dll").read_bytes())
    for file, text in {
        "python311.def": "\n".join(["LIBRARY python311.dll", "EXPORTS", *names]),
        "python3.def": "\n".join(["LIBRARY python3.dll", "EXPORTS", *(f"{n}=python311.{n}" for n in names)]),
        "python.c": PYTHON_EXE,
        "python3.c": PYTHON3_DLL,
    }.items():
        (work / file).write_text(text)
    pip("install", f"--target={work / 'zig'}", COMPILER)
    zig = [sys.executable, "-m", "ziglang"]
    compiler = [*zig, "cc", "-target", "x86_64-windows-gnu", "-nostdlib", "-s", "-Wl,--entry=start"]
    for command in (
        [*zig, "dlltool", "-m", "i386:x86-64", "-d", "python311.def", "-l", "python311.lib"],
        [*compiler, "-o", "python.exe", "python.c", "python311.lib", "-lkernel32", "-lshell32"],
        [*compiler, "-o", "python3.dll", "-shared", "python3.c", "python3.def"],
    ):
        subprocess.run(command, cwd=work, env={"PYTHONPATH": "zig", "HOME": str(work)}, check=True)
    for file in ("python.exe", "python3.dll"):
        shutil.copy(work / file, python)


def exports(dll: bytes) -> list[str]:
    """Return the names that a 64-bit DLL exports (Microsoft's "PE Format" describes the fields)."""

    def field(form: str, offset: int) -> int:
        return struct.unpack_from(form, dll, offset)[0]

    def offset(address: int) -> int:
        """Return where in the file is what will be loaded at an address."""
        section = header + 24 + field("<H", header + 20)
        while not 0 <= address - field("<I", section + 12) < field("<I", section + 8):
            section += 40
        return address - field("<I", section + 12) + field("<I", section + 20)

    header = field("<I", 0x3C)
    table = offset(field("<I", header + 24 + 112))
    first, n = offset(field("<I", table + 32)), field("<I", table + 24)
    starts = (offset(field("<I", first + 4 * i)) for i in range(n))
    return [dll[start : dll.index(0, start)].decode() for start in starts]


def pip(command: str, *arguments: str) -> None:
    """Run the pip of this interpreter."""
    subprocess.run([sys.executable, "-m", "pip", command, "--quiet", *arguments], check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
