"""What the benchmark tells an application, through its environment."""

from __future__ import annotations

import os

URL = os.environ["QUEUE_PATH_URL"]
"""The server, which holds the queue and the results."""

NAP_S = float(os.environ["QUEUE_PATH_NAP_S"])
"""How long a job sleeps before it answers, in seconds; 0 when the queue alone is measured."""

REDELIVER_S = float(os.environ["QUEUE_PATH_REDELIVER_S"])
"""After how long the jobs of a silent worker shall go to another, in seconds, where that can be set."""

VARIANT = os.environ["QUEUE_PATH_VARIANT"]
"""Which of several ways to set the peer up."""

JOB_TIMEOUT_S = 5
"""How long a job may take, where redelivery waits for that long."""

RETRIES = 1000
"""Maximum number of reruns of a job, for peers that need a limit. High, because kills are not the job's fault."""
