"""What the path of a token costs: straight to the engine, through corral, through Serve handles."""
