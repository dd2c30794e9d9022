"""Predicted classes as a colour overlay with a legend."""

from PIL import Image, ImageDraw

from src.drawing import draw_text, label_classes, palette, text_size

OPACITY = 0.55  # of the colours over the image
FONT_SIZE, LINE_HEIGHT, MARGIN = 14, 20, 8  # pixels of the legend


def draw_overlay(image, classes, shown, names):
    """Draw an image with its classes in colour, and beside it a legend.

    Args:
        image: uint8 (H, W, 3).
        classes: uint8 (H, W).
        shown: classes of the legend, in its order.
        names: of all classes.

    Returns:
        PIL image, at least as large as the image.
    """
    colours = palette(len(names))
    mixed = Image.blend(Image.fromarray(image), Image.fromarray(colours[classes]), OPACITY)
    drawn = label_classes(tuple(names))
    labels = [drawn[index] for index in shown]
    text_left, draw = mixed.width + MARGIN + LINE_HEIGHT, ImageDraw.Draw(mixed)
    width = text_left + max(text_size(draw, label, FONT_SIZE)[0] for label in labels) + 2 * MARGIN
    canvas = Image.new("RGB", (width, max(mixed.height, len(shown) * LINE_HEIGHT + MARGIN)), "white")
    canvas.paste(mixed, (0, 0))
    draw = ImageDraw.Draw(canvas)
    for line, index in enumerate(shown):
        left, top = mixed.width + MARGIN, MARGIN // 2 + line * LINE_HEIGHT
        square = (left, top + 3, left + FONT_SIZE, top + 3 + FONT_SIZE)
        draw.rectangle(square, fill=tuple(colours[index].tolist()), outline="black")
        draw_text(draw, (text_left, top + 2), labels[line], FONT_SIZE, "black")
    return canvas
