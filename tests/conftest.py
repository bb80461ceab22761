"""Shared fixtures. Real data is found through RAYMETA_TEST_DATA; tests that need it skip where it is absent."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

DATA = Path(os.environ.get("RAYMETA_TEST_DATA", Path(__file__).parents[1] / "../shared/data")).resolve()

# Before anything imports them: one thread each, and a Ray that needs no token for a cluster of this test alone.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")

# A shell ignores interrupts for what it starts in the background, and programs that tests start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def omniglot_root() -> Path:
    """Folder holding the packed, complete Omniglot."""
    root = DATA / "omniglot"
    if not (root / "omniglot_bits.npz").exists():
        pytest.skip(f"no omniglot_bits.npz in {root}; set RAYMETA_TEST_DATA")
    return root


@pytest.fixture(scope="session")
def emoji_root() -> Path:
    """Folder holding emoji in several styles."""
    root = DATA / "emoji"
    if not (root / "emoji32.npz").exists():
        pytest.skip(f"no emoji32.npz in {root}; set RAYMETA_TEST_DATA")
    return root


@pytest.fixture(scope="session")
def intents() -> tuple[Path, dict[str, list[str]]]:
    """CLINC150 and a published class split of it."""
    file, splits = DATA / "text" / "clinc150.tsv.gz", DATA / "splits" / "protaugment_clinc150.json"
    if not (file.exists() and splits.exists()):
        pytest.skip(f"no {file} and {splits}; set RAYMETA_TEST_DATA")
    lists: dict[str, list[str]] = json.loads(splits.read_text(encoding="utf-8"))["splits"]["01"]
    return file, lists


@pytest.fixture(scope="session")
def kuberay_schemas() -> Path:
    """Folder holding KubeRay's own schemas of its resources, `rayjobs.v1.schema.json` and the others."""
    root = DATA / "kuberay"
    if not root.is_dir():
        pytest.skip(f"no folder {root}; set RAYMETA_TEST_DATA")
    return root


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[Any]:
    """One Ray cluster for all tests that need one, with 8 CPUs on its head; a test may add nodes and remove them."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 8, "include_dashboard": False})
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture(scope="session")
def local_ray(ray_cluster: Any) -> Any:
    """Ray, initialised; actors may exceed the cores."""
    import ray

    return ray


@pytest.fixture
def by_value(request: pytest.FixtureRequest, local_ray: Any) -> Iterator[None]:
    """Workers get the classes of the test's module, and of those in its `SENT`: they cannot import tests."""
    modules = [request.module, *getattr(request.module, "SENT", ())]
    for module in modules:
        local_ray.cloudpickle.register_pickle_by_value(module)
    yield
    for module in modules:
        local_ray.cloudpickle.unregister_pickle_by_value(module)


@pytest.fixture(scope="session")
def looked_at(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A folder of real small runs, one sweep and measurements, and the runs by what they are; tests only read them."""
    from looking import make_bench, make_runs, make_sweep

    folder = tmp_path_factory.mktemp("looked-at")
    runs = make_runs(folder)
    make_sweep(folder)
    make_bench(folder)
    return folder, runs
