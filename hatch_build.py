"""Puts compiled kernels into a wheel, for each kind of processor: `NORMSHIFT_WHEEL=kernels` (`make wheel`).

Such a wheel needs no compiler where it is installed, and serves every version of torch from 2.11 on. Without the
variable a wheel holds the C++ alone, and each machine compiles it. Building needs torch, which an isolated environment
has not.
"""

import os
import platform
import sys
import tempfile
from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class KernelsHook(BuildHookInterface):
    def initialize(self, version: str, build_data: dict) -> None:
        if os.environ.get("NORMSHIFT_WHEEL") != "kernels" or version == "editable":
            return
        sys.path.insert(0, self.root)
        from packaging.tags import platform_tags

        from normshift.backends import cpu_library

        self.folder = tempfile.TemporaryDirectory()
        for vectors in (*(cpu_library.VECTORS if platform.machine() in ("x86_64", "AMD64") else ()), "DEFAULT"):
            library = Path(self.folder.name, cpu_library.library_name(vectors))
            cpu_library.build(library, vectors, cpu_library.compiler())
            for file in (library, cpu_library.digest_file(library)):
                build_data["force_include"][str(file)] = f"normshift/backends/cpu/built/{file.name}"
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{next(platform_tags())}"

    def finalize(self, version: str, build_data: dict, artifact_path: str) -> None:
        if hasattr(self, "folder"):
            self.folder.cleanup()
