"""The direction of imports, and what `import dg` may cost."""

import ast
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RANK = {
    "types": 0,
    "core": 1,
    "io": 2,
    "raster": 2,
    "meshraster": 2,
    "data": 3,
    "priors": 4,
    "losses": 5,
    "eval": 5,
    "stages": 6,
    "runtime": 7,
    "doctor": 8,
    "experiment": 8,
    "sweep": 8,
}
HEAVY = {"hydra": {"runtime"}, "lightning": {"stages", "runtime"}, "wandb": {"runtime"}}
FILES = sorted((ROOT / "dg").rglob("*.py"))


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def layer(path: Path) -> str:
    return path.relative_to(ROOT / "dg").parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_downwards(path):
    here = layer(path)
    if here == "__init__":
        return
    for module in imports(path):
        parts = module.split(".")
        if parts[0] == "dg" and len(parts) > 1:
            assert RANK[parts[1]] <= RANK[here], f"{path}: {here} may not import {module}"
        if parts[0] in HEAVY:
            assert here in HEAVY[parts[0]], f"{path}: {parts[0]} may only appear in {sorted(HEAVY[parts[0]])}"


def test_every_folder_has_a_rank():
    assert {layer(p) for p in FILES} - {"__init__"} <= set(RANK)


def test_import_is_light():
    code = "import dg, sys; print(dg.__version__); assert 'torch' not in sys.modules and 'numba' not in sys.modules"
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True)
    assert time.perf_counter() - start < 10  # it takes 0.03 s; the bound only catches a heavy import on a busy machine
