"""A running engine as a source: its step time by batch and context, over HTTP."""
