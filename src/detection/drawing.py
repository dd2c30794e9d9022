"""Detections drawn on an image: boxes with class names and scores, one colour a class."""

from PIL import ImageDraw

from src.drawing import draw_text, text_size

LINE_SHARE, TEXT_SHARE = 1 / 250, 1 / 32  # width of lines and height of texts, of the image's shorter side
MIN_LINE, MIN_TEXT = 1, 10  # pixels
WHITE, BLACK = (255, 255, 255), (0, 0, 0)


def draw_detections(image, boxes, texts, colours):
    """Draw on a PIL image, in place.

    Args:
        image: RGB.
        boxes: (D, 4), xyxy in its pixels, best first; the best are drawn on top.
        texts: of the boxes.
        colours: RGB, of the boxes.
    """
    side = min(image.size)
    line, height = max(MIN_LINE, round(side * LINE_SHARE)), max(MIN_TEXT, round(side * TEXT_SHARE))
    draw = ImageDraw.Draw(image)
    for box, text, colour in reversed(list(zip(boxes, texts, colours))):
        colour = tuple(int(part) for part in colour)
        draw.rectangle(tuple(box), outline=colour, width=line)
        width, text_height = text_size(draw, text, height)
        left = max(0, min(box[0], image.width - width))
        top = box[1] - text_height if box[1] >= text_height else box[1]  # above the box, if there is room
        draw.rectangle((left, top, left + width, top + text_height), fill=colour)
        draw_text(draw, (left, top), text, height, _readable_on(colour))


def _readable_on(colour):
    """Choose black or white, whichever stands out on a colour."""
    red, green, blue = colour
    return BLACK if 0.299 * red + 0.587 * green + 0.114 * blue > 128 else WHITE
