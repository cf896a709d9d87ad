"""Time to ready and resident memory of every process of a stack."""
