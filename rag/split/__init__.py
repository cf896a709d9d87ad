"""Documents to chunks, sized in the embedder's own tokens."""
