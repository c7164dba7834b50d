"""A step that replaces the steps while it is itself replaced does not stop the pipeline."""

from __future__ import annotations

from threading import Thread

import numpy as np

from edgecv.pipelines.loop.step_chain import StepChain, build_steps
from edgecv.results import Frame, Result


def test_a_step_that_replaces_the_steps_when_it_is_closed_is_refused_and_frames_go_on() -> None:
    class Restores:
        def __call__(self, result: Result) -> Result:
            return result

        def close(self) -> None:
            chain.replace([Restores()], ())

    def passes(result: Result) -> Result:
        return result

    def exchange_and_go_on() -> None:
        chain.replace([passes], ())
        came.append(chain(Result(frame=Frame(image=np.zeros((8, 8, 3), np.uint8)))))

    came: list[Result | None] = []
    chain = StepChain(build_steps([Restores()], (), ()), (), lambda _: 0.0)
    thread = Thread(target=exchange_and_go_on, daemon=True)
    thread.start()
    thread.join(5)

    assert not thread.is_alive()
    assert came[0] is not None
    assert chain.given == (passes,)
