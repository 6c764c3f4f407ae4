"""The fleet of one machine: supervised processes of a server, an autoscaler, Flower and a gateway."""
