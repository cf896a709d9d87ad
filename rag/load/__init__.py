"""Sources and parsers: where documents come from, and what their bytes say."""
