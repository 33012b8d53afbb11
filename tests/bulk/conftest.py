"""A cluster for all tests of the engines."""

import pytest


@pytest.fixture(scope="session")
def cluster():
    """Ray with two cores of this machine."""
    pytest.importorskip("ray", reason="Ray is not installed (`hf_videovit[ray]`)")
    from hf_videovit.bulk.ray_engine import ray_cluster

    with ray_cluster(None, num_cpus=2) as ray:
        yield ray
