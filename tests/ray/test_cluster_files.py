"""cluster/ is accepted by its readers: Ray, KubeRay, shells, Prometheus, Grafana and the parser of raymeta itself."""

from __future__ import annotations

import copy
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import parse

import raymeta
from raymeta.trackers.ray_metrics import METRICS

HOME = Path(__file__).parents[2]
CLUSTER = HOME / "cluster"
README = (CLUSTER / "README.md").read_text(encoding="utf-8")
SCRIPTS = sorted(CLUSTER.glob("*.sh"))
RAY_UP = ["aws.yaml", "gcp.yaml"]
KUBERAY = {"rayjob.yaml": "rayjobs", "raycluster.yaml": "rayclusters"}
RAY_VERSION = re.search(r"^ray==(\S+)$", (HOME / "constraints.txt").read_text(), flags=re.MULTILINE)[1]  # type: ignore[index]


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((CLUSTER / name).read_text(encoding="utf-8")))


def program(name: str) -> str:
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed; .ci/run says from which package")
    return name


def read(*command: str) -> str:
    """What a program says that has to accept what it reads."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# ray up


def require_valid_for_ray_up(config: dict[str, Any]) -> None:
    util = pytest.importorskip("ray.autoscaler._private.util", reason="this Ray keeps its validator elsewhere")
    util.validate_config(util.prepare_config(copy.deepcopy(config)))


@pytest.mark.parametrize("name", RAY_UP)
def test_ray_up_files_are_valid(name: str) -> None:
    (config,) = documents(name)
    require_valid_for_ray_up(config)
    for path in (("idle_timeout",), ("available_node_types", "gpu_spot", "resource")):
        broken = copy.deepcopy(config)
        place = broken
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = {}
        with pytest.raises(Exception, match=path[-1]):
            require_valid_for_ray_up(broken)


@pytest.mark.parametrize("name", RAY_UP)
def test_ray_up_files_scale_spot_gpus_behind_a_token(name: str) -> None:
    (config,) = documents(name)
    head, gpu = (config["available_node_types"][kind] for kind in (config["head_node_type"], "gpu_spot"))
    assert head["resources"] == {"CPU": 0}
    assert gpu["resources"]["GPU"] == 1
    assert gpu["min_workers"] == 0
    assert gpu["max_workers"] == config["max_workers"]
    market = gpu["node_config"].get("InstanceMarketOptions", gpu["node_config"].get("scheduling"))
    assert market in ({"MarketType": "spot"}, [{"preemptible": True}, {"onHostMaintenance": "TERMINATE"}])
    assert "--env RAY_AUTH_MODE=token" in " ".join(config["docker"]["run_options"])
    assert config["file_mounts"] == {"~/.ray/auth_token": "~/.ray/auth_token"}
    (start,) = [line for line in config["head_start_ray_commands"] if "--head" in line]
    assert "--dashboard-host=127.0.0.1 " in start
    assert "--autoscaling-config=" in start


# Kubernetes


def strict(schema: Any) -> Any:
    """`schema` as Kubernetes reads it with strict fields: nothing unknown; quantities are numbers or text."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    closed = {"additionalProperties": False} if "properties" in schema else {}
    return closed | {key: strict(value) for key, value in schema.items() if key != "format"}


