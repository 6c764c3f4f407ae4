import pytest

from autoscaler.devices import COOL_C, HOT_C, DeclaredProbe, Device, quarantine
from autoscaler.nvml import choose_probe
from producer.errors import ConfigError
from producer.settings import DeclaredDevice, Settings


def gpu(temperature: float | None, fault: str = "") -> Device:
    return Device("cuda:0", "cuda", "GPU", 80, temperature_c=temperature, fault=fault)


def test_a_hot_gpu_is_out_until_it_has_cooled_well_below_the_limit() -> None:
    hot: frozenset[str] = frozenset()
    seen = []
    for temperature in (HOT_C - 1, HOT_C, HOT_C - 1, COOL_C, COOL_C - 1, HOT_C - 1):
        (device,), hot = quarantine([gpu(temperature)], hot)
        seen.append(bool(device.fault))
    assert seen == [False, True, True, True, False, False]


def test_a_hot_gpu_whose_temperature_cannot_be_read_stays_out() -> None:
    (device,), hot = quarantine([gpu(None)], frozenset({"cuda:0"}))
    assert device.fault
    assert hot == {"cuda:0"}


def test_the_first_fault_is_the_one_that_is_told() -> None:
    (device,), _ = quarantine([gpu(HOT_C, "NVML: GPU is lost")], frozenset())
    assert device.fault == "NVML: GPU is lost"


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
