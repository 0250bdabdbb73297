"""The RayService of `deploy/kubernetes/` has the options, ports and versions of this package."""

from __future__ import annotations

import pytest
import yaml  # type: ignore[import-untyped]

from paddle_ranker.options import options_from
from paddle_ranker.scale.ray_serve import application, deploy_options
from tests.conftest import REPOSITORY
from tests.scripts.test_deploy_files import objects

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("on_gpus", [False, True])
def test_the_service_of_ray_is_a_configuration_of_serve(on_gpus: bool) -> None:
    pytest.importorskip("ray")
    from ray.serve.schema import ServeDeploySchema

    service, policy = (document["spec"] for document in objects("rayservice.yaml", on_gpus))
    (one,) = ServeDeploySchema(**yaml.safe_load(service["serveConfigV2"])).applications
    assert one.import_path == f"{application.__module__}:{application.__name__}"
    options = options_from(deploy_options(), **{name: one.args[name] for name in one.args if name != "needs_key"})
    (group,) = service["rayClusterConfig"]["workerGroupSpecs"]
    (container,) = group["template"]["spec"]["containers"]
    cluster = service["rayClusterConfig"]
    assert cluster["authOptions"] == {"mode": "token"}
    for pods in (group, cluster["headGroupSpec"]):
        assert pods["template"]["metadata"]["labels"] == policy["podSelector"]["matchLabels"]
    others, operator, callers = policy["ingress"]
    assert others == {"from": [{"podSelector": policy["podSelector"]}]}
    assert [*operator] == ["from", "ports"] and "dashboard-host" not in cluster["headGroupSpec"]["rayStartParams"]
    assert callers == {"ports": [{"port": yaml.safe_load(service["serveConfigV2"])["http_options"]["port"]}]}
    assert (options.device == "gpu") == ("nvidia.com/gpu" in container["resources"]["limits"]) == on_gpus
    assert f"ray=={service['rayClusterConfig']['rayVersion']} " in (REPOSITORY / "requirements/modern.txt").read_text()
