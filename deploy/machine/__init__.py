"""The fleet of one machine: server, autoscaler, Flower, gateway, supervised."""
