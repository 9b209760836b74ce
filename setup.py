from glob import glob

from setuptools import find_packages, setup

NAME = "z1_ros"
COMMANDS = {
    "sft": "sft",
    "train": "train",
    "teach": "teach",
    "demos": "demos",
    "combine": "combine",
    "ablate": "ablate",
    "curves": "curves",
    "import": "import_checkpoint",
    "export": "export",
    "eval": "evaluate",
    "bench": "bench",
    "demo": "demo",
    "run": "run",
}

setup(
    name=NAME,
    version="0.2.0",
    description="A π0.5 policy, fine-tuned with Z-1, on a Franka arm through ROS 2",
    license="Apache-2.0",
    maintainer="z1_ros maintainers",
    maintainer_email="z1-ros@example.org",
    python_requires=">=3.11",
    # The folders models/ and sim/ are packages of z1_ros through links inside z1_ros/.
    packages=find_packages(include=[NAME, f"{NAME}.*"]),
    package_data={
        NAME: ["py.typed"],
        f"{NAME}.models": ["*/manifest.json", "*/*.onnx", "*/*.safetensors", "*/*.json", "*/*.md"],
    },
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        (f"share/{NAME}/launch", glob("launch/*.launch.py")),
        (f"share/{NAME}/launch/params", glob("launch/params/*.yaml")),
        (f"share/{NAME}/config", glob("config/*")),
        # `ros2 launch` and `ros2 run` look for executables here. As data files they arrive with
        # colcon, colcon --symlink-install and pip alike, and start the environment's own Python.
        (f"lib/{NAME}", glob("scripts/*_node")),
    ],
    zip_safe=False,
    install_requires=[
        "numpy>=1.26,<3",
        "pyyaml>=6,<7",
        "opencv-python-headless>=4.9,<6",
        "onnxruntime>=1.20,<2",
        "pillow>=10,<14",
        "sentencepiece>=0.2,<0.3",
        "tokenizers>=0.20,<0.24",
        "mujoco>=3.3,<5",
        "tyro>=0.9,<2",
        "rich>=13,<16",
    ],
    extras_require={
        "demo": ["imageio-ffmpeg>=0.5,<1"],
        "train": [
            "torch>=2.11,<2.14",
            "transformers>=5.6,<5.24",
            "safetensors>=0.5,<1",
            "onnx>=1.18,<2",
            "onnxscript>=0.5,<0.8",
            "tensorboard>=2.16,<3",
            "matplotlib>=3.8,<4",
        ],
        "lora": ["peft>=0.18,<1"],
        "test": [
            "pytest>=8,<9",
            "pytest-timeout>=2.3,<3",
            "pytest-xdist>=3.6,<4",
            "hypothesis>=6.100,<7",
            "catkin_pkg>=1",
            "ruff>=0.17,<0.18",
            "mypy>=2.4,<2.5",
            "types-PyYAML>=6,<7",
        ],
    },
    entry_points={
        "console_scripts": [
            f"z1-{name} = {NAME}.commands.entry:{function}" for name, function in COMMANDS.items()
        ]
    },
)
