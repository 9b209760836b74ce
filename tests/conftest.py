"""Puts this folder on the path, so that every test can import ``fakes``."""

from importlib.util import find_spec

# Without torch (Z1_TORCH=none) what is left to test is the deployed runtime, which needs none.
collect_ignore = (
    []
    if find_spec("torch")
    else [
        f"test_{name}.py"
        for name in (
            *(
                "bench",
                "dataset",
                "export_onnx",
                "lora",
                "pi05",
                "prefix_cache",
                "sft",
                "trainer",
                "vla",
            ),
            *("camera_slots", "card", "import_checkpoint", "modality", "norm_stats", "origin"),
            "plausibility",
            *("checkpoint", "layouts", "parity", "weight_files"),
        )
    ]
)
