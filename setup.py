"""Builds the native parts: crypto leaf and data plane (Cython, C++20), lwIP binding (pybind11) and core, intercept library (C11).

`NETCON_BUILD=crypto,reactor,lwip,intercept` limits a build to some of them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from glob import glob
from pathlib import Path

from Cython.Build import cythonize
from pybind11.setup_helpers import Pybind11Extension
from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

HERE = Path(__file__).parent
PARTS = set(filter(None, os.environ.get("NETCON_BUILD", "crypto,reactor,lwip,intercept").split(",")))
WARNINGS = ["-Wall", "-Wextra", "-Werror"]
CXX = ["-std=c++20", "-O2", "-g", "-fvisibility=hidden", "-fno-strict-aliasing", *WARNINGS]
# Generated code is not ours to keep free of these.
GENERATED = ["-Wno-unused-function", "-Wno-unused-parameter", "-Wno-missing-field-initializers", "-Wno-deprecated-declarations"]


def cython_extension(name: str, sources: list[str], libraries: list[str]) -> Extension:
    return Extension(
        f"netcon.dataplane.{name}",
        [f"netcon/dataplane/{name}.pyx", *sources],
        include_dirs=["include", "netcon/dataplane/src"],
        libraries=libraries,
        extra_compile_args=[*CXX, *GENERATED],
        language="c++",
        depends=[*glob("include/netcon/*.h"), *glob("netcon/dataplane/src/*.hpp")],
    )


class BuildNative(build_ext):
    """Also builds the two shared objects that are not Python extensions: lwIP's core and the intercept library."""

    def finalize_options(self) -> None:
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()

    def run(self) -> None:
        if "lwip" in PARTS:
            self.use_lwip_source()
        super().run()
        root = HERE if self.inplace else Path(self.build_lib)
        if "lwip" in PARTS:
            self.make("lwip/build_core.py", root / "lwip" / "liblwip-core.so")
        if "intercept" in PARTS:
            self.make("intercept/build.py", root / "netcon" / "lib" / "libnetcon-intercept.so")

    def use_lwip_source(self) -> None:
        """lwIP's headers, for types only, before the binding is compiled. As system headers, whose warnings are not ours."""
        found = subprocess.run(
            [sys.executable, str(HERE / "lwip/source.py")], check=True, cwd=HERE, stdout=subprocess.PIPE, text=True
        )
        headers = str(Path(found.stdout.strip()) / "src" / "include")
        for extension in self.extensions:
            if extension.name == "lwip._lwip":
                extension.extra_compile_args += ["-isystem", headers]

    def make(self, script: str, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, str(HERE / script), str(target)], check=True, cwd=HERE)


crypto_sources = ["netcon/dataplane/src/armour.cpp", "netcon/dataplane/src/identity_work.cpp"]
extensions: list[Extension] = []
if "crypto" in PARTS:
    extensions.append(cython_extension("crypto", crypto_sources, ["sodium", "crypto", "lz4"]))
if "reactor" in PARTS:
    sources = sorted(set(glob("netcon/dataplane/src/*.cpp")) - set(crypto_sources))
    extensions.append(cython_extension("reactor", sources, []))
extensions = cythonize(extensions, build_dir="build/cython", language_level=3)
if "lwip" in PARTS:
    extensions.append(
        Pybind11Extension(
            "lwip._lwip",
            sorted(glob("lwip/src/*.cpp")),
            include_dirs=["include", "lwip/src", "lwip/core"],
            extra_compile_args=[*CXX],
            cxx_std=20,
            depends=[*glob("include/netcon/*.h"), *glob("lwip/src/*.hpp"), *glob("lwip/core/*.h"), *glob("lwip/core/arch/*.h")],
        )
    )

setup(
    packages=[*find_packages(include=["netcon", "netcon.*"]), "lwip"],
    package_data={"": ["*.pyi", "py.typed"]},
    ext_modules=extensions,
    cmdclass={"build_ext": BuildNative},
)
