"""Workers on Ray: where they are put, and that nothing which happens to them changes a bit of the result."""

from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from killing import trained

from raymeta.config.build import build
from raymeta.config.load import load_config
from raymeta.engine.driver.checkpoint import CheckpointStore
from raymeta.engine.executors.local import LocalExecutor
from raymeta.engine.executors.placement import PoolOptions
from raymeta.engine.executors.ray_actors import RayExecutor
from raymeta.engine.executors.ray_actors.folding import whole_blocks
from raymeta.engine.executors.ray_actors.pool import DRAIN_CHECK_S
from raymeta.engine.job import Job
from raymeta.errors import DataError, EnvironmentProblem, WorkerFailed
from raymeta.keys import plan
from raymeta.trackers.names import FAULT_KINDS
from raymeta.trackers.ray_metrics import METRICS

# 27 thousand parameters: gradients too large to be sent with Ray's replies, in steps of a few milliseconds.
SMALL: dict[str, Any] = {
    "model.hidden": [160, 160],
    "meta_batch_size": 16,
    "shard_size": 2,
    "validate_every": 0,
    "steps": 12,
    "test_episodes": 8,
}


class Watcher:
    """A tracker that remembers events, and does something after a step."""

    def __init__(self, at: dict[int, Callable[[], None]] | None = None) -> None:
        self.at = at or {}
        self.events: list[tuple[str, str]] = []

    def kinds(self) -> set[str]:
        return {kind for kind, _ in self.events}

    def tell(self, kind: str, message: str, **fields: object) -> None:
        self.events.append((kind, message))

    def step(self, step: int, metrics: Any) -> None:
        if step in self.at:
            self.at[step]()

    def event(self, kind: str, message: str, **fields: object) -> None: ...

    def validation(self, step: int, scores: Any) -> None: ...

    def workers(self, rows: Any) -> None: ...

    def close(self) -> None: ...


def config_of(**options: Any) -> Any:
    return load_config(preset="sinusoid-maml", overrides={**SMALL, **options}).config


def train(config: Any, executor: Any, watcher: Watcher, directory: Path) -> str:
    return trained(executor, config, directory, watcher)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What one process computes."""
    config = config_of()
    return train(config, LocalExecutor(build(config).blueprint), Watcher(), tmp_path_factory.mktemp("one"))


@contextmanager
def extra_node(cluster: Any, **options: Any) -> Iterator[Any]:
    """One more node, until the end of the block or until a test has removed it."""
    node = cluster.add_node(**options)
    cluster.wait_for_nodes()
    try:
        yield node
    finally:
        if node in cluster.list_all_nodes():
            cluster.remove_node(node)


def test_a_request_that_never_fits_fails_with_its_arithmetic(ray_cluster: Any) -> None:
    blueprint = build(config_of()).blueprint
    with extra_node(ray_cluster, num_cpus=0, num_gpus=4):
        with pytest.raises(EnvironmentProblem, match="8 workers x 1 GPU and 1 CPU asked, 4 GPUs and 8 CPUs"):
            RayExecutor(blueprint, PoolOptions(workers=8, gpus_per_worker=1))
        with pytest.raises(EnvironmentProblem, match="accelerator H100 asked"):
            RayExecutor(blueprint, PoolOptions(workers=1, accelerator_type="H100"))
        with pytest.raises(EnvironmentProblem, match="2 nodes, 0 of them with these labels"):
            RayExecutor(blueprint, PoolOptions(workers=1, node_labels={"zone": "moon"}))


@pytest.mark.slow
def test_gpus_are_shared_in_fractions_and_one_each_by_default(ray_cluster: Any, local_ray: Any) -> None:
    config = config_of(device="auto")
    blueprint = build(config).blueprint
    with extra_node(ray_cluster, num_cpus=4, num_gpus=2):
        pool = RayExecutor(blueprint, PoolOptions(workers="auto"))
        try:
            assert len(pool.pool.live()) == 2, "one for each GPU"
            assert {seat.node for seat in pool.pool.live()} == {_gpu_node(local_ray)}
        finally:
            pool.close()
        pool = RayExecutor(blueprint, PoolOptions(workers=3, gpus_per_worker=0.5))
        try:
            assert len(pool.pool.live()) == 3
            assert pool.describe()["per_worker"] == "0.5 GPU and 1 CPU"
        finally:
            pool.close()
        with pytest.raises(EnvironmentProblem, match=r"3 workers x 0\.6 GPU and 1 CPU asked, 2 GPUs .*: room for 2"):
            RayExecutor(blueprint, PoolOptions(workers=3, gpus_per_worker=0.6))


def _gpu_node(ray: Any) -> str:
    (node,) = (n["NodeID"] for n in ray.nodes() if n["Alive"] and n["Resources"].get("GPU"))
    return str(node)


@pytest.mark.slow
def test_workers_lie_where_labels_say_or_on_all_nodes(ray_cluster: Any) -> None:
    blueprint = build(config_of()).blueprint
    with extra_node(ray_cluster, num_cpus=4, labels={"zone": "one"}) as node:
        pool = RayExecutor(blueprint, PoolOptions(workers=2, node_labels={"zone": "one"}))
        try:
            assert {seat.node for seat in pool.pool.live()} == {node.node_id}
        finally:
            pool.close()
        pool = RayExecutor(blueprint, PoolOptions(workers=4, placement="spread"))
        try:
            assert len({seat.node for seat in pool.pool.live()}) == 2
        finally:
            pool.close()


@pytest.mark.slow
def test_sums_on_nodes_have_the_same_bits_and_less_to_carry(ray_cluster: Any, expected: str, tmp_path: Path) -> None:
    config = config_of()
    built = build(config)
    shards = plan(seed=0, split="train", step=0, num_tasks=16, shard_size=1)
    with extra_node(ray_cluster, num_cpus=4):
        for aggregate in ("flat", "node"):
            options = PoolOptions(workers=4, placement="spread", aggregate=aggregate)
            pool = RayExecutor(built.blueprint, options)
            blocks = [block for block, _ in pool.map(Job("gradient"), built.blueprint.payload(built.initial), shards)]
            assert sum(len(block.positions(16)) for block in blocks) == 16
            assert len(blocks) == 16 if aggregate == "flat" else len(blocks) <= 10
            assert train(config, pool, Watcher(), tmp_path / aggregate) == expected


@pytest.mark.slow
def test_a_lost_part_of_a_block_is_computed_again_and_counted_once(
    local_ray: Any, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A block whose parts lie on several nodes: one part's sum is lost while the others come or have come."""
    from raymeta.engine.executors.ray_actors import sums

    monkeypatch.setattr(sums, "split", lambda block, nodes, num_shards: block.halves())
    config = config_of()
    watcher = Watcher()
    pool = RayExecutor(build(config).blueprint, PoolOptions(workers=2, aggregate="node"), watcher.tell)
    fold, asked = pool._sums._folders.fold, itertools.count()

    def lossy(node: str, leaves: Any, vectors: Any) -> Any:
        references = fold(node, leaves, vectors)
        if next(asked) % 5 in (0, 3):
            pool._sums._folders.forget(node)  # with what it was asked for
        return references

    monkeypatch.setattr(pool._sums._folders, "fold", lossy)
    assert train(config, pool, watcher, tmp_path) == expected
    assert "result_lost" in watcher.kinds()


