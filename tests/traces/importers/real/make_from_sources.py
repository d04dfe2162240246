"""Write the files of this folder whose frameworks do not install here, with the loggers' own source files.

    python make_from_sources.py FOLDER SOURCES

SOURCES holds one file of each repository, at the commits that README.md names: `areal_printing.py` (areal/utils/
printing.py), `skyrl_tracking.py` (skyrl/train/utils/tracking.py), `prime_file.py` (src/prime_rl/monitors/file.py) and
`roll_tracking.py` (roll/utils/tracking.py). What they import of their own packages is replaced by empty modules.
"""

import asyncio
import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

HERE, SOURCES = Path(sys.argv[1]), Path(sys.argv[2])


def load(name: str, **empty_modules: dict[str, Any]) -> Any:
    """Return a source file as a module, its own package replaced; `__` in a name stands for a dot."""
    for path, content in empty_modules.items():
        module = types.ModuleType(path.replace("__", "."))
        module.__dict__.update(content)
        sys.modules[module.__name__] = module
    spec = importlib.util.spec_from_file_location(name, SOURCES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[name] = loaded
    spec.loader.exec_module(loaded)
    return loaded


def areal() -> None:
    """Tables of AReaL, between the lines that its StatsLogger prints."""
    tabulate_stats = load("areal_printing").tabulate_stats
    with (HERE / "areal.log").open("w") as file:
        for step in (1, 2, 3):
            stats = {"ppo_actor/task_reward/avg": 0.5, "ppo_actor/task_reward/max": 1.0}
            stats |= {
                "ppo_actor/seq_len/avg": 1299.5 + step,
                "ppo_actor/prompt_len/avg": 300.25,
                "ppo_actor/n_seqs": 64,
            }
            stats |= {"ppo_actor/entropy/avg": 0.25, "timeperf/rollout": 39.0 + step, "timeperf/train_step": 30.5}
            stats |= {"timeperf/update_weights": 2.25, "ppo_actor/update/lr": 1e-6}
            stats |= {"ppo_actor/version_stats/sample_staleness_theta_max": 2.0}
            head = f"20260521-10:00:0{step - 1}."
            file.write(f"{head}000 StatsLogger INFO: Epoch 1/1 Step {step}/3 Train step {step}/3 done.\n")
            file.write(
                f"{head}001 StatsLogger INFO: Stats (1/1):\n{head}002 StatsLogger INFO: \n{tabulate_stats(stats)}\n"
            )


def skyrl() -> None:
    """The console logger of SkyRL, with the prefix that Ray puts before a process's first line."""
    config = {"SkyRLTrainConfig": object, "get_config_as_dict": dict}
    tracking = load("skyrl_tracking", skyrl={}, skyrl__train={}, skyrl__train__config=config)
    from loguru import logger

    logger.remove()
    prefix = "(skyrl_entrypoint pid=4242) 2026-08-01 10:00:00.000 | {level: <8} | {name}:{function}:{line} - {message}"
    logger.add(str(HERE / "skyrl.log"), format=prefix, mode="w")
    for step in (1, 2, 3):
        data = {"generate/avg_num_tokens": 1200.5, "generate/avg_assistant_tokens": 1000.25 + step}
        data |= {"generate/batch_num_seq": 512, "generate/max_num_tokens": 8096, "policy/policy_entropy": 0.25}
        data |= {"timing/generate": 80.125, "timing/policy_train": 40.0, "timing/step": 130.5 + step}
        data |= {"vllm/train/draft_acceptance_rate_pos_1": 0.886, "vllm/train/draft_acceptance_rate_pos_2": 0.77}
        data |= {"vllm/train/draft_mean_acceptance_length": 2.656, "trainer/global_step": step}
        tracking.ConsoleLogger().log(data, step)


def prime_rl() -> None:
    """`metrics.jsonl` of prime-rl's trainer and orchestrator, through its FileMonitor."""
    monitors = {"Kind": str, "Monitor": object, "Subset": str}
    modules: dict[str, dict[str, Any]] = {"prime_rl": {}, "prime_rl__configs": {}, "prime_rl__monitors": {}}
    modules |= {"prime_rl__utils": {}, "prime_rl__configs__monitors": {"FileMonitorConfig": object}}
    modules |= {"prime_rl__monitors__base": monitors}
    modules |= {"prime_rl__utils__utils": {"sanitize": lambda metrics: (metrics, [])}}
    module = load("prime_file", **modules)

    async def write(name: str, rows: list[dict[str, float]]) -> None:
        monitor = module.FileMonitor()
        monitor.config = types.SimpleNamespace(path=f"prime-{name}.jsonl")
        monitor.logger = types.SimpleNamespace(info=lambda _: None)
        (HERE / monitor.config.path).unlink(missing_ok=True)
        await monitor.init(HERE)
        for step in (1, 2, 3):
            for row in rows:
                more = {"time/step": row["time/step"] + step} if "time/step" in row else {}
                await monitor.log_metrics({**row, **more, "step": step}, step)

    times = {"time/step": 60.0, "time/wait_for_batch": 20.5, "time/load_data": 0.1, "time/broadcast_weights": 1.5}
    times |= {"time/save_ckpt": 0.0, "time/forward_backward": 35.25}
    trainer = [{"perf/throughput": 9000.5, "perf/throughput_per_gpu": 1125.0}, {"optim/lr": 1e-6}]
    trainer += [{"entropy/all/mean": 0.3}, times]
    row = {"train/agg/effective/num_output_tokens/mean": 900.5, "train/agg/effective/num_output_tokens/max": 4096.0}
    row |= {"progress/tokens": 250000, "progress/rollouts": 128, "progress/tasks": 16, "time/step": 71.0}
    row |= {"time/pack": 0.5, "time/save_ckpt": 0.0, "time/wait_for_policy": 3.0}
    row |= {"off_policy/mean": 1.5, "off_policy/max": 4.0, "off_policy/dropped": 2.0}
    asyncio.run(write("trainer", trainer))
    asyncio.run(write("orchestrator", [row]))


def roll() -> None:
    """The stdout tracker of ROLL, with the prefix of its logger."""
    lines: list[str] = []
    logging = {"get_logger": lambda: types.SimpleNamespace(info=lines.append)}
    tracker = load("roll_tracking", roll={}, roll__utils={}, roll__utils__logging=logging).StdoutTracker({})
    for step in (0, 1, 2):
        values = {"time/step_total": 90.0 + step if step else 0, "time/step_generate": 50.0 + step}
        values |= {"time/step_train": 20.5, "time/step_model_update": 3.25, "time/old_log_probs": 6.0}
        values |= {"tokens/response_length/mean": 910.5, "critic/entropy/mean": 0.3, "system/tps": 900.0}
        tracker.log(values={**values, "actor/pg_loss@sum": 0.1}, step=step)
    prefix = "[2026-08-19 10:00:0{}] [roll_tracking.py (161)] [INFO] [DRIVER 0] "
    (HERE / "roll.log").write_text("".join(f"{prefix.format(n)}{line}\n" for n, line in enumerate(lines)))


if __name__ == "__main__":
    for writer in (areal, skyrl, prime_rl, roll):
        writer()
