"""Serving stations as queueing networks of Ciw (Palmer et al. 2019, doi 10.1080/17477778.2018.1473909).

Two of them are exactly what Ciw can express: servers of one speed behind one queue (steps that cost the same in every
batch), and limited processor sharing (steps that cost in proportion to the batch above a threshold). Between two turns
a customer waits at a node with a server for everybody. Prefills take no time here.
"""

from typing import Any

import ciw
from peer_batching import Trajectory

_BEGIN_S = 1.0
"""At time 0 Ciw 3.2.7 takes a customer who still waits for a shared server for one who has been served."""


class _PerTurn(ciw.dists.Distribution):
    """Service times that belong to the customer and count its visits."""

    def __init__(self, seconds: list[list[float]]) -> None:
        self.seconds = seconds

    def sample(self, t: float | None = None, ind: Any = None) -> float:  # noqa: ARG002 - Ciw's names
        visits = ind.__dict__.setdefault("visits", {})
        visit = visits.get(id(self), 0)
        visits[id(self)] = visit + 1
        return float(self.seconds[ind.id_number - 1][visit])


def serve(
    trajectories: list[Trajectory], step_s: float, num_servers: int, sharing_above: int | None = None
) -> list[float]:
    """Return when each trajectory ends; a response's first token comes at once, every other one after a step.

    Args:
        trajectories: In the order in which they arrive.
        step_s: Seconds of a step; with sharing, of a batch up to `sharing_above`.
        num_servers: Sequences served together.
        sharing_above: Batch above which the step's time grows in proportion; None: never.
    """
    at_once = all(trajectory.arrival_s == 0 for trajectory in trajectories)
    pauses = [[t.arrival_s, *t.delays_s[1:]] for t in trajectories]
    if at_once:  # Ciw would break the tie of all who leave the pause together by chance
        pauses = [pause[1:] for pause in pauses]
    service = [[step_s * (tokens - 1) for tokens in t.outputs] for t in trajectories]

    def route(individual: Any, _simulation: Any) -> list[int]:
        turns = len(trajectories[individual.id_number - 1].outputs)
        return [1, 2] * (turns - 1) if at_once else [2, *[1, 2] * (turns - 1)]

    arrival = ciw.dists.Sequential([_BEGIN_S, 1e15])
    batch = ciw.dists.Sequential([len(trajectories), 1])
    first = 2 if at_once else 1
    network = ciw.create_network(
        arrival_distributions=[arrival if node == first else None for node in (1, 2)],
        batching_distributions=[batch if node == first else ciw.dists.Deterministic(1) for node in (1, 2)],
        service_distributions=[_PerTurn(pauses), _PerTurn(service)],
        number_of_servers=[float("inf"), num_servers],
        ps_thresholds=[1, sharing_above or 1],
        routing=ciw.routing.ProcessBased(route),
    )
    simulation = ciw.Simulation(network, node_class=[ciw.Node, ciw.PSNode if sharing_above else ciw.Node])
    simulation.simulate_until_max_customers(len(trajectories), method="Finish")
    finish_s = [0.0] * len(trajectories)
    for record in simulation.get_all_records():
        place = record.id_number - 1
        if place < len(finish_s):
            finish_s[place] = max(finish_s[place], float(record.exit_date) - _BEGIN_S)
    return finish_s