@pytest.mark.slow
def test_a_frozen_worker_delays_nothing_and_is_replaced(local_ray: Any, expected: str, tmp_path: Path) -> None:
    config = config_of()
    frozen: list[int] = []

    def freeze() -> None:
        frozen.append(pool.workers()[0].pid)
        os.kill(frozen[0], signal.SIGSTOP)

    watcher = Watcher({3: freeze})
    pool = RayExecutor(build(config).blueprint, PoolOptions(workers=2), watcher.tell)
    assert train(config, pool, watcher, tmp_path / "late") == expected
    assert watcher.kinds() == {"shard_copied"}, "the other worker computed what was late"

    watcher = Watcher({3: freeze})
    frozen.clear()
    pool = RayExecutor(build(config).blueprint, PoolOptions(workers=1, shard_timeout_s=2), watcher.tell)
    assert train(config, pool, watcher, tmp_path / "hung") == expected
    assert "worker_hung" in watcher.kinds()


@pytest.mark.slow
def test_the_loser_of_a_race_stays_on_the_account(local_ray: Any, expected: str, tmp_path: Path) -> None:
    """A worker that was late in one step is still busy in the next: it is not given shards as if it were idle."""
    config = config_of()
    queues: list[int] = []
    pids: list[int] = []

    def freeze() -> None:
        pids.append(pool.workers()[0].pid)
        os.kill(pids[0], signal.SIGSTOP)

    def look() -> None:
        queues.append(next(row.queue for row in pool.workers() if row.pid == pids[0]))

    def thaw() -> None:
        look()
        os.kill(pids[0], signal.SIGCONT)

    watcher = Watcher({3: freeze, 5: look, 6: look, 7: thaw})
    pool = RayExecutor(build(config).blueprint, PoolOptions(workers=2), watcher.tell)
    assert train(config, pool, watcher, tmp_path) == expected
    assert all(0 < queue <= 2 for queue in queues), "as full as when it froze, and never fuller"


