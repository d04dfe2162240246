"""Settings of the profiler's tests."""

try:
    import torch
except ImportError:  # each test file skips by itself
    pass
else:
    torch.set_num_threads(1)  # matrices are tiny, and tests run beside each other
