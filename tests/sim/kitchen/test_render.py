"""The kitchen's images: what the cameras see."""

import numpy as np
from support.kitchen import kitchen


def test_wrist_image_is_upright():
    """The hand fills the image's lower edge, so that edge is plain."""
    env = kitchen("PnPCounterToSink")
    image = env.render("robot0_eye_in_hand", 96, 96).astype(float)
    assert image[-4:].std(axis=(0, 1)).max() < 3 < image[:48].std(axis=(0, 1)).max()
    env.close()


def test_target_button_is_seen_by_a_base_camera():
    env = kitchen("TurnOnMicrowave", seed=4)
    before = env.render("robot0_agentview_right", 128, 128)
    button = env.model.body("microwave_start").id
    env.model.geom_rgba[env.model.geom_bodyid == button] = (1, 0, 1, 1)
    changed = np.any(env.render("robot0_agentview_right", 128, 128) != before, axis=-1)
    assert changed.sum() >= 4
    env.close()


def test_the_video_camera_renders_for_people():
    env = kitchen("OpenDrawer")
    image = env.render("video", 120, 160)
    assert image.shape == (120, 160, 3) and image.std() > 10
    env.close()


def test_scenes_do_not_leave_anything_in_each_others_images():
    """One context renders scene after scene: textures and buffers are the present scene's."""
    env = kitchen("OpenDrawer", seed=1)
    first = env.observe().images
    env.render("video", 120, 160)
    env.reset(2)
    other = env.observe().images
    env.reset(1)
    again = env.observe().images
    for camera, image in first.items():
        assert np.array_equal(image, again[camera]) and not np.array_equal(image, other[camera])
    env.close()