@pytest.mark.slow
@pytest.mark.parametrize("aggregate", ["flat", "node"])
def test_a_lost_node_is_waited_for_and_changes_nothing(
    aggregate: Any, ray_cluster: Any, local_ray: Any, expected: str, tmp_path: Path
) -> None:
    config = config_of()
    spot = {"labels": {"pool": "spot"}, "num_cpus": 2}
    with extra_node(ray_cluster, **spot) as first, extra_node(ray_cluster, **spot) as second:
        taken = _take(local_ray, second)

        def lose() -> None:
            ray_cluster.remove_node(first, allow_graceful=False)
            threading.Timer(2.0, lambda: local_ray.kill(taken)).start()

        watcher = Watcher({3: lose})
        options = PoolOptions(workers=2, min_workers=1, node_labels=spot["labels"], aggregate=aggregate)  # type: ignore[arg-type]
        pool = RayExecutor(build(config).blueprint, options, watcher.tell)
        assert train(config, pool, watcher, tmp_path) == expected
    assert {"worker_lost", "workers_waiting", "worker_joined"} <= watcher.kinds()


def _take(ray: Any, node: Any) -> Any:
    """An actor that takes all CPUs of a node."""

    class Taker:
        def ready(self) -> None: ...

    strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node.node_id, soft=False)
    actor = ray.remote(Taker).options(num_cpus=2, scheduling_strategy=strategy).remote()
    ray.get(actor.ready.remote())
    return actor


@pytest.mark.slow
def test_too_few_workers_end_the_run_after_its_wait_with_all_steps_saved(ray_cluster: Any, tmp_path: Path) -> None:
    config = config_of()
    with extra_node(ray_cluster, num_cpus=2, labels={"pool": "lone"}) as node:
        watcher = Watcher({3: lambda: ray_cluster.remove_node(node, allow_graceful=False)})
        options = PoolOptions(workers=2, min_workers=2, node_labels={"pool": "lone"}, worker_wait_s=90)
        pool = RayExecutor(build(config).blueprint, options, watcher.tell)
        pool._options = replace(options, worker_wait_s=4)  # a busy machine may take longer to start workers
        with pytest.raises(WorkerFailed, match=r"needs 2 \(--min_workers\): continue with --resume"):
            train(config, pool, watcher, tmp_path)
    checkpoint, _ = CheckpointStore(tmp_path).load_last()
    assert checkpoint is not None
    assert checkpoint.step == 3


@pytest.mark.slow
def test_a_preempted_node_is_left_before_it_goes(ray_cluster: Any, expected: str, tmp_path: Path) -> None:
    config = config_of()
    with extra_node(ray_cluster, num_cpus=2) as node:

        def announce() -> None:
            command = [
                *(sys.executable, "-m", "ray.scripts.scripts", "drain-node", "--address", ray_cluster.address),
                *("--node-id", node.node_id, "--reason", "DRAIN_NODE_REASON_PREEMPTION"),
                *("--reason-message", "spot", "--deadline-remaining-seconds", "60"),
            ]
            subprocess.run(command, check=True, capture_output=True)
            time.sleep(DRAIN_CHECK_S)

        watcher = Watcher({3: announce})
        pool = RayExecutor(build(config).blueprint, PoolOptions(workers=4, placement="spread"), watcher.tell)
        assert any(seat.node == node.node_id for seat in pool.pool.live())
        assert train(config, pool, watcher, tmp_path) == expected
    assert "worker_preempted" in watcher.kinds()
    assert "worker_lost" not in watcher.kinds(), "nobody had to die for it"


@pytest.mark.slow
def test_the_pool_grows_to_its_limit_where_there_is_room(ray_cluster: Any, expected: str, tmp_path: Path) -> None:
    config = config_of()
    labels = {"pool": "grow"}
    rows: list[Any] = []
    with extra_node(ray_cluster, num_cpus=1, labels=labels), ExitStack() as later:

        def grow() -> None:
            later.enter_context(extra_node(ray_cluster, num_cpus=4, labels=labels))
            while len(pool.pool.live()) < 3:
                pool.pool.collect(timeout=0.2)

        watcher = Watcher({2: grow, 12: lambda: rows.extend(pool.workers())})
        options = PoolOptions(workers=1, max_workers=3, node_labels=labels)
        pool = RayExecutor(build(config).blueprint, options, watcher.tell)
        assert len(pool.pool.live()) == 1
        assert train(config, pool, watcher, tmp_path) == expected
    assert len(rows) == 3
    assert all(row.tasks > 0 for row in rows)
    assert not watcher.kinds() & set(FAULT_KINDS)


def test_a_run_that_workers_slow_down_says_so(local_ray: Any, tmp_path: Path) -> None:
    config = config_of(**{"model.hidden": [4], "meta_batch_size": 2, "shard_size": 1, "steps": 30})
    watcher = Watcher()
    pool = RayExecutor(build(config).blueprint, PoolOptions(workers=1), watcher.tell)
    train(config, pool, watcher, tmp_path)
    ((kind, message),) = watcher.events
    assert kind == "warning"
    assert "one worker is slower than one process: a step takes" in message


