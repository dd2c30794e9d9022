"""The rounding of channel counts, as by the authors of MobileNetV3 and GhostNet. Needs no MindSpore."""

CHANNEL_DIVISOR = 4


def round_channels(channels: float) -> int:
    """Round to the nearest multiple of `CHANNEL_DIVISOR`, one step further up where that loses more than 10 %."""
    rounded = max(CHANNEL_DIVISOR, int(channels + CHANNEL_DIVISOR / 2) // CHANNEL_DIVISOR * CHANNEL_DIVISOR)
    return rounded + CHANNEL_DIVISOR if rounded < 0.9 * channels else rounded
