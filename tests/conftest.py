"""Puts this folder on the path, so that every test can import ``fakes``."""

import os
from importlib.util import find_spec

# Small networks are several times slower on two threads that wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Without torch (Z1_TORCH=none) what is left to test is the deployed runtime, which needs none.
NEED_TORCH = """
ablate bench camera_slots card checkpoint collect combine curves dataset export_onnx flow_sde
hosting import_checkpoint import_refusals layouts load_bench lora memory_bench modality
norm_stats origin parity pi05 plausibility precision prefix_cache rl_bench sft tensorboard
train_z1 trainer vla weight_files
"""
collect_ignore = [] if find_spec("torch") else [f"test_{name}.py" for name in NEED_TORCH.split()]