@pytest.mark.parametrize("name", KUBERAY)
def test_kuberay_files_fit_their_schema(name: str, kuberay_schemas: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    described = json.loads((kuberay_schemas / f"{KUBERAY[name]}.v1.schema.json").read_text())
    resource = documents(name)[0]
    assert resource["apiVersion"] == f"{described['group']}/{described['version']}"
    assert resource["kind"] == described["kind"]
    validator = jsonschema.Draft7Validator(strict(described["schema"]))
    validator.validate(resource)
    spec = resource["spec"].get("rayClusterSpec", resource["spec"])
    for part in (spec, spec["headGroupSpec"], spec["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]):
        part["replica"] = 1
        with pytest.raises(jsonschema.ValidationError, match="'replica' was unexpected"):
            validator.validate(resource)
        del part["replica"]


@pytest.mark.parametrize("name", KUBERAY)
def test_kuberay_files_scale_gpus_behind_a_token(name: str) -> None:
    resource, claim = documents(name)
    spec = resource["spec"].get("rayClusterSpec", resource["spec"])
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["networkPolicy"]["mode"] == "DenyAllIngress"
    assert spec["enableInTreeAutoscaling"] is True
    head, (workers,) = spec["headGroupSpec"], spec["workerGroupSpecs"]
    # A RayJob's submitter has a pod of its own, so there the dashboard cannot stay on loopback.
    assert head["rayStartParams"]["dashboard-host"] == ("0.0.0.0" if name == "rayjob.yaml" else "127.0.0.1")
    assert workers["minReplicas"] < workers["maxReplicas"]
    (container,) = workers["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    for pod in (head["template"]["spec"], workers["template"]["spec"]):
        assert {"name": "shm", "mountPath": "/dev/shm"} in pod["containers"][0]["volumeMounts"]
    volumes = {volume["name"]: volume for volume in head["template"]["spec"]["volumes"]}
    assert volumes["results"]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]


# One image, one version of Ray


def test_every_file_means_the_ray_of_the_constraints() -> None:
    dockerfile = (CLUSTER / "Dockerfile").read_text()
    assert f"\nFROM rayproject/ray:{RAY_VERSION}-" in dockerfile
    for sources in re.findall(r"^COPY --chown=\S+ (.+) \S+$", dockerfile, flags=re.MULTILINE):
        assert all((HOME / source).exists() for source in sources.split())
    images = re.findall(r"image: (\S+)", "\n".join((CLUSTER / name).read_text() for name in [*RAY_UP, *KUBERAY]))
    assert len(images) == 6
    assert set(images) == {f"REGISTRY/raymeta:{raymeta.__version__}"}
    for name in KUBERAY:
        assert f"rayVersion: {RAY_VERSION}\n" in (CLUSTER / name).read_text()


# Shells


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_pass_shellcheck(path: Path) -> None:
    assert os.access(path, os.X_OK)
    read(program("shellcheck"), str(path))


# Command lines


def command_lines() -> Iterator[tuple[str, list[str]]]:
    """Every command of the files and the README that ends in one of raymeta's, as its file and words."""
    blocks = re.findall(r"^ *```bash\n(.*?)^ *```", README, flags=re.DOTALL | re.MULTILINE)
    texts = {path.name: re.sub(r"^ *#(?:SBATCH.*$)?", "", path.read_text(), flags=re.MULTILINE) for path in SCRIPTS}
    texts |= {"README.md": "\n".join(blocks), "rayjob.yaml": documents("rayjob.yaml")[0]["spec"]["entrypoint"]}
    for name, text in texts.items():
        for line in re.sub(r"\\\n\s*", "", text).splitlines():
            if re.search(r"\braymeta train |\braymeta\.train |\bcluster/\w+\.sh ", line) and "srun" not in line:
                yield name, shlex.split(line)


def training_options(words: list[str]) -> list[str]:
    """The options that reach `raymeta train` at the end of a command."""
    start = next(i for i, word in enumerate(words) if word in ("raymeta", "raymeta.train") or word.endswith(".sh"))
    skipped = 2 if words[start] == "raymeta" or words[start].endswith("train.sh") else 1
    return [word for word in words[start + skipped :] if word != "$@"]


LINES = [pytest.param(words, id=f"{name}: {' '.join(words)[:60]}") for name, words in command_lines()]


@pytest.mark.parametrize("words", LINES)
def test_command_lines_parse(words: list[str]) -> None:
    options = training_options(words)
    parse("train", [word.replace("$folder", "results") for word in options if word != "$run"])
    if "--autoscaling" in options:  # while no GPU is there, nothing else says that workers want one
        assert "--gpus_per_worker" in options


def test_all_command_lines_are_found() -> None:
    found = [name for name, _ in command_lines()]
    assert {name: found.count(name) for name in set(found)} == {
        "README.md": 6, "rayjob.yaml": 1, "slurm.sh": 1, "submit.sh": 1, "train.sh": 1
    }  # fmt: skip


def test_options_of_the_table_exist() -> None:
    table = README.split("## The options that matter", 1)[1].split("\n## ", 1)[0]
    options = re.findall(r"`(--[a-z_]+(?: [^`]+)?)`", table)
    assert len(options) > 7
    for option in options:
        parse("train", shlex.split(option))


@pytest.mark.slow
def test_train_sh_starts_a_run_or_goes_on_with_it(tmp_path: Path) -> None:
    def configuration() -> dict[str, Any]:
        command = ["bash", str(CLUSTER / "train.sh"), str(tmp_path / "runs"), "--steps", "3", "--print-config"]
        environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        environment["PYTHONPATH"] = str(HOME)
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return dict(yaml.safe_load(done.stdout))

    assert configuration()["seed"] == 0
    options = {"seed": 7, "steps": 2, "validate_every": 0, "test_episodes": 5}
    raymeta.meta_train("sinusoid-maml", output=str(tmp_path / "runs"), **options)
    resumed = configuration()
    assert (resumed["seed"], resumed["steps"], resumed["address"]) == (7, 3, "auto")


# Metrics


def grafana() -> dict[str, Any]:
    return dict(json.loads((CLUSTER / "grafana.json").read_text(encoding="utf-8")))


def queries() -> list[tuple[str, str]]:
    """Every query of the dashboard with its legend."""
    panels = [(target["expr"], target["legendFormat"]) for panel in grafana()["panels"] for target in panel["targets"]]
    variables = [(v["definition"], "") for v in grafana()["templating"]["list"] if v["type"] == "query"]
    return panels + variables


def test_the_dashboard_shows_every_metric_and_no_other() -> None:
    shown = {name for query, _ in queries() for name in re.findall(r"\bray_(raymeta_\w+)", query)}
    assert shown == set(METRICS)


def test_the_dashboard_asks_for_tags_that_a_metric_has() -> None:
    for query, legend in queries():
        metrics = re.findall(r"\bray_(raymeta_\w+)", query)
        tags = re.findall(r"[{,]\s*(\w+)=~", query) + re.findall(r"by \((\w+)\)", query)
        tags += re.findall(r"\{\{(\w+)\}\}", legend) + re.findall(r"label_values\(.*, (\w+)\)$", query)
        assert tags, query
        assert all(set(tags) <= set(METRICS[metric].tags) for metric in metrics), query


def test_the_dashboard_is_whole() -> None:
    board = grafana()
    known = {"source", "__rate_interval", "__range", *(v["name"] for v in board["templating"]["list"])}
    assert set(re.findall(r"\$\{?(\w+)", json.dumps(board))) - {"__all"} <= known
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(cells)) == len(cells), "panels overlap"
    assert max(x for x, _ in cells) < 24


def test_prometheus_understands_its_file_and_the_queries(tmp_path: Path) -> None:
    promtool = program("promtool")
    token = tmp_path / "token"
    token.write_text("secret")
    (config,) = documents("prometheus.yml")
    (discovery,) = config["scrape_configs"][0]["http_sd_configs"]
    assert discovery["authorization"]["credentials_file"] == "/etc/prometheus/ray_auth_token"
    assert discovery["authorization"]["credentials_file"] in README
    discovery["authorization"]["credentials_file"] = str(token)
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    read(promtool, "check", "config", str(tmp_path / "prometheus.yml"))
    plain = [re.sub(r"\$__\w+", "1m", query) for query, _ in queries() if not query.startswith("label_values")]
    rules = {
        "groups": [{"name": "panels", "rules": [{"record": f"panel:{i}", "expr": q} for i, q in enumerate(plain)]}]
    }
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(rules))
    assert f"{len(plain)} rules found" in read(promtool, "check", "rules", str(tmp_path / "rules.yml"))
