"""Which networks keep their graphs on disk, and where."""

from pathlib import Path
from unittest.mock import Mock

import pytest
from mindspore import nn

from src.classification.settings import ClassificationConfig
from src.config import dump_config
from src.export.exported import ExportedNetwork
from src.inference.graph_cache import CachedNetwork
from src.inference.loading import cache_graphs, graph_folder
from src.settings import RuntimeSettings


def test_graphs_of_a_network_are_kept():
    network, config = nn.ReLU(), ClassificationConfig()
    cached = cache_graphs(network, config, "CPU")
    assert isinstance(cached, CachedNetwork)
    assert (cached.network, cached.folder, cached.settings) == (network, graph_folder(), dump_config(config))


@pytest.mark.parametrize(
    ("settings", "device_target", "network"),
    [
        ({"compile_cache": False}, "CPU", nn.ReLU()),
        ({"graph_mode": False}, "CPU", nn.ReLU()),
        ({}, "Ascend", nn.ReLU()),
        ({}, "CPU", Mock(spec=ExportedNetwork)),
    ],
    ids=["switched off", "PyNative", "another device", "exported file"],
)
def test_nothing_is_kept_where_it_is_off_or_does_not_work(settings, device_target, network):
    config = ClassificationConfig(runtime=RuntimeSettings(**settings))
    assert cache_graphs(network, config, device_target) is network


def test_the_folder_is_the_users_for_caches(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert graph_folder() == Path("/somewhere/ghostnetv2-mindspore")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/her")
    assert graph_folder() == Path("/home/her/.cache/ghostnetv2-mindspore")
