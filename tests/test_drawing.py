"""Class names in scripts that the usual font lacks: another font draws them, or else their numbers stand there."""

import warnings

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from src import drawing
from src.detection.drawing import draw_detections
from src.detection.predictor import DetectionOptions, DetectionPredictor
from src.segmentation.drawing import draw_overlay

NAMES = ("cat", "猫")
WARNING = (
    "warning: no font on this machine has the characters of 1 class names, such as '猫': their numbers are drawn\n"
)


def draw_square(side):
    pen = TTGlyphPen(None)
    for corner, move in zip(((0, 0), (0, side), (side, side), (side, 0)), (pen.moveTo, *[pen.lineTo] * 3)):
        move(corner)
    pen.closePath()
    return pen.glyph()


@pytest.fixture(scope="module")
def font(tmp_path_factory):
    """A font whose characters are squares: of 猫, digits and percent; a smaller one stands for all that it lacks."""
    characters = {ord(character): f"c{ord(character)}" for character in "猫 0123456789%"}
    glyphs = {".notdef": draw_square(300), **{name: draw_square(800) for name in characters.values()}}
    builder = FontBuilder(1000)
    builder.setupGlyphOrder(list(glyphs))
    builder.setupCharacterMap(characters)
    builder.setupGlyf(glyphs)
    builder.setupHorizontalMetrics(dict.fromkeys(glyphs, (900, 0)))
    builder.setupHorizontalHeader(ascent=900, descent=-100)
    builder.setupNameTable({"familyName": "Squares", "styleName": "Regular"})
    builder.setupPost()
    path = tmp_path_factory.mktemp("fonts") / "squares.ttf"
    builder.save(path)
    return str(path)


@pytest.fixture(autouse=True)
def choose_fallbacks(monkeypatch):
    """A function that says which fonts are on the machine besides the usual one; nothing is remembered of others."""

    def choose(*files):
        monkeypatch.setattr(drawing, "FALLBACKS", files)
        for function in (drawing.find_font, drawing.open_font, drawing.label_classes):
            function.cache_clear()

    yield choose
    monkeypatch.undo()
    choose(*drawing.FALLBACKS)


def overlay(names):
    return np.asarray(draw_overlay(np.zeros((60, 40, 3), np.uint8), np.ones((60, 40), np.uint8), [0, 1], names))


def detected(names):
    """An image with a detection of class 1, as `scripts/predict.py` draws it."""
    limits = {"objectness": 0.0, "score": 0.0, "candidates": 1, "iou": 0.5, "detections": 1, "drawn_score": 0.1}
    shape = {"mean": (0, 0, 0), "std": (1, 1, 1), "exif_rotation": False, "mean_colour": (0, 0, 0), "image_size": 90}
    predictor = DetectionPredictor(lambda batch: [batch], DetectionOptions(names, **shape, **limits))
    predictor.select = lambda *_: (np.array([[9.0, 30.0, 80.0, 80.0]]), np.array([0.5]), np.array([1]))
    image = Image.new("RGB", (90, 90))
    prediction = predictor.predict("a.png", (image, [0]), draws=True)
    assert prediction.findings[0]["class"] == names[1]
    return np.asarray(prediction.drawing)


def test_names_are_drawn_by_a_font_that_has_their_characters(font, choose_fallbacks, capsys):
    choose_fallbacks("not-there", font)
    usual = drawing.default_font()
    parts = [(part, used.path) for part, used, _ in drawing.split_text("cát, кот 猫猫 87%", 20)]
    assert parts == [("cát, кот ", usual), ("猫猫", font), (" 87%", usual)]
    assert drawing.label_classes(NAMES) == NAMES and capsys.readouterr().err == ""


def test_all_parts_stand_on_one_line(font, choose_fallbacks):
    """The squares of the font reach from the line to 0.8 of its height, each is 0.9 wide; H is DejaVu Sans's."""
    choose_fallbacks(font)
    image = Image.new("L", (200, 80))
    draw = ImageDraw.Draw(image)
    drawing.draw_text(draw, (5, 10), "H猫猫H", 40, 255)
    usual = ImageFont.truetype(drawing.default_font(), 40)
    widths = [usual.getlength("H"), 36, 36, usual.getlength("H")]
    assert drawing.text_size(draw, "H猫猫H", 40)[0] == pytest.approx(sum(widths), abs=2)
    squares = np.asarray(image)[:, round(5 + widths[0]) : round(5 + widths[0] + 68)]
    line = 10 + usual.getmetrics()[0]
    assert np.flatnonzero(squares.max(1) > 127)[[0, -1]].tolist() == [line - 32, line - 1]
    assert np.flatnonzero(np.asarray(image).max(1) > 127)[-1] == line - 1


def test_numbers_are_drawn_where_no_font_has_the_characters(choose_fallbacks, capsys):
    choose_fallbacks("not-there")
    expected = overlay(("cat", "1")), detected(("cat", "1"))
    assert capsys.readouterr().err == ""
    assert drawing.label_classes(NAMES) == ("cat", "1")
    assert all(np.array_equal(drawn, number) for drawn, number in zip((overlay(NAMES), detected(NAMES)), expected))
    assert capsys.readouterr().err == WARNING


def test_boxes_have_the_same_fonts(font, choose_fallbacks):
    def draw(*fonts):
        choose_fallbacks(*fonts)
        image = Image.new("RGB", (90, 90))
        draw_detections(image, [(9, 30, 80, 80)], ["猫 5%"], [(255, 0, 0)])
        return np.asarray(image)

    assert not np.array_equal(draw(font), draw())


def test_figures_have_the_same_fonts(font, choose_fallbacks):
    choose_fallbacks("not-there", font)
    figure = Figure(figsize=(1, 1), dpi=100)
    with rc_context(), warnings.catch_warnings():
        warnings.simplefilter("error")  # one tells of characters without a font
        drawing.add_fonts(["cat", "猫"])
        figure.text(0, 0.1, "猫", fontsize=36)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
    drawn = np.asarray(canvas.buffer_rgba())[..., 0] < 128
    sides = [np.ptp(np.flatnonzero(drawn.any(axis))) + 1 for axis in (0, 1)]
    np.testing.assert_allclose(sides, 0.8 * 36 * 100 / 72, atol=1)  # the square of the font, in pixels
    assert drawn.sum() == np.prod(sides)


def test_pillows_own_fonts(font, choose_fallbacks, monkeypatch):
    choose_fallbacks()
    monkeypatch.setattr(drawing, "default_font", lambda: drawing.PILLOWS)
    assert drawing.label_classes(NAMES) == ("cat", "1")

    oldest = getattr(ImageFont, "load_default_imagefont", ImageFont.load_default)()

    def load_default():  # Pillow before 10.1
        return oldest

    choose_fallbacks()
    monkeypatch.setattr(ImageFont, "load_default", load_default)
    assert drawing.label_classes(NAMES) == ("cat", "1")
    assert isinstance(drawing.split_text("cat", 20)[0][1], ImageFont.ImageFont)
    choose_fallbacks(font)
    assert [part for part, _, _ in drawing.split_text("cat 猫", 20)] == ["cat ", "猫"]
