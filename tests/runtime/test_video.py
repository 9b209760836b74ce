"""Strips and videos are files that other programs can open."""

import cv2
import numpy as np

from z1_ros.runtime.video import frame_strip, pick_frames, stack_strips, write_mp4, write_png


def frames(n: int = 12, shape: tuple[int, int, int] = (61, 81, 3)) -> list[np.ndarray]:
    return [np.full(shape, 10 * i, np.uint8) for i in range(n)]


def test_picked_frames_include_first_and_last() -> None:
    picked = pick_frames(frames(), 5)
    assert [f[0, 0, 0] for f in (picked[0], picked[-1])] == [0, 110] and len(picked) == 5
    assert len(pick_frames(frames(2), 5)) == 5


def test_a_strip_shows_every_frame(tmp_path) -> None:
    strip = frame_strip(frames(3), "open the drawer", success=True)
    image = stack_strips([strip, frame_strip(frames(2), "x", success=False)])
    write_png(tmp_path / "s.png", image)
    read = cv2.imread(str(tmp_path / "s.png"))[:, :, ::-1]
    assert np.array_equal(read, image)
    assert all((strip == 10 * i).all(-1).sum() >= 61 * 81 for i in range(3))


def test_a_video_of_odd_size_plays(tmp_path) -> None:
    write_mp4(tmp_path / "f.mp4", frames(), fps=10)
    video = cv2.VideoCapture(str(tmp_path / "f.mp4"))
    count = 0
    while video.read()[0]:
        count += 1
    assert count == 12
