"""Service: `bebop simulate`, `bebop sweep` and `bebop plan` over HTTP, for programs. Nothing outside imports it."""
