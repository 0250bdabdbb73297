"""Experiment trackers: TensorBoard, Weights & Biases, MLflow, SwanLab and VisualDL, as `--log_to` of every training.

A guest of this package: no module outside imports it, and without this folder and its line in `paddle_ranker.recipes`
everything else works. It plugs in by `trackers.py`:

    TRACKERS    tensorboard, wandb, mlflow, swanlab, visualdl
"""
