"""The serving stack: gateway, engine replicas, adapters and the `corral` command."""
