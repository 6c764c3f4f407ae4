"""The order of jobs: priority of tiers, fairness among tenants, deadlines, preemption."""
