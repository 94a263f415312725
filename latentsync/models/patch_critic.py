"""`PatchCritic`: tells, patch by patch, pictures that were decoded from true ones; needed in training alone."""

from torch import Tensor, nn

from latentsync.constants import RGB

GROUPS = 2  # of the norms
SLOPE = 0.2  # of the activations below 0


class PatchCritic(nn.Module):
    """A convolutional critic whose verdicts each see a patch (the discriminator of pix2pix, Isola et al., arXiv 1611.07004, small).

    Args:
        width: channels of the first layer; the next two have twice and four times as many.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        stages = [nn.Sequential(nn.Conv2d(RGB, width, 4, 2, 1), nn.LeakyReLU(SLOPE))]
        for channels in (2 * width, 4 * width):
            stages.append(
                nn.Sequential(nn.Conv2d(channels // 2, channels, 4, 2, 1, bias=False), nn.GroupNorm(GROUPS, channels), nn.LeakyReLU(SLOPE))
            )
        self.stages = nn.ModuleList(stages)
        self.verdict = nn.Conv2d(4 * width, 1, 3, 1, 1)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Pixels n 3 h w -> features n c h/2 w/2, ..., n 4c h/8 w/8, and as the last entry the verdicts n 1 h/8 w/8: higher is truer."""
        seen = []
        for stage in self.stages:
            pixels = stage(pixels)
            seen.append(pixels)
        return [*seen, self.verdict(pixels)]
