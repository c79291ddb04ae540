"""Trains a small object detector from COCO JSON and exports it as ONNX, fp32 and int8.

`python -m detector --help` lists the commands; README.md beside this package walks through them.
"""
