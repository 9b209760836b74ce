"""Videos (MP4) of episodes, and strips of their frames (PNG)."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from z1_ros.errors import BackendUnavailable

_MARGIN_PX = 8
_PAPER = (250, 248, 244)
_INK = (45, 42, 40)
_GOOD, _BAD = (46, 125, 50), (183, 62, 48)


def pick_frames(frames: Sequence[np.ndarray], count: int) -> list[np.ndarray]:
    """Return ``count`` evenly spaced frames, including the first and the last."""
    if not frames:
        return []
    at = np.linspace(0, len(frames) - 1, count).round().astype(int)
    return [frames[i] for i in at]


def frame_strip(frames: Sequence[np.ndarray], title: str, *, success: bool) -> np.ndarray:
    """Return one row of equal frames (h, w, 3) under a title, as an RGB image."""
    height, width = frames[0].shape[:2]
    head = 34
    size = head + height + _MARGIN_PX, len(frames) * (width + _MARGIN_PX) + _MARGIN_PX
    canvas = np.full((*size, 3), _PAPER, np.uint8)
    cv2.circle(canvas, (_MARGIN_PX + 9, head // 2), 7, _GOOD if success else _BAD, -1, cv2.LINE_AA)
    place = (_MARGIN_PX + 26, head // 2 + 7)
    cv2.putText(canvas, title, place, cv2.FONT_HERSHEY_DUPLEX, 0.62, _INK, 1, cv2.LINE_AA)
    for i, frame in enumerate(frames):
        left = _MARGIN_PX + i * (width + _MARGIN_PX)
        canvas[head : head + height, left : left + width] = frame
    return canvas


def stack_strips(strips: Sequence[np.ndarray]) -> np.ndarray:
    """Return the strips below each other in one image, padded to the widest strip."""
    width = max(strip.shape[1] for strip in strips)
    canvas = np.full((sum(map(len, strips)), width, 3), _PAPER, np.uint8)
    top = 0
    for strip in strips:
        canvas[top : top + len(strip), : strip.shape[1]] = strip
        top += len(strip)
    return canvas


def write_png(path: Path, image: np.ndarray) -> None:
    """Write an RGB image (h, w, 3) uint8."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR)):
        raise OSError(f"could not write {path}")


def write_mp4(path: Path, frames: Sequence[np.ndarray], fps: float) -> None:
    """Write RGB frames (h, w, 3) uint8 as H.264; raises BackendUnavailable if ffmpeg fails."""
    try:
        import imageio_ffmpeg
    except ImportError as error:
        raise BackendUnavailable(
            "videos need imageio-ffmpeg: pip install imageio-ffmpeg (or z1_ros[demo])"
        ) from error
    height, width = frames[0].shape[:2]
    path.parent.mkdir(parents=True, exist_ok=True)
    # H.264 in the common 4:2:0 form needs even sides.
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error", "-f", "rawvideo"]
    command += ["-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(fps), "-i", "-"]
    command += ["-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2", "-c:v", "libx264", "-crf", "20"]
    command += ["-pix_fmt", "yuv420p", "-movflags", "+faststart", str(path)]
    data = b"".join(np.ascontiguousarray(frame).tobytes() for frame in frames)
    done = subprocess.run(command, input=data, capture_output=True, check=False)
    if done.returncode != 0:
        raise BackendUnavailable(f"ffmpeg could not write {path}: {done.stderr.decode()[-300:]}")