@pytest.mark.slow
def test_data_is_shipped_or_read_on_each_node(local_ray: Any, omniglot_root: Path, tmp_path: Path) -> None:
    root = tmp_path / "omniglot"
    root.mkdir()
    file = root / "omniglot_bits.npz"
    file.write_bytes((omniglot_root / "omniglot_bits.npz").read_bytes())
    options = {"tasks.root": str(root), "model.width": 4, "meta_batch_size": 2, "steps": 2, "validate_every": 0}
    for data in ("ship", "local"):
        overrides = {**options, "tasks.data": data}
        config = load_config(preset="omniglot-5w1s-maml", overrides=overrides).config
        blueprint = build(config).blueprint
        blueprint.tasks.check()  # the driver has read it
        file.rename(root / "away")  # and no worker can
        try:
            if data == "ship":
                train(config, RayExecutor(blueprint, PoolOptions(workers=2)), Watcher(), tmp_path / data)
            else:
                with pytest.raises(DataError, match="omniglot"):
                    RayExecutor(blueprint, PoolOptions(workers=2))
        finally:
            (root / "away").rename(file)


@pytest.mark.slow
def test_validation_beside_training_changes_nothing(local_ray: Any, tmp_path: Path) -> None:
    results = []
    for workers, overlap in ((0, False), (2, False), (2, True)):
        config = config_of(
            steps=30, validate_every=4, validation_episodes=10, checkpoint_every=6, overlap_validation=overlap
        )
        blueprint = build(config).blueprint
        pool = RayExecutor(blueprint, PoolOptions(workers=workers)) if workers else LocalExecutor(blueprint)
        directory = tmp_path / f"{workers}-{overlap}"
        sha = train(config, pool, Watcher(), directory)
        files = {p.relative_to(directory): _timeless(p) for p in sorted(directory.rglob("*")) if p.is_file()}
        results.append((sha, files))
    assert results[0] == results[1] == results[2]


def _timeless(path: Path) -> bytes:
    """A file's content without the seconds that training took, and the hash that covers them."""
    return re.sub(rb'"train_s": [0-9.e-]+|"sha256_of_the_rest": "[0-9a-f]+"', b"", path.read_bytes())


def test_prometheus_gets_every_metric_of_a_run(local_ray: Any) -> None:
    from raymeta.trackers.base import WorkerRow
    from raymeta.trackers.names import DRIVER_BUSY, STEP_S
    from raymeta.trackers.ray_metrics import RayMetrics

    metrics = RayMetrics("a-run")
    metrics.step(7, {STEP_S: 0.5, DRIVER_BUSY: 0.01})
    metrics.workers([WorkerRow("worker-0", "10.0.0.1", 1, 20, 5.0, 2, 1, 1000)])
    metrics.workers([WorkerRow("worker-0", "10.0.0.2", 2, 35, 5.0, 3, 1, 1000)])
    assert set(metrics.series) == set(METRICS)
    text = _scrape(local_ray, "raymeta_worker_restarts_total")
    for name in METRICS:
        assert f"ray_{name}" in text
    assert 'run="a-run"' in text
    tasks = [
        line for line in text.splitlines() if line.startswith("ray_raymeta_tasks_total{") and 'run="a-run"' in line
    ]
    assert sum(float(line.rsplit(" ", 1)[1]) for line in tasks) == 35


def _scrape(ray: Any, until: str) -> str:
    """What the node's metrics port offers, once `until` is in it."""
    from urllib.request import urlopen

    (port,) = {n["MetricsExportPort"] for n in ray.nodes() if n["Alive"]}
    deadline = time.monotonic() + 30
    text = ""
    while until not in text and time.monotonic() < deadline:
        time.sleep(0.5)
        text = urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
    return text


def test_blocks_stay_whole_although_nodes_take_shards_from_each_other() -> None:
    """Whoever computed a shard last prepared its next episodes; a block goes to the node that prepared most of it."""
    mine, yours = dict.fromkeys(range(8), "a"), dict.fromkeys(range(8, 16), "b")
    assert whole_blocks(mine | yours, 3, 2) == mine | yours
    assert whole_blocks(mine | yours | {6: "b", 7: "b", 9: "a"}, 3, 2) == mine | yours, "what was taken goes back"
    assert whole_blocks({**mine, 8: "a", 9: "a", 10: "b"}, 3, 2) == mine | yours, "nobody gets more than a share"
    assert whole_blocks({**mine, 8: "a", 9: "a"}, 3, 2) == mine, "the rest is for who asks first"
    assert whole_blocks({0: "gone"}, 1, 0) == {0: "gone", 1: "gone"}
    assert whole_blocks({}, 3, 2) == {}
