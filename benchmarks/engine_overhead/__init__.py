"""What corral costs a real engine: its output tokens a second against vLLM's own server."""
