"""Predict images by an exported file, without MindSpore: python scripts/predict_file.py IMAGE_OR_FOLDER... --file FILE

Needs NumPy, Pillow, and onnxruntime for .onnx or ai-edge-litert for .tflite; all else is in the file.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.console import Parser, run
from src.data.images import list_images
from src.errors import UserError
from src.export.exported import FileNetwork
from src.inference.prediction import ResultFiles, add_result_flags, tell_predictions
from src.predictors import build_predictor

ENDINGS = (".onnx", ".tflite")


def parse_arguments():
    parser = Parser(__doc__.splitlines()[0])
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="images, or folders of images")
    parser.add_argument("--file", required=True, help=f"from export.py: {' or '.join(ENDINGS)}")
    add_result_flags(parser)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), metavar="N", help="that decode images")
    parser.add_argument("--stored_orientation", action="store_true", help="do not turn photographs upright")
    arguments = parser.parse_args()
    if not 1 <= arguments.threads <= 256:
        raise UserError(f"--threads {arguments.threads} is out of range: at least 1 and at most 256")
    if Path(arguments.file).suffix.lower() not in ENDINGS:
        raise UserError(f"{arguments.file}: is no file of these endings: {', '.join(ENDINGS)}")
    return arguments


def main():
    arguments = parse_arguments()
    results = ResultFiles(arguments.csv, arguments.json)
    paths, notes = list_images(arguments.images)
    network = FileNetwork(arguments.file)
    changes = {"exif_rotation": not arguments.stored_orientation}
    predictor = build_predictor(network, network.file.notes, arguments.file, changes)
    for line in notes:
        print(line)
    tell_predictions(predictor, paths, results, arguments.output_dir, arguments.threads)


if __name__ == "__main__":
    run(main)
