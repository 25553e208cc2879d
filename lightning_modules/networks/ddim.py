"""DDIM schedulers made from the config of whatever scheduler a base comes with."""

import inspect
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler


def make_ddim(config: dict[str, Any], **changes: Any) -> "DDIMScheduler":  # noqa: ANN401
    """Return a DDIM scheduler with the noise schedule of another scheduler.

    What DDIM would do by default and the other scheduler does not know of, clipping and thresholding, is off.

    Args:
        config: the full config of any diffusion scheduler.
        **changes: settings of the DDIM scheduler that differ from the config.
    """
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    known = inspect.signature(DDIMScheduler).parameters
    taken = {name: value for name, value in config.items() if name in known}
    return DDIMScheduler(**({"clip_sample": False, "thresholding": False} | taken | changes))
