"""Settings of the embedded kitchen."""

from dataclasses import asdict, dataclass

from z1_ros.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class KitchenConfig:
    """Settings that change a kitchen of the same task and seed."""

    image_size: int = 128
    """Height and width of the policy cameras' images [px]."""
    randomisation: float = 1.0
    """Scale of all random ranges; 0 gives the same kitchen for all seeds."""
    base_range_m: float = 0.12
    """Largest initial sideways offset of the robot's base [m]; forward, it is a third of this."""
    base_yaw_rad: float = 0.08
    """Largest initial rotation of the robot's base [rad]."""
    joint_noise_rad: float = 0.04
    """Standard deviation of the arm's initial joint angles [rad]."""
    camera_jitter_m: float = 0.015
    """Largest shift of the two base cameras along each axis [m], and largest rotation [rad]."""
    horizon: int = 0
    """Control steps after which an episode is over; 0: the task's horizon."""

    def __post_init__(self) -> None:
        if not 16 <= self.image_size <= 2048:
            raise ConfigError(f"image_size must be 16 to 2048 pixels, got {self.image_size}")
        if self.horizon < 0:
            raise ConfigError(f"horizon must be 0 or more control steps, got {self.horizon}")
        for name, value in asdict(self).items():
            if not 0 <= value < float("inf"):
                raise ConfigError(f"{name} must be 0 or more and finite, got {value}")
