"""Write the files of this folder with the frameworks' own loggers; see README.md for versions and commands."""

import contextlib
import os
import sys
from pathlib import Path

HERE = Path(sys.argv[1])
NUM_STEPS = 3


def verl() -> None:
    """Metrics of verl's own `metric_utils` over a made-up batch, through its console, file and TensorBoard loggers."""
    os.environ["VERL_FILE_LOGGER_PATH"] = str(HERE / "verl.jsonl")
    os.environ["TENSORBOARD_DIR"] = str(HERE / "verl-tensorboard")
    import numpy
    import torch
    from verl import DataProto
    from verl.trainer.ppo.metric_utils import compute_data_metrics, compute_throughout_metrics, compute_timing_metrics
    from verl.utils.tracking import Tracking

    generator = torch.Generator().manual_seed(0)
    with (HERE / "verl.log").open("w") as console, contextlib.redirect_stdout(console):
        tracking = Tracking("project", "experiment", ["console", "file", "tensorboard"])
        for step in range(1, NUM_STEPS + 1):
            lengths = torch.randint(5, 33, (16,), generator=generator)
            mask = torch.cat([torch.ones(16, 8), torch.arange(32)[None] < lengths[:, None]], 1).long()
            scores = torch.rand(16, 32, generator=generator)
            tensors = dict.fromkeys(("token_level_scores", "token_level_rewards", "advantages", "returns"), scores)
            tensors |= {"prompts": torch.ones(16, 8), "responses": torch.ones(16, 32)}
            tensors |= {"attention_mask": mask, "response_mask": mask[:, 8:]}
            batch = DataProto.from_dict(tensors, non_tensors={"__num_turns__": numpy.full(16, 2)})
            batch.meta_info["global_token_num"] = mask.sum(-1).tolist()
            timing = {"gen": 40.0 + step, "old_log_prob": 5.5, "update_actor": 20.25, "step": 70.0 + step}
            metrics = {"training/global_step": step, "actor/entropy": 0.3 - 0.01 * step}
            metrics |= compute_data_metrics(batch, use_critic=False)
            metrics |= compute_timing_metrics(batch, timing)
            metrics |= compute_throughout_metrics(batch, timing, n_gpus=4)
            tracking.log(metrics, step)
        tracking.finish()


def trl() -> None:
    """Train a model of 30 thousand random weights for four steps with TRL's GRPOTrainer, on the CPU."""
    import torch
    from datasets import Dataset
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM
    from trl import GRPOConfig, GRPOTrainer

    output = HERE / "trl-run"
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(HERE / "trl-tensorboard")
    words = {word: index for index, word in enumerate(["[PAD]", "[EOS]", "[UNK]", *(f"w{n}" for n in range(61))])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    torch.manual_seed(0)
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = Qwen2Config(vocab_size=64, num_key_value_heads=1, pad_token_id=0, eos_token_id=1, **size)
    arguments = GRPOConfig(
        output_dir=str(output),
        per_device_train_batch_size=4,
        num_generations=4,
        max_completion_length=16,
        max_steps=4,
        logging_steps=1,
        save_steps=4,
        report_to=["tensorboard"],
        use_cpu=True,
        bf16=False,
    )
    GRPOTrainer(
        model=Qwen2ForCausalLM(config),
        reward_funcs=lambda completions, **_: [float(len(text.split()) % 3) for text in completions],
        args=arguments,
        train_dataset=Dataset.from_dict({"prompt": [f"w{n % 61} w{3 * n % 61}" for n in range(32)]}),
        processing_class=PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, pad_token="[PAD]", eos_token="[EOS]", unk_token="[UNK]"
        ),
    ).train()
    (output / "checkpoint-4" / "trainer_state.json").rename(HERE / "trl-trainer_state.json")


if __name__ == "__main__":
    for name in sys.argv[2:]:
        {"verl": verl, "trl": trl}[name]()
