"""The measured operations of a speculative step, a trainer and a weight sync."""
