#!/bin/bash
# Install into .venv, then train on handwritten digits, evaluate, export and predict: run_demo.sh [RUN_FOLDER]
set -euo pipefail
cd "$(dirname "$0")/.."
run=${1:-runs/digits}
bash scripts/install.sh .venv requirements.txt
source .venv/bin/activate
python scripts/make_demo_data.py data/digits
python train.py --config configs/classification/digits.yaml --output_dir "$run"
python eval.py --checkpoint_path "$run/best.ckpt"
python export.py --checkpoint_path "$run/best.ckpt" --file_format MINDIR --file_name "$run/ghostnetv2"
python scripts/predict.py data/digits/val/3/0013.png --checkpoint_path "$run/best.ckpt"
