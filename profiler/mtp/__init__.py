"""Multi-token prediction for real: heads that are trained, losses, verification, and acceptance counted on them."""
