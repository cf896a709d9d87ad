"""Whether the time to first token tells what somebody else has asked."""
