"""A simulated run as a page with a timeline: `--report FILE.html` of `scarcity sim run` and `replay`."""

from sim.timelines.drawing import Run
from sim.timelines.page import render_timeline
from sim.timelines.recorder import Recorder, Recording

__all__ = ["Recorder", "Recording", "Run", "render_timeline"]
