"""``stoker init``: writes a fleet file to begin with."""

from __future__ import annotations

from producer.contract.errors import ConfigError
from producer.contract.fleet.settings import fleet_path

TEMPLATE = """\
# The fleet of one machine. 'stoker up' starts it; docs/configuration.md describes every key.
# A line that begins with '#' and no space after it is an option: remove the '#' to use it.
# Every key can be overridden from the environment: STOKER_MODELS__PARROT__MAX_REPLICAS=2.

# The Redis server. Without a URL here or in REDIS_URL, 'stoker up' starts a server of its own.
#[redis]
#url = "redis://127.0.0.1:6379/0"

# A model that answers with its input, to try the fleet without weights.
[models.parrot]
engine = "echo"

# A chat model: 'source' is a hub id, a path, or package:NAME for files inside an installed Python package.
#[models.smollm2]
#engine = "generate"
#source = "HuggingFaceTB/SmolLM2-135M-Instruct"
#memory_gb = 1.5                # device memory of a replica, in GB
#max_concurrency = 8            # sequences that one worker generates at the same time
#max_replicas = 2               # replicas start when jobs come, and end when none are left

# Tiers are classes of service: a job should start within target_wait_s seconds. These are the defaults.
#[tiers.interactive]
#target_wait_s = 1
#weight = 4
#[tiers.standard]
#target_wait_s = 30
#weight = 2
#[tiers.batch]
#target_wait_s = 600
#weight = 1
#preemptible = true             # gives its slots to other tiers when they need them

# GPUs are found through NVML. On a machine without any, these slots stand in for them: one worker each.
[[devices]]
name = "cpu:0"
memory_gb = 4
"""


def init() -> None:
    """Write a commented fleet file, fleet.toml here or where --fleet says. An existing file is never replaced.

    [bold]Examples[/bold]

      stoker init
      stoker --fleet tests/fleet.toml init
    """
    file = fleet_path()
    try:
        with file.open("x", encoding="utf-8") as created:
            created.write(TEMPLATE)
    except FileExistsError:
        raise ConfigError(f"{file} exists and stays as it is: name another with --fleet, or remove it") from None
    except OSError as error:
        raise ConfigError(f"{file} cannot be written ({error.strerror}): name another with --fleet") from None
    print(f"{file} is written; 'stoker up' starts its fleet")
