import pytest

from autoscaler.devices.device import DeclaredProbe
from autoscaler.devices.nvml import choose_probe
from producer.contract.errors import ConfigError
from producer.contract.fleet.fleet_schema import DeclaredDevice
from producer.contract.fleet.settings import Settings


def test_declared_devices_are_what_the_fleet_file_says() -> None:
    (device,) = DeclaredProbe([DeclaredDevice(name="cpu:0", memory_gb=3)]).devices()
    assert (device.id, device.kind, device.memory_gb, device.fault) == ("cpu:0", "cpu", 3, "")


@pytest.fixture
def no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the rest of a machine without GPUs looks like, also on one that has some."""
    import pynvml

    def fail() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", fail)


@pytest.mark.usefixtures("no_gpus")
def test_without_gpus_the_declared_devices_are_used() -> None:
    probe = choose_probe(Settings(devices=(DeclaredDevice(name="cpu:0"),)))
    assert probe.source == "fleet.toml"


@pytest.mark.usefixtures("no_gpus")
def test_without_gpus_and_declared_devices_the_error_names_the_cure() -> None:
    with pytest.raises(ConfigError, match=r"(?s)NVML Shared Library Not Found.*\[\[devices\]\].*fleet.toml"):
        choose_probe(Settings())
