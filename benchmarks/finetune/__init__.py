"""Our trainer against plain TRL: the same data, settings and machine, in turn."""
