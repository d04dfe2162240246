"""A real small asynchronous RL system: policy, engine, trainer and buffer, and what is measured of its parts."""
