"""From a simulation to a fleet: certificates, keys, images, units, charts, alerts."""
