"""Pictures: object detectors, and how a picture is fitted to one.

`detector` runs YOLOX and other ONNX exports; `ultralytics_detector` is the adapter of an optional
package.
May import: the files of `models/`, and `pipeline/`.
"""
