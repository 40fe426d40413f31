"""What WCAG 2.2 says of colours; for the pages that we bring along."""


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of two colours like #1c2024 or #fff: 1 to 21."""
    darker, lighter = sorted((_luminance(one), _luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    """Of WCAG's definitions, relative luminance."""
    digits = colour.removeprefix("#")
    if len(digits) == 3:
        digits = "".join(2 * digit for digit in digits)
    channels = (part / 255 for part in bytes.fromhex(digits))
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
